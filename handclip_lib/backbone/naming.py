"""Tensors under the names of other libraries and of trainings' wrappers, under OpenAI's; nothing is computed."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from handclip_lib.errors import BackboneError, OtherModelError

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
RAW = ("state_dict", "model_state_dict", "clip_state_dict", "model", "module", "net", "network", "params")
"""Under which a training keeps its weights; where both are there the averaged ones are taken, as timm does."""
_SEGMENTS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module)\.")  # of torch.compile, and of parallel or averaged models
_MARKS = {  # a tensor that every image tower of a library has, by its name there
    "visual.conv1.weight": "openai",
    "image_encoder.conv1.weight": "CLIP-ReID",
    "vision_model.embeddings.patch_embedding.weight": "Hugging Face",
    "embeddings.patch_embedding.weight": "Hugging Face",
    "patch_embed.proj.weight": "timm",
    "stem.conv1.conv.weight": "timm",
}
_NUMBERS = ("input_resolution", "context_length", "vocab_size")  # that JIT archives keep beside the weights
_HARMLESS = re.compile(r"(?:.*\.)?(?:logit_bias|attn_mask|n_averaged|position_ids)")
_CLIPS = {
    "visual", "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection", "logit_scale",
    "vision_model", "text_model",  # of Hugging Face, where a name is not CLIP's: refused by that name
}  # fmt: skip


class Named(NamedTuple):
    """Tensors under OpenAI's names.

    Attributes:
        library: Whose names they had.
        remarks: What was chosen and what was left out, for a reader.
    """

    state: dict[str, Tensor]
    library: str
    remarks: tuple[str, ...]


def unwrapped(found: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under their own names, out of what trainings wrap around them, and what was chosen.

    Raises:
        BackboneError: They are in no mapping, or not plain.
    """
    remarks: list[str] = []
    while True:
        if not isinstance(found, Mapping):
            raise BackboneError(f"{path} holds a {type(found).__name__}, not a state dict of names and tensors")
        keys = [key for key in (*AVERAGED, *RAW) if isinstance(found.get(key), Mapping) and found[key]]
        if not keys:
            break
        if keys[0] in AVERAGED:
            raw = next((key for key in keys if key in RAW), "")
            remarks.append(
                f"averaged weights, under {keys[0]}" + (f"; the raw ones under {raw} were left" if raw else "")
            )
        found = found[keys[0]]
    state = {_SEGMENTS.sub("", str(name)): value for name, value in found.items() if isinstance(value, Tensor)}
    for name, tensor in state.items():
        plain = tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise BackboneError(
                f"{path} was not read: {name} is no plain tensor (quantized, sparse, without values or spread from "
                "fewer numbers than its size has); save it dense, in float16 or float32"
            )
    if any(str(name) == "n_averaged" for name in found):
        remarks.append("averaged weights (of torch's AveragedModel)")
    kept = {name: value for name, value in state.items() if not _HARMLESS.fullmatch(name) and name not in _NUMBERS}
    return kept, remarks


def named(found: Any, path: Path) -> Named:
    """What a file holds, under OpenAI's names, out of its wrappers.

    Raises:
        BackboneError: It holds no tensors of a CLIP's image tower, or those of several.
    """
    state, remarks = unwrapped(found, path)
    prefix, library = _tower(state, path, remarks)
    outside = [name for name in state if not name.startswith(prefix)]
    if outside:
        remarks.append(f"{len(outside)} tensors outside {prefix[:-1]} were left out, such as {outside[0]}")
    state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    state = _TRANSLATORS[library](state, remarks)
    heads = [name for name in state if name.split(".")[0] not in _CLIPS]
    if heads:
        remarks.append(f"{len(heads)} tensors beside the CLIP were left out, such as {heads[0]}")
    state = {name: value for name, value in state.items() if name.split(".")[0] in _CLIPS}
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(())
    return Named(state, library, tuple(remarks))


def _tower(state: Mapping[str, Tensor], path: Path, remarks: list[str]) -> tuple[str, str]:
    """What stands before the names of the one CLIP there is, and whose names those are."""
    candidates: dict[str, str] = {}
    for mark, library in _MARKS.items():
        for name in state:
            if (name == mark or name.endswith(f".{mark}")) and not any(name.startswith(p) for p in candidates if p):
                prefix = name.removesuffix(mark)
                if prefix not in candidates and not prefix.endswith(("vision_model.", "visual.", "visual.trunk.")):
                    candidates[prefix] = library
    averaged = [prefix for prefix in candidates if "ema" in re.split(r"[._]", prefix)]
    if len(candidates) > 1 and len(averaged) == 1:
        others = ", ".join(repr(prefix) for prefix in candidates if prefix not in averaged)
        remarks.append(f"averaged weights, whose names begin with {averaged[0]}; the raw ones ({others}) were left")
        return averaged[0], candidates[averaged[0]]
    if len(candidates) > 1:
        which = ", ".join(prefix or "no prefix" for prefix in candidates)
        raise BackboneError(f"{path} holds several CLIPs ({which}); save the state_dict of one alone")
    if candidates:
        return next(iter(candidates.items()))
    if any(name.startswith("visual.") and not name.startswith("visual.trunk.") for name in state):
        return "", "openai"  # what it lacks is named later
    if any("visual.trunk." in name for name in state):
        raise OtherModelError(
            f"{path} holds an open_clip model whose image tower is timm's (visual.trunk.…), not CLIP's own"
        )
    few = ", ".join(list(state)[:3]) or "no tensor at all"
    raise OtherModelError(
        f"{path} has no image encoder of a CLIP: none of its tensors is named visual.…, vision_model.…, "
        f"image_encoder.… or as timm names a ViT's patches (it has {few})"
    )


def _clip_reid(state: dict[str, Tensor], remarks: list[str]) -> dict[str, Tensor]:
    """Its text tower has no tokens of its own, so that the image tower alone is whole."""
    tower = {f"visual.{name.removeprefix('image_encoder.')}": value
             for name, value in state.items() if name.startswith("image_encoder.")}  # fmt: skip
    vit = "visual.class_embedding" in tower  # configs/person/vit_clipreid.yml and cnn_clipreid.yml of its repository
    said = "ViTs by 0.5: -p mean_std half" if vit else "ResNets by ImageNet's: -p mean_std imagenet"
    remarks.append(
        f"the image tower of a CLIP-ReID, without its {len(state) - len(tower)} other tensors; its own configurations "
        f"normalise {said}"
    )
    return tower


_HUGGING_FACE = {
    "visual.transformer.": "vision_model.encoder.", "transformer.": "text_model.encoder.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.", "visual.ln_post.": "vision_model.post_layernorm.",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.", "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}  # fmt: skip
"""Names of tensors, and what the names of several begin with (a dot is their end), and transformers' for them."""
_IN_BLOCKS = {
    ".resblocks.": ".layers.", ".ln_1.": ".layer_norm1.", ".ln_2.": ".layer_norm2.", ".attn.": ".self_attn.",
    ".mlp.c_fc.": ".mlp.fc1.", ".mlp.c_proj.": ".mlp.fc2.",
}  # fmt: skip
_PROJECTIONS = ("visual.proj", "text_projection")  # which transformers has transposed


def _renamed(name: str, whole: Mapping[str, str], parts: Mapping[str, str]) -> str:
    for before, after in whole.items():
        if name == before or (before.endswith(".") and name.startswith(before)):
            name = after + name.removeprefix(before)
            break
    for before, after in parts.items():
        name = name.replace(before, after)
    return name


def _hugging_face(state: dict[str, Tensor], remarks: list[str]) -> dict[str, Tensor]:
    if any(name.startswith("embeddings.") for name in state):  # transformers 5 has no prefix in CLIPVisionModel
        state = {f"vision_model.{name}": value for name, value in state.items()}
    whole, parts = ({theirs: ours for ours, theirs in names.items()} for names in (_HUGGING_FACE, _IN_BLOCKS))
    renamed = {_renamed(name, whole, parts): value for name, value in state.items()}
    renamed |= {name: renamed[name].T for name in _PROJECTIONS if name in renamed}
    for name in [name for name in renamed if ".q_proj." in name and ".attn." in name]:
        split = [renamed.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        renamed[name.replace(".q_proj.", ".in_proj_")] = torch.cat(split)
    return renamed


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViT CLIP's tensors under the names of transformers' `CLIPModel`."""
    renamed: dict[str, Tensor] = {}
    for ours, value in state.items():
        name, value = _renamed(ours, _HUGGING_FACE, _IN_BLOCKS), value.T if ours in _PROJECTIONS else value
        if ".in_proj_" in name:
            for part, own in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(".in_proj_", f".{part}_proj.")] = own
        else:
            renamed[name] = value
    return renamed


def _timm(state: dict[str, Tensor], remarks: list[str]) -> dict[str, Tensor]:
    if "patch_embed.proj.weight" in state and "norm_pre.weight" not in state:
        raise OtherModelError("the tensors are those of a ViT of timm's, not of CLIP's own shape (no norm_pre)")
    bias = state.pop("head.bias", None)
    if bias is not None and bias.any():
        remarks.append(f"the classifier of {len(bias)} classes was left out: embeddings are what it looks at")
        del state["head.weight"]
    renamed = {}
    for name, value in state.items():
        for before, after in _FROM_TIMM:
            name = re.sub(before, after, name)
        name = f"visual.{name}"
        if name in ("visual.class_embedding", "visual.positional_embedding"):
            value = value.reshape(-1) if name.endswith("class_embedding") else value.flatten(0, -2)
        renamed[name] = value.T if name == "visual.proj" else value
    return renamed


_STAGES = {"1_1x1": 1, "2_kxk": 2, "3_1x1": 3}
_AFTER: dict[str, Callable[[re.Match[str]], str]] = {
    "layer": lambda m: f"layer{int(m[1]) + 1}.{m[2]}.{'conv' if m[4] == 'conv' else 'bn'}{_STAGES[m[3]]}.",
    "shortcut": lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.{0 if m[3] == 'conv' else 1}.",
}
_FROM_TIMM: tuple[tuple[str, Any], ...] = (
    (r"^cls_token$", "class_embedding"), (r"^pos_embed$", "positional_embedding"), (r"^patch_embed\.proj\.", "conv1."),
    (r"^norm_pre\.", "ln_pre."), (r"^norm\.", "ln_post."), (r"^blocks\.", "transformer.resblocks."),
    (r"\.norm(\d)\.", r".ln_\1."), (r"\.attn\.qkv\.", ".attn.in_proj_"), (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."), (r"\.mlp\.fc2\.", ".mlp.c_proj."), (r"^head\.weight$", "proj"),
    (r"^stem\.conv(\d)\.conv\.", r"conv\1."), (r"^stem\.conv(\d)\.bn\.", r"bn\1."),
    (r"^stages\.(\d+)\.(\d+)\.conv(\d_\w+)\.(conv|bn)\.", _AFTER["layer"]),
    (r"^stages\.(\d+)\.(\d+)\.shortcut\.conv\.(conv|bn)\.", _AFTER["shortcut"]),
    (r"^head\.pos_embed$", "attnpool.positional_embedding"), (r"^head\.([qkv])\.", r"attnpool.\1_proj."),
    (r"^head\.proj\.", "attnpool.c_proj."),
)  # fmt: skip
_TRANSLATORS: dict[str, Callable[[dict[str, Tensor], list[str]], dict[str, Tensor]]] = {
    "CLIP-ReID": _clip_reid, "Hugging Face": _hugging_face, "timm": _timm,
    # open_clip has the text tower of a custom text under `text.`
    "openai": lambda state, remarks: {name.removeprefix("text."): value for name, value in state.items()},
}  # fmt: skip
