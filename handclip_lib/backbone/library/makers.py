"""How open_clip, timm and transformers make a model and put tensors into it, for `load`."""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from handclip_lib.backbone.configs import config_in, hugging_face_images, sides
from handclip_lib.backbone.fitting import compare
from handclip_lib.backbone.library.tower import HuggingFaceTower, LibraryModel, LibraryTower
from handclip_lib.errors import BackboneError, reason_of

Size = tuple[int, int]
Said = tuple[Mapping[str, Any], str]
"""What somebody says of photographs ("mean", "std", "interpolation"), and who."""


class Read(NamedTuple):
    """Tensors by the names they have in the file; `ours`: a training here wrote it, images of `size` being its own."""

    path: Path
    state: dict[str, Tensor]
    facts: Mapping[str, str]
    size: Size | None

    @property
    def ours(self) -> bool:
        """Whether its header is of one of HandCLIP's."""
        return "properties" in self.facts


class Made(NamedTuple):
    """A model with its weights, the size it was made for, what is said of photographs, and who says it."""

    model: LibraryModel
    size: Size
    said: list[Said]
    called: str
    step: int = 1  # pixels that a side is a multiple of


_TWO_TOWERS = ("siglip", "siglip2", "metaclip_2")
"""Of transformers: an image's embedding is its image tower's pooled output, through `visual_projection` where it is."""


def published_images(name: str) -> list[Said]:
    """What open_clip says of photographs, by its published weights of a name."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(name)
    return [(get_pretrained_cfg(name, tag), f"open_clip's weights {tag}") for tag in tags]


def _of_config(library: str, config: Mapping[str, Any]) -> str:
    """What a model of a folder is called: tensors do not say what its config does, so it is part of the fingerprint."""
    kind = config.get("model_type") or config.get("architecture") or "its config"
    digest = sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    return f"{library}:FOLDER ({kind}, {digest})"


def _fill(whole: torch.nn.Module, state: Mapping[str, Tensor], read: Read, called: str) -> None:
    compare(whole, state, f"the tensors of {read.path} are not those of {called}")
    whole.load_state_dict(state, strict=False)


def of_open_clip(library: Any, name: str, read: Read, wanted: Size | None, remarks: list[str]) -> Made:
    """A model of open_clip by name, or by the config in a folder; of its text tower where that reads CLIP's tokens."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import _build_vision_tower, convert_to_custom_text_state_dict, resize_pos_embed

    if Path(name).is_dir():
        config = config_in(Path(name) / "open_clip_config.json", "model_cfg")
        called = _of_config("open_clip", config["model_cfg"])
        cfg, said = config["model_cfg"], [(config.get("preprocess_cfg", {}), "open_clip_config.json")]
    else:
        cfg, called = library.get_model_config(name), f"open_clip:{name}"
        said = published_images(name)
    if "multimodal_cfg" in cfg:
        raise BackboneError(f"{called} has a third, multimodal tower, and its image tower pools for that; take another")
    vision = {**cfg["vision_cfg"], "timm_model_pretrained": False}
    by_timm = "timm_model_name" in vision
    size = sides(vision.get("image_size", 224))
    if not by_timm:
        vision["image_size"] = wanted or read.size or size
    no_text = _no_text(cfg.get("text_cfg", {}), read)
    made = library.CustomTextCLIP if cfg.get("custom_text") else library.CLIP
    if no_text:
        tower = _build_vision_tower(cfg["embed_dim"], vision, cfg.get("quick_gelu", False))
        whole: Any = torch.nn.ModuleDict({"visual": tower})
        state = {key: value for key, value in read.state.items() if key.startswith("visual.")}
        remarks += ["its text tower was left out"] if len(state) < len(read.state) else []
    else:
        whole = made(**{key: value for key, value in cfg.items() if key != "custom_text"} | {"vision_cfg": vision})
        state = convert_state_dict(whole, dict(read.state))
        if made is library.CustomTextCLIP:
            state = convert_to_custom_text_state_dict(state)
        else:
            state = {name.removeprefix("text."): value for name, value in state.items()}
    visual = whole["visual"] if no_text else whole.visual
    if by_timm:
        _fill_sized(visual.trunk, visual, lambda: _fill(whole, state, read, called), read, wanted)
    else:
        _refuse_other_grid(state.get("visual.positional_embedding"), size, read, vision.get("patch_size"), called)
        resize_pos_embed(state, whole if not no_text else _Holder(visual))
        _fill(whole, state, read, called)
    model = LibraryModel(LibraryTower(visual), whole, None if no_text else getattr(whole, "text", whole), no_text)
    return Made(model, size, said, called, _step(visual.trunk if by_timm else visual))


class _Holder(NamedTuple):
    visual: Any


def _refuse_other_grid(positions: Tensor | None, size: Size, read: Read, patch: int | None, called: str) -> None:
    """Where open_clip would interpolate, silently, what is for images of another size."""
    cells = [(height // patch) * (width // patch) for height, width in (size, read.size or size)] if patch else []
    if positions is not None and cells and len(positions) - 1 not in cells:
        raise BackboneError(f"the tensors of {read.path} are not those of {called}: {len(positions) - 1} places of "
                            f"patches where {cells[0]} are needed; name the model of this size")  # fmt: skip


def _no_text(text: Mapping[str, Any], read: Read) -> str:
    """Why a text tower of open_clip is left out; "" where it reads CLIP's tokens."""
    named = text.get("hf_tokenizer_name") or text.get("hf_model_name") or ""
    if not named and text.get("vocab_size", 49408) == 49408:
        whole = any("token_embedding" in name or "text_encoder." in name for name in read.state)
        return "" if whole else f"{read.path} holds no text tower"
    pool, mask = text.get("pool_type", "argmax"), "out" if text.get("no_causal_mask") else ""
    pooled = f"; its embedding is that of {'the last, mostly padded, place' if pool == 'last' else f'place {pool!r}'}, "
    return (
        f"its text tower reads the tokens of {named or 'another vocabulary'}, whose tokenizer is no part of open_clip"
        f"{pooled}with{mask} a causal mask"
    )


def of_timm(library: Any, name: str, read: Read, wanted: Size | None, remarks: list[str]) -> Made:
    """A model of timm by name, with or without the tag of its weights, or by the config in a folder."""
    from timm.models import get_arch_pretrained_cfgs

    if Path(name).is_dir():
        called = _of_config("timm", config_in(Path(name) / "config.json", "architecture"))
        name, said = f"local-dir:{name}", []
    else:
        called, of_tags = f"timm:{name}", get_arch_pretrained_cfgs(name)
        of_tags = {tag: cfg for tag, cfg in of_tags.items() if "." not in name or tag == name}
        if not of_tags:
            raise BackboneError(
                f"backbone='timm:{name}': timm knows no such weights of it; leave out what follows the dot"
            )
        said = [(cfg.to_dict(), f"timm's {tag}") for tag, cfg in of_tags.items()]
    whole = library.create_model(name, pretrained=False, num_classes=0)
    cfg = dict(whole.pretrained_cfg)
    said = said or [(cfg, "config.json")]
    state, head = dict(read.state), cfg.get("classifier")
    rows = _projection(state, head, [one for one, _ in said]) if isinstance(head, str) else 0
    if rows:
        whole = library.create_model(name, pretrained=False, num_classes=rows)
    elif isinstance(head, str) and state.pop(f"{head}.weight", None) is not None:
        state.pop(f"{head}.bias", None)
        remarks.append(f"the classifier ({head}) was left out: embeddings are what it looks at")
    _fill_sized(whole, whole, lambda: _fill(whole, _renamed(whole, state, read, called), read, called), read, wanted)
    size = sides(getattr(getattr(whole, "patch_embed", None), "img_size", None) or cfg["input_size"][1:])
    model = LibraryModel(LibraryTower(whole), whole, None, "timm has image towers alone")
    return Made(model, size, said, called, _step(whole))


def _projection(state: Mapping[str, Tensor], head: str, cfgs: list[Mapping[str, Any]]) -> int:
    """Width of a CLIP's projection, which timm has in a classifier's place; 0 where that tells classes."""
    weight, bias = state.get(f"{head}.weight"), state.get(f"{head}.bias")
    if weight is None:
        return 0
    named = [f"{cfg.get('architecture')} {cfg.get('tag')}" for cfg in cfgs if cfg.get("num_classes") == len(weight)]
    is_clip = any(("clip" in name or "pe_core" in name) and "_ft" not in name for name in named)
    return len(weight) if is_clip or bias is None or not bias.any() else 0


def _renamed(whole: Any, state: dict[str, Tensor], read: Read, called: str) -> Mapping[str, Tensor]:
    """As timm renames what others publish; it would also interpolate, silently, what is of another size."""
    if read.ours:
        return state
    now = whole.state_dict()
    for name in ("patch_embed.proj.weight", "pos_embed"):
        its, own = state.get(name), now.get(name)
        if its is None or own is None or its.ndim < 3:
            continue
        apart = its.shape[-2:] != own.shape[-2:] if name != "pos_embed" else abs(its.shape[1] - own.shape[1]) > 5
        if apart:
            sizes = f"{name} is {tuple(its.shape)} where {tuple(own.shape)} is needed"
            raise BackboneError(
                f"the tensors of {read.path} are not those of {called}: {sizes}; name the model of this patch and size"
            )
    convert = getattr(inspect.getmodule(type(whole)), "checkpoint_filter_fn", None)
    return convert(state, whole) if convert else state


def _fill_sized(trunk: Any, owner: Any, fill: Any, read: Read, wanted: Size | None) -> None:
    """Weights into a model of timm, and its size to what is wanted: of what was written here it is the file's first."""
    if read.size:
        _resize(trunk, owner, read.size)
    fill()
    if wanted and wanted != read.size:
        _resize(trunk, owner, wanted)


def _resize(trunk: Any, owner: Any, size: Size) -> None:
    if hasattr(trunk, "set_input_size"):
        try:
            owner.set_input_size(size)
        except (AssertionError, ValueError, RuntimeError, TypeError) as error:
            raise BackboneError(f"input_size={size[0]}x{size[1]}: timm's model does not take it ({error})") from error


def of_hugging_face(library: Any, folder: str, read: Read, wanted: Size | None, remarks: list[str]) -> Made:
    """A model of transformers by the config in a folder, of one with two towers the image tower."""
    config = config_in(Path(folder) / "config.json", "model_type")
    kind = config["model_type"]
    if "auto_map" in config:
        raise BackboneError(f"{folder}: its model is Python code of its own (auto_map), which is not run here")
    if config.get("quantization_config"):
        raise BackboneError(f"{folder}: the weights are quantized; take those in float32, float16 or bfloat16")
    try:
        settings = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        of_images = getattr(settings, "vision_config", None) or settings
        of_images.attention_dropout = of_images.attention_probs_dropout_prob = 0.0
        classes = library.models.auto.modeling_auto.MODEL_MAPPING
        named = (config.get("architectures") or [""])[0]
        projected = named.endswith("VisionModelWithProjection") and not named.startswith("Auto")
        made = getattr(library, named) if projected else classes[type(settings)]
        with _no_bar(library.utils.logging):
            whole, told = made.from_pretrained(
                None, config=settings, state_dict=dict(read.state), output_loading_info=True, dtype=torch.float32
            )
    except (KeyError, ValueError, OSError, RuntimeError, AttributeError, TypeError, ImportError) as error:
        of_version = f"transformers {library.__version__} cannot make its {kind!r}"
        raise BackboneError(f"{folder}: {of_version} ({reason_of(error)})") from error
    called = _of_config("hf", config)
    both = hasattr(whole, "text_model")
    missing = sorted(name for name in told["missing_keys"] if not both or name.startswith("vis"))
    if missing or told["mismatched_keys"]:
        apart = missing or [name for name, *_ in told["mismatched_keys"]]
        raise BackboneError(f"the tensors of {read.path} are not those of {called}: {len(apart)} missing or of another "
                            f"size, such as {apart[0]}")  # fmt: skip
    if extra := sorted(told["unexpected_keys"]):
        remarks.append(f"{len(extra)} tensors beside it were left out, such as {extra[0]}")
    if both and kind not in _TWO_TOWERS:
        raise BackboneError(f"{folder}: {kind!r} has two towers, and how it pools images is known here only of "
                            f"{', '.join(_TWO_TOWERS)}; give a folder of its image tower alone")  # fmt: skip
    for part in ("text_model", "text_projection") if both else ():
        if hasattr(whole, part):
            delattr(whole, part)  # it would take gigabytes: its vocabulary alone has up to 900,000 words
    tower = whole.vision_model if both else whole
    patch, asked = getattr(of_images, "patch_size", 1), inspect.signature(tower.forward).parameters
    flexible = "spatial_shapes" in asked
    size = sides(getattr(of_images, "image_size", None) or 224)
    if flexible:
        size = sides(round(of_images.num_patches**0.5) * patch)
    interpolates = (wanted or read.size or size) != size and "interpolate_pos_encoding" in asked
    options = {"interpolate_pos_encoding": True} if interpolates else {}
    visual = HuggingFaceTower(tower, getattr(whole, "visual_projection", None) if both else None,
                              patch if flexible else 0, options)  # fmt: skip
    images = Path(folder) / "preprocessor_config.json"
    said: list[Said] = [(hugging_face_images(config_in(images, "")), images.name)] if images.is_file() else []
    no_text = (
        f"its texts are cut by the tokenizer of {kind}, not by CLIP's, and pooled as that was trained, with padding"
        if both else f"{kind} has an image tower alone"
    )  # fmt: skip
    step = patch if isinstance(patch, int) else 1
    return Made(LibraryModel(visual, whole, None, no_text), size, said, called, step)


@contextmanager
def _no_bar(bars: Any) -> Iterator[None]:
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _step(tower: Any) -> int:
    """Side of a ViT's patches; 1 of what takes images of any size."""
    patch = getattr(getattr(tower, "patch_embed", tower), "patch_size", 1)
    return int(patch if isinstance(patch, int) else patch[0])
