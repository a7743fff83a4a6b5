"""What no tensor says of a CLIP: activation, heads, normalisation, resizing; `configs` reads the files that say it.

A file of weights alone does not tell GELU from QuickGELU: both load, and one of them gives worse embeddings silently.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from handclip_lib.errors import BackboneError

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NORMALISATIONS = {
    "clip": (CLIP_MEAN, CLIP_STD),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of the channels of pixels in 0..1, by the name that `mean_std` takes."""
HEAD_WIDTH = 64
"""Of every published text tower and ResNet, and of the image towers of `USUAL_WIDTHS`."""
USUAL_WIDTHS = (384, 512, 768, 896, 1024)
"""Of a ViT; heads of wider ones are 80 (1280), 88 (1408), 104 (1664) or 112 wide (1792). Source: open_clip."""
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = (
    "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin",
    "best.safetensors",
)  # fmt: skip
"""Files of weights in a folder, the first there is taken."""
PLAIN_STEMS = ("model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model", "best", "final")
"""Of files that are told by their folder's name."""
VOCABULARIES = ("vocab.json", "tokenizer.json")


class Given(NamedTuple):
    """What a user says of a file of weights; empty: nothing."""

    activation: str = ""
    heads: int = 0
    mean_std: str = ""


@dataclass(frozen=True)
class Properties:
    """What tensors do not say, and who said it.

    Attributes:
        activation: "quick_gelu" or "gelu" between the two layers of each MLP.
        heads, text_heads: Attention heads of the image tower (a ResNet: of its pooling) and of the text tower.
        mean, std: Of the channels of pixels in 0..1.
        interpolation: "bicubic" or "bilinear": how a photograph is brought to the model's size, always antialiased.
        library: Whose model it is, where it is not of CLIP's own shape, and its name there.
        sources: Who said each of them, by name.
    """

    activation: str = "quick_gelu"
    heads: int = 0
    text_heads: int = 0
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    library: str = ""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def unlike_clip(self, widths: tuple[int, int]) -> str:
        """What differs from OpenAI's own, for a fingerprint; "" where nothing does."""
        heads, text_heads = (max(1, width // HEAD_WIDTH) if width else 0 for width in widths)
        usual = Properties("quick_gelu", heads, text_heads)
        if self in (usual, replace(usual, activation="relu")):
            return ""
        # CLIPs of their own shape have no library in it, as those of versions before it was known
        told = [getattr(self, name) for name in self.__dataclass_fields__ if name not in ("sources", "library")]
        return json.dumps([*told, self.library] if self.library else told)

    def lines(self) -> dict[str, str]:
        """Each with its source, for a reader."""
        values = asdict(self)
        values |= {"mean": _numbers(self.mean), "std": _numbers(self.std)}
        shown = {name: value for name, value in values.items() if name != "sources" and value}
        lines = {name: f"{value} ({self.sources.get(name, 'not stated')})" for name, value in shown.items()}
        if self.library:
            return lines | {"pooling": f"the library's own modules compute all of it ({self.library})"}
        pooling = "CLIP's: class token or attention pooling of an image, the highest token of a text"
        return lines | {"pooling": f"{pooling} ({self.sources.get('pooling', 'by the names of the tensors')})"}

    def facts(self) -> dict[str, str]:
        """For the header of a file."""
        told = {name: value for name, value in asdict(self).items() if name != "sources"}
        if not self.library:
            del told["library"]
        return {"properties": json.dumps(told)}


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def stated_in(facts: Mapping[str, str], source: str) -> dict[str, Any]:
    """What `Properties.facts` wrote."""
    stated = {"library": ""} | json.loads(facts["properties"])
    stated |= {name: tuple(stated[name]) for name in ("mean", "std")}
    return stated | {"sources": dict.fromkeys(stated, source)}


def openais(source: str) -> dict[str, Any]:
    """What OpenAI's nine all have, but for their heads, which are 64 wide."""
    stated = {
        "activation": "quick_gelu", "mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "head_width": 64,
    }  # fmt: skip
    return stated | {"sources": dict.fromkeys([*stated, "heads", "text_heads"], source)}


def decided(
    stated: Mapping[str, Any], given: Given, widths: tuple[int, int], path: Path, *, is_vit: bool, hint: str = ""
) -> Properties:
    """Put together what was stated and given; what nobody says is CLIP's custom where all CLIPs agree, or refused.

    Args:
        stated: Of the file or of those beside it.
        given: Of the user; it comes first.
        widths: Of the two towers; a ResNet's is that of its pooling, an absent one's 0.
        is_vit: Whether the image tower is one; a ResNet's activation is ReLU.
        hint: What the names of the tensors make likely.

    Raises:
        BackboneError: The activation or the heads cannot be known, or contradict the widths.
    """
    found = {name: stated[name] for name in ("activation", "heads", "text_heads", "mean", "std", "interpolation")
             if name in stated}  # fmt: skip
    sources = dict(stated.get("sources", {}))
    for name, value in (("activation", given.activation), ("heads", given.heads)):
        if value:
            over = f", over {sources[name]}'s {found[name]}" if found.get(name, value) != value else ""
            found[name], sources[name] = value, f"parameter{over}"
    if given.mean_std:
        found["mean"], found["std"] = parsed(given.mean_std)
        sources |= dict.fromkeys(("mean", "std"), "parameter")
    if (is_vit or widths[1]) and "activation" not in found:
        raise BackboneError(
            f"{path} does not say whether its activation is GELU or QuickGELU, and the wrong one loads and gives worse "
            f"embeddings{hint}. Either say it: -p activation gelu, or -p activation quick_gelu (OpenAI's and what was "
            "trained from it; open_clip's names that end in -quickgelu); or put the model's open_clip_config.json or "
            "config.json beside the file"
        )
    found.setdefault("activation", "relu")  # a ResNet without a text tower has no other
    usual = [widths[0] in USUAL_WIDTHS if is_vit else widths[0] % HEAD_WIDTH == 0, widths[1] % HEAD_WIDTH == 0]
    for tower, name, width, known in zip(("image", "text"), ("heads", "text_heads"), widths, usual, strict=True):
        found[name] = found.get(name, 0) if width else 0
        if not width:
            continue
        if not found[name]:
            if not (known or "head_width" in stated):
                say = "-p heads N" if tower == "image" else "put its config.json or open_clip_config.json beside it"
                raise BackboneError(
                    f"{path} does not say how many attention heads its {tower} tower of width {width} has, and "
                    f"published ones of such widths differ: {say}"
                )
            found[name] = max(1, width // HEAD_WIDTH)
            sources.setdefault(name, f"width / {HEAD_WIDTH}, as every published CLIP of this width has")
        if width % found[name]:
            raise BackboneError(f"{path}: {found[name]} heads ({sources[name]}) do not divide a width of {width}")
    usual_ones = dict.fromkeys(("mean", "std", "interpolation"), "CLIP's; nothing beside the file says another")
    return Properties(**found, sources=usual_ones | {"activation": "of a ResNet"} | sources)


def parsed(mean_std: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the parameter gives, by a name of `NORMALISATIONS` or in six numbers."""
    if mean_std in NORMALISATIONS:
        return NORMALISATIONS[mean_std]
    values = tuple(float(part) for part in mean_std.split(","))
    return values[:3], values[3:]
