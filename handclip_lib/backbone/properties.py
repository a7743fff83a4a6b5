"""What no tensor says of a CLIP (activation, heads, normalisation, resizing), and which file beside it says it.

A file of weights alone does not tell GELU from QuickGELU: both load, and one of them gives worse embeddings silently.
"""

import json
import re
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
CONFIGS = (
    "open_clip_config.json", "config.json", "preprocessor_config.json", "processor_config.json", *VOCABULARIES,
)  # fmt: skip
_ACTIVATIONS = {
    "quick_gelu": "quick_gelu", "quickgelu": "quick_gelu", "gelu": "gelu", "gelu_python": "gelu",
}  # fmt: skip
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_TIMM_HEADS = {"tiny": 3, "small": 6, "medium": 8, "base": 12, "large": 16, "huge": 16, "giant": 16, "gigantic": 16}
# keys of open_clip that change what a tower computes, and the value at which it is CLIP's
_NEUTRAL = {
    "ls_init_value": None, "attentional_pool": False, "no_ln_pre": False, "final_ln_after_pool": False,
    "pos_embed_type": "learnable", "qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False,
    "scale_attn_inner": False, "scale_attn": False, "scale_fc": False, "embed_cls": False, "no_causal_mask": False,
    "proj_bias": False, "proj_type": "linear", "act_kwargs": None, "norm_kwargs": None, "timm_model_name": None,
    "hf_model_name": None, "block_type": None,
}  # fmt: skip

_TOKENS = ("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")  # keys of open_clip that make other tokens


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
        sources: Who said each of them, by name.
    """

    activation: str = "quick_gelu"
    heads: int = 0
    text_heads: int = 0
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def unlike_clip(self, widths: tuple[int, int]) -> str:
        """What differs from OpenAI's own, for a fingerprint; "" where nothing does."""
        heads, text_heads = (max(1, width // HEAD_WIDTH) if width else 0 for width in widths)
        usual = Properties("quick_gelu", heads, text_heads)
        if self in (usual, replace(usual, activation="relu")):
            return ""
        return json.dumps([getattr(self, name) for name in self.__dataclass_fields__ if name != "sources"])

    def lines(self) -> dict[str, str]:
        """Each with its source, for a reader."""
        values = asdict(self)
        values |= {"mean": _numbers(self.mean), "std": _numbers(self.std)}
        shown = {name: value for name, value in values.items() if name != "sources" and value}
        lines = {name: f"{value} ({self.sources.get(name, 'not stated')})" for name, value in shown.items()}
        pooling = "CLIP's: class token or attention pooling of an image, the highest token of a text"
        return lines | {"pooling": f"{pooling} ({self.sources.get('pooling', 'by the names of the tensors')})"}

    def facts(self) -> dict[str, str]:
        """For the header of a file."""
        return {"properties": json.dumps({name: value for name, value in asdict(self).items() if name != "sources"})}


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def stated_in(facts: Mapping[str, str], source: str) -> dict[str, Any]:
    """What `Properties.facts` wrote."""
    stated = dict(json.loads(facts["properties"]))
    stated |= {name: tuple(stated[name]) for name in ("mean", "std")}
    return stated | {"sources": dict.fromkeys(stated, source)}


def openais(source: str) -> dict[str, Any]:
    """What OpenAI's nine all have, but for their heads, which are 64 wide."""
    stated = {
        "activation": "quick_gelu", "mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "head_width": 64,
    }  # fmt: skip
    return stated | {"sources": dict.fromkeys([*stated, "heads", "text_heads"], source)}


def files_of(path: Path) -> list[Path]:
    """All files that say anything of the weights at a path: themselves, and what lies beside them."""
    folder = path if path.is_dir() else path.parent
    beside = [folder / name for name in CONFIGS]
    if path.is_dir():
        return sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    return [path, *(file for file in [*beside, path.with_suffix(".json")] if file.is_file() and file != path)]


def stated_beside(path: Path) -> dict[str, Any]:
    """What the files beside weights say: names of `Properties`, "head_width", "size", "shape" and "sources".

    Of several the first is taken: the file's own .json, open_clip_config.json, config.json; preprocessor_config.json
    adds to the last.

    Raises:
        BackboneError: One cannot be read, or says that the model is none of CLIP's shape.
    """
    folder = path if path.is_dir() else path.parent
    own = [] if path.is_dir() or path.name in INDICES else [path.with_suffix(".json")]
    for file in [*own, folder / "open_clip_config.json", folder / "config.json"]:
        if not file.is_file():
            continue
        config = read_json(file)
        if file.name != "config.json" and not {"model_cfg", "vision_cfg", "model_type", "architecture"} & config.keys():
            continue  # some other .json of this name
        found = _understood(config, file)
        for other in ("preprocessor_config.json", "processor_config.json"):
            if "mean" not in found and (folder / other).is_file():
                _take(found, _hugging_face_images(read_json(folder / other)), other)
        return found
    return {}


def read_json(file: Path) -> dict[str, Any]:
    """What a file beside weights says, by name."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{file} says how its model computes and cannot be read ({error}); copy it again"
        ) from error
    if not isinstance(config, dict):
        raise BackboneError(f"{file} holds no names and values; copy it again")
    return config


def _take(found: dict[str, Any], more: Mapping[str, Any], source: str) -> None:
    found |= more
    found["sources"] = {**found.get("sources", {}), **dict.fromkeys(more, source)}


def _understood(config: dict[str, Any], file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        if "model_cfg" in config or "vision_cfg" in config:
            said = _open_clip(config, file)
        elif "architecture" in config:
            said = _timm(config, file)
        else:
            said = _hugging_face(config, file)
    except BackboneError:  # a ValueError too, and its words are the reason
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackboneError(f"{file} describes no CLIP that is known here ({error!r})") from error
    _take(found, said, file.name)
    return found


def _open_clip(config: dict[str, Any], file: Path) -> dict[str, Any]:
    model, images = config.get("model_cfg", config), config.get("preprocess_cfg", {})
    vision, text = model["vision_cfg"], model.get("text_cfg", {})
    for part, cfg, pools in (("vision_cfg", vision, ("tok",)), ("text_cfg", text, ("argmax",))):
        for name, value in cfg.items():
            if name in _NEUTRAL and value != _NEUTRAL[name] and value not in ({}, "default"):
                raise _other_shape(file, f"{part} has {name}={value!r}")
        if cfg.get("pool_type", pools[0]) not in pools:
            raise _other_shape(file, f"{part} pools by {cfg['pool_type']!r}")
    if "multimodal_cfg" in model:
        raise _other_shape(file, "it has a third, multimodal tower")
    width, head = vision.get("width", 768), vision.get("head_width", 64)
    width *= 32 if isinstance(vision.get("layers"), list) else 1
    found = {
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu", "heads": width // head,
        "text_heads": text.get("heads", 8), "size": _size(vision.get("image_size", 224)), "pooling": "CLIP's",
    }  # fmt: skip
    words = [f"{name}={text[name]!r}" for name in _TOKENS if text.get(name)]
    if words and not str(text.get("hf_tokenizer_name", "")).startswith("openai/clip-"):
        found["vocabulary"] = " and ".join(words)
    if "mean" in images:
        found |= {"mean": tuple(images["mean"]), "std": tuple(images["std"])}
    return found | _interpolated(images.get("interpolation", "bicubic"), file)


def _timm(config: dict[str, Any], file: Path) -> dict[str, Any]:
    name, images = config["architecture"], config.get("pretrained_cfg", {})
    given = config.get("model_args", {})
    kind = re.fullmatch(r"(?:vit_(\w+?)_patch\d+_clip_(quickgelu_)?\d+|resnet\w*_clip)(?:\..*)?", name)
    if kind is None:
        raise _other_shape(file, f"{name} is no CLIP tower of timm")
    found: dict[str, Any] = {"activation": "quick_gelu" if kind[2] else "gelu"}
    if kind[1]:
        found["heads"] = given.get("num_heads") or _TIMM_HEADS[kind[1]]
        found["size"] = _size(given.get("img_size") or images.get("input_size", [3, 224, 224])[1:])
    else:
        found["head_width"] = HEAD_WIDTH
        found["size"] = _size(images.get("input_size", [3, 224, 224])[1:])
    if "mean" in images:
        found |= {"mean": tuple(images["mean"]), "std": tuple(images["std"])}
    return found | _interpolated(images.get("interpolation", "bicubic"), file)


def _hugging_face(config: dict[str, Any], file: Path) -> dict[str, Any]:
    kind = config.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise _other_shape(file, f"model_type is {kind!r}")
    if config.get("quantization_config"):
        raise BackboneError(f"{file}: the weights are quantized; take those in float32, float16 or bfloat16")
    vision, text = config.get("vision_config") or config, config.get("text_config") or {}
    acts = [part.get("hidden_act", "quick_gelu") for part in ((vision, text) if kind == "clip" else (vision,))]
    if len(set(acts)) > 1:
        raise _other_shape(file, f"its towers have two activations, {' and '.join(acts)}")
    if acts[0] not in _ACTIVATIONS:
        raise _other_shape(file, f"hidden_act is {acts[0]!r}")
    for part in (vision, text):
        if part.get("layer_norm_eps", 1e-5) != 1e-5:
            raise _other_shape(file, f"layer_norm_eps is {part['layer_norm_eps']}, not 1e-05")
    if text.get("eos_token_id", 49407) not in (2, 49407):
        raise _other_shape(file, f"a text's embedding is that of token {text['eos_token_id']}, not of CLIP's last")
    found: dict[str, Any] = {
        "activation": _ACTIVATIONS[acts[0]], "heads": vision.get("num_attention_heads", 12),
        "size": _size(vision.get("image_size", 224)), "pooling": "CLIP's",
    }  # fmt: skip
    return found | ({"text_heads": text.get("num_attention_heads", 8)} if kind == "clip" else {})


def _hugging_face_images(config: dict[str, Any]) -> dict[str, Any]:
    images = config.get("image_processor", config)
    found: dict[str, Any] = {}
    if not images.get("do_normalize", True):
        found |= dict(zip(("mean", "std"), NORMALISATIONS["none"], strict=True))
    elif "image_mean" in images:
        found |= {"mean": tuple(images["image_mean"]), "std": tuple(images["image_std"])}
    if not images.get("do_rescale", True):
        raise BackboneError("preprocessor_config.json: do_rescale=false: pixels in 0..255 are what no CLIP here takes")
    if images.get("resample") in _RESAMPLE:
        found["interpolation"] = _RESAMPLE[images["resample"]]
    return found


def _size(said: Any) -> tuple[int, int]:
    height, width = (said, said) if isinstance(said, int) else said
    return int(height), int(width)


def _interpolated(said: str, file: Path) -> dict[str, Any]:
    if said in ("bicubic", "bilinear"):
        return {"interpolation": said}
    if said == "random":  # timm's training choice
        return {}
    raise BackboneError(f"{file}: photographs are resized by {said!r}; bicubic and bilinear are known here")


def _other_shape(file: Path, why: str) -> BackboneError:
    return BackboneError(f"{file} describes a model that is not of CLIP's own shape: {why}. It cannot be read here.")


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
        found["mean"], found["std"] = _parsed(given.mean_std)
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
    nobody = "CLIP's; nothing beside the file says another"
    for name in ("mean", "std", "interpolation"):
        sources.setdefault(name, nobody)
    sources.setdefault("activation", "of a ResNet")
    return Properties(**found, sources=sources)


def _parsed(mean_std: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if mean_std in NORMALISATIONS:
        return NORMALISATIONS[mean_std]
    values = tuple(float(part) for part in mean_std.split(","))
    return values[:3], values[3:]
