"""openai-clip 1.0.1 without its quirks.

It takes `packaging` from `pkg_resources`, which setuptools no longer has; it imports torchvision (over two seconds) for
a transform that nothing here uses; and its `build_model` turns full-precision weights into half precision on the way.
"""

import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import packaging.version
import torch
from torch.overrides import TorchFunctionMode
from tqdm.auto import tqdm

from handclip_lib.backbone.image_tower import RESNET_STEP
from handclip_lib.backbone.properties import Properties
from handclip_lib.backbone.published import published
from handclip_lib.errors import BackboneError, reason_of
from handclip_lib.files import sha256_of, whole_file

STALLED_AFTER = 10.0  # seconds without a byte from the server before a download is given up


@cache
def clip_package() -> ModuleType:
    """openai-clip as `sys.modules["clip"]`, its top level (and torchvision) imported at first use only.

    `clip_package().model` and `.simple_tokenizer` are light; `.load` and the rest run `clip/__init__.py`.

    Raises:
        BackboneError: openai-clip is not installed, or something else is called clip.
    """
    if "clip" not in sys.modules:
        spec = find_spec("clip")
        if spec is None or spec.loader is None:
            raise BackboneError("openai-clip is not installed; run: pip install openai-clip==1.0.1")
        package, loader = module_from_spec(spec), spec.loader

        def complete(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            del package.__dict__["__getattr__"]
            before, stand_in = sys.modules.get("pkg_resources"), ModuleType("pkg_resources")
            stand_in.packaging = packaging  # type: ignore[attr-defined]
            sys.modules["pkg_resources"] = stand_in
            try:
                loader.exec_module(package)
            except BaseException:
                package.__dict__["__getattr__"] = complete
                raise
            finally:
                del sys.modules["pkg_resources"]
                sys.modules |= {} if before is None else {"pkg_resources": before}
            return getattr(package, name)

        sys.modules["clip"] = package
        try:
            import_module("clip.model")
            import_module("clip.simple_tokenizer")
        except ModuleNotFoundError as error:
            del sys.modules["clip"]
            place = spec.origin or next(iter(spec.submodule_search_locations or ()), "clip")
            said = f"{place} stands in the place of openai-clip, which is called clip too"
            raise BackboneError(f"{said}; rename it, or work in another folder") from error
        package.__dict__["__getattr__"] = complete
    return sys.modules["clip"]


@cache
def clip_tokenizer() -> Any:
    """openai-clip's own; its `encoder` is CLIP's vocabulary, words to numbers."""
    return clip_package().simple_tokenizer.SimpleTokenizer()


def fetch_published(architecture: str, folder: Path, progress: bool = True, called: str = "") -> Path:
    """One of OpenAI's nine files with the SHA-256 that OpenAI gives, downloaded when `folder` has no sound copy.

    openai-clip's own `load` writes a download straight to its final name, and runs what the file holds. A refusal
    names it as it was `called`.

    Raises:
        BackboneError: There is no sound copy and the download failed.
        WriteError: It cannot be written.
    """
    name, address, checksum = published(architecture)
    file = folder / name
    if file.is_file() and sha256_of(file) == checksum:
        return file
    try:
        with whole_file(file) as private:
            with private.open("wb") as target:
                for part in _downloaded(address, name, progress):
                    target.write(part)
            if sha256_of(private) != checksum:
                raise HTTPException(f"what {address} gives has not the SHA256 checksum {checksum}")
    except HTTPException as error:
        raise BackboneError(
            f"{called or architecture} could not be downloaded ({reason_of(error)}) and {file} is not there or is "
            f"damaged. Either give the path of a checkpoint with weights=…, or put {name} into {folder} from a machine "
            "with network, or use backbone=tiny, which needs no download."
        ) from error
    return file


def _downloaded(address: str, name: str, progress: bool) -> Iterator[bytes]:
    """Parts of a file of the network, whose faults are told from those of the disk."""
    try:
        with urllib.request.urlopen(address, timeout=STALLED_AFTER) as source:
            size = int(source.info().get("Content-Length") or 0) or None
            with tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=not progress) as bar:
                while part := source.read(1 << 16):
                    bar.update(len(part))
                    yield part
    except OSError as error:
        raise HTTPException(str(getattr(error, "reason", None) or error)) from error


@dataclass(frozen=True)
class ClipShape:
    """The sizes that make one CLIP architecture; how many attention heads it has, no size tells.

    `vision_layers` is a number for a ViT, four numbers for a ResNet, which has no `patch_size`. `text_layers` is 0 of
    an image tower alone. `vision_mlp` and `text_mlp` are the inner widths of MLPs, 0 for four times the outer one.
    `published` is OpenAI's name where it published such a model, and no part of the shape.
    """

    embedding_dim: int
    resolution: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    patch_size: int | None
    text_width: int
    text_layers: int = 12
    context_length: int = 77
    vocab_size: int = 49408
    published: str = field(default="", compare=False)
    vision_mlp: int = 0
    text_mlp: int = 0
    projected: bool = True

    @property
    def widths(self) -> tuple[int, int]:
        """Of what has attention heads: the ViT or a ResNet's pooling, and the text tower."""
        return self.vision_width * (32 if self.patch_size is None else 1), self.text_width

    def __str__(self) -> str:
        vision = f"{self.vision_layers} layers of width {self.vision_width}, {self.resolution} px images"
        kind = f"ResNet, {vision}" if self.patch_size is None else f"ViT, {vision}, patch {self.patch_size}"
        if not self.text_layers:
            return f"{kind}; embedding {self.embedding_dim}; no text tower"
        text = f"text {self.text_layers} layers of width {self.text_width}"
        text = f"{text}, {self.context_length} tokens of {self.vocab_size}"
        return f"{kind}; embedding {self.embedding_dim}; {text}"


def infer_shape(state: Mapping[str, torch.Tensor], side: int | None = None) -> ClipShape:
    """Read the sizes off a state dict, the way openai-clip's `build_model` does.

    `side` is that of the square images that it was made for, where it takes others now.

    Raises:
        KeyError, IndexError, ValueError: A tensor that gives a size is absent or cannot give it.
    """
    projected, mlp = "visual.proj" in state, 0
    if _is_vit(state):
        width, _, _, patch = state["visual.conv1.weight"].shape
        layers: int | tuple[int, ...] = _count(state, "visual.transformer.resblocks.")
        embedding_dim = state["visual.proj"].shape[1] if projected else width
        mlp = _inner(state, "visual.transformer", width)
    else:
        width, patch = state["visual.layer1.0.conv1.weight"].shape[0], None
        layers, projected = tuple(_count(state, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)), True
        embedding_dim = state["visual.attnpool.c_proj.weight"].shape[0]
    step, cells = RESNET_STEP if patch is None else patch, cells_of(state)
    grid = round(cells**0.5) if side is None else side // step
    if grid < 1 or (side is None and grid * grid != cells):
        raise ValueError(f"its images are not square: {cells} cells, and nothing beside it says how many rows")
    if not any(not name.startswith(("visual.", "logit_scale")) for name in state):
        return ClipShape(embedding_dim, grid * step, layers, width, patch, 0, 0, 0, 0, "", mlp, 0, projected)
    context_length, text_width = state["positional_embedding"].shape
    return ClipShape(
        state["text_projection"].shape[1], grid * step, layers, width, patch, text_width,
        _count(state, "transformer.resblocks."), context_length, state["token_embedding.weight"].shape[0], "", mlp,
        _inner(state, "transformer", text_width), projected,
    )  # fmt: skip


def _is_vit(state: Mapping[str, torch.Tensor]) -> bool:
    return "visual.class_embedding" in state or "visual.proj" in state


def cells_of(state: Mapping[str, torch.Tensor]) -> int:
    """Cells of the images that the position embeddings of a state dict are for."""
    holder = "visual" if _is_vit(state) else "visual.attnpool"
    return state[f"{holder}.positional_embedding"].shape[0] - 1


def _inner(state: Mapping[str, torch.Tensor], tower: str, width: int) -> int:
    inner = state[f"{tower}.resblocks.0.mlp.c_fc.weight"].shape[0]
    return 0 if inner == 4 * width else inner


def _count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    blocks = {name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)}
    if not blocks:
        raise KeyError(f"{prefix}0")
    return len(blocks)


class NoRandomNumbers(TorchFunctionMode):
    """Leave tensors as they are allocated: weights follow, and openai-clip's initial ones take seconds.

    The meta device would do the same, but it imports torch's compiler (a thousand modules). With `zeros` they hold 0:
    `trunc_normal_`, as libraries call it, draws until all numbers are near 0, and what memory held may never be.
    """

    def __init__(self, zeros: bool = False):
        super().__init__()
        self.zeros = zeros

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            tensor = args[0] if args else (kwargs or {})["tensor"]
            if self.zeros:
                tensor.detach().zero_()
            return tensor
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


class ImageTower(torch.nn.Module):
    """What stands for a `CLIP` where there is an image tower alone: it knows no token."""

    vocab_size = context_length = 0
    no_text = "it has no text tower"

    def __init__(self, visual: torch.nn.Module):
        super().__init__()
        self.visual = visual


def build_clip(shape: ClipShape, properties: Properties | None = None) -> torch.nn.Module:
    """openai-clip's `CLIP` of any shape with weights that are still anything: load a whole state dict into it.

    Without properties it has QuickGELU, and heads 64 wide or one.

    Raises:
        AssertionError, ValueError, RuntimeError: No CLIP has these sizes.
    """
    classes = clip_package().model
    vit, text = shape.patch_size is not None, shape.text_layers > 0
    with NoRandomNumbers():
        # below 64 openai-clip would ask for zero heads; the tower is put in afterwards
        width, heads = max(64, shape.vision_width) if vit else shape.vision_width, max(1, shape.text_width // 64)
        model = classes.CLIP(
            shape.embedding_dim, shape.resolution, shape.vision_layers, width, shape.patch_size,
            shape.context_length or 1, shape.vocab_size or 1, shape.text_width or 64, heads, shape.text_layers or 1,
        )  # fmt: skip
        if vit and shape.vision_width < 64:
            sizes = shape.resolution, shape.patch_size, shape.vision_width, shape.vision_layers
            model.visual = classes.VisionTransformer(*sizes, heads=1, output_dim=shape.embedding_dim)
        towers = [(model.visual.transformer, shape.vision_mlp)] if vit else []
        for tower, inner in [*towers, (model.transformer, shape.text_mlp)]:
            for block in tower.resblocks if inner else ():
                block.mlp.c_fc = torch.nn.Linear(tower.width, inner)
                block.mlp.c_proj = torch.nn.Linear(inner, tower.width)
    if not shape.projected:
        model.visual.proj = None
    if properties is not None:
        _put(model, properties, vit)
    return model if text else ImageTower(model.visual)


def _put(model: Any, properties: Properties, vit: bool) -> None:
    """Activation and heads into both towers."""
    towers = [(model.visual.transformer.resblocks, properties.heads)] if vit else []
    for blocks, heads in [*towers, (model.transformer.resblocks, properties.text_heads)]:
        for block in blocks if heads else ():
            block.attn.num_heads, block.attn.head_dim = heads, block.attn.embed_dim // heads
            if properties.activation == "gelu":
                block.mlp.gelu = torch.nn.GELU()
    if not vit:
        model.visual.attnpool.num_heads = properties.heads
