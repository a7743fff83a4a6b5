"""Configs of other libraries beside a file of weights: what they say of the model, and of photographs."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handclip_lib.backbone.properties import HEAD_WIDTH, INDICES, NORMALISATIONS, VOCABULARIES
from handclip_lib.errors import BackboneError, OtherModelError

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
                _take(found, hugging_face_images(read_json(folder / other)), other)
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


def open_clips(cfg: dict[str, Any], source: str) -> dict[str, Any]:
    """What a model's config of open_clip's own says; an OtherModelError where it is not of CLIP's shape."""
    found: dict[str, Any] = {}
    said = _open_clip({"model_cfg": cfg}, Path(source))
    del said["interpolation"]
    _take(found, said, source)
    return found


def config_in(file: Path, key: str) -> dict[str, Any]:
    """What a library's config says.

    Raises:
        BackboneError: It is absent, cannot be read, or has not the key that makes it one.
    """
    config = read_json(file)
    if key and key not in config:
        raise BackboneError(f"{file} has no {key!r}, so it is no config of such a model; copy the model's own")
    return config


def images_beside(file: Path) -> list[tuple[Mapping[str, Any], str]]:
    """What configs beside a file of weights say of photographs, and their names."""
    found: list[tuple[Mapping[str, Any], str]] = []
    for name, key in (("open_clip_config.json", "preprocess_cfg"), ("config.json", "pretrained_cfg")):
        if (file.parent / name).is_file() and isinstance(read_json(file.parent / name).get(key), dict):
            found.append((read_json(file.parent / name)[key], name))
    return found


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
        "text_heads": text.get("heads", 8), "size": sides(vision.get("image_size", 224)), "pooling": "CLIP's",
    }  # fmt: skip
    words = [f"{name}={text[name]!r}" for name in _TOKENS if text.get(name)]
    if words and not str(text.get("hf_tokenizer_name", "")).startswith("openai/clip-"):
        found["vocabulary"] = " and ".join(words)
    return found | _of_images(images, file)


def _timm(config: dict[str, Any], file: Path) -> dict[str, Any]:
    name, images = config["architecture"], config.get("pretrained_cfg", {})
    given = config.get("model_args", {})
    kind = re.fullmatch(r"(?:vit_(\w+?)_patch\d+_clip_(quickgelu_)?\d+|resnet\w*_clip)(?:\..*)?", name)
    if kind is None:
        raise _other_shape(file, f"{name} is no CLIP tower of timm")
    found: dict[str, Any] = {"activation": "quick_gelu" if kind[2] else "gelu"}
    found["size"] = sides(images.get("input_size", [3, 224, 224])[1:])
    if kind[1]:
        found["heads"] = given.get("num_heads") or _TIMM_HEADS[kind[1]]
        found["size"] = sides(given["img_size"]) if given.get("img_size") else found["size"]
    else:
        found["head_width"] = HEAD_WIDTH
    return found | _of_images(images, file)


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
        "size": sides(vision.get("image_size", 224)), "pooling": "CLIP's",
    }  # fmt: skip
    return found | ({"text_heads": text.get("num_attention_heads", 8)} if kind == "clip" else {})


def hugging_face_images(config: dict[str, Any]) -> dict[str, Any]:
    """What a preprocessor_config.json says of photographs; a BackboneError where pixels stay in 0..255."""
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


def sides(said: Any) -> tuple[int, int]:
    """Height and width, of a square's side or as they are."""
    height, width = (said, said) if isinstance(said, int | float) else said
    return int(height), int(width)


def _of_images(images: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What a config of open_clip or timm says of photographs."""
    found = {name: tuple(images[name]) for name in ("mean", "std") if "mean" in images}
    said = images.get("interpolation", "bicubic")
    if said not in ("bicubic", "bilinear", "random"):
        raise BackboneError(f"{file}: photographs are resized by {said!r}; bicubic and bilinear are known here")
    return found | ({} if said == "random" else {"interpolation": said})  # random: timm's choice in a training


def _other_shape(file: Path, why: str) -> OtherModelError:
    return OtherModelError(f"{file} describes a model that is not of CLIP's own shape: {why}")


def another_library(path: Path) -> str:
    """The remedy for weights that are not of CLIP's own shape: which backbone to name, by what lies beside them."""
    folder = path if path.is_dir() else path.parent
    marks = ("open_clip_config.json", "model_cfg", "open_clip"), ("config.json", "architecture", "timm")
    for name, key, library in (*marks, ("config.json", "model_type", "hf")):
        if (folder / name).is_file() and key in read_json(folder / name):
            return f". Its library's own modules take it: -p backbone {library}:{folder} (and no weights)"
    return (
        ". Where it is another library's model, name that: -p backbone open_clip:NAME or timm:NAME with -p weights "
        f"{path}, or hf:FOLDER, the folder with its config.json"
    )
