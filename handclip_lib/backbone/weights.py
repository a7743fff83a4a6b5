"""Read CLIP weights from a file somebody else wrote, without running any Python it may carry."""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from handclip_lib.backbone.image_tower import grid_of
from handclip_lib.backbone.openai_clip import ClipShape, build_clip, infer_shape
from handclip_lib.backbone.torchscript import is_torchscript, read_torchscript
from handclip_lib.errors import BackboneError, HandClipError
from handclip_lib.files import is_sealed
from handclip_lib.finite import require_finite

FORMATS = "OpenAI's JIT archive, a state dict saved by torch.save (.pt, .pth), or .safetensors"
SIZE_FACT = "input_size"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SIZES = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # numbers kept beside the weights in JIT archives


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict in OpenAI's naming, on the CPU, in the precision it is stored in.

    Args:
        path: A JIT archive as OpenAI publishes them, a plain state dict (bare, or under `state_dict` or
            `model`; with or without `module.` before each name), or a .safetensors file.

    Returns:
        Tensors by name.

    Raises:
        BackboneError: The file is absent, empty, cut short, of another kind, or holds Python objects.
    """
    if not path.exists():
        raise BackboneError(f"no weights at {path}; check the path")
    if path.is_dir():
        raise BackboneError(f"{path} is a folder; give the path of a file: {FORMATS}")
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip()
    except OSError as error:
        raise BackboneError(f"cannot read {path}: {error.strerror}") from error
    if not start:
        raise BackboneError(f"{path} is empty; download it again")
    if start.startswith(b"<"):
        raise BackboneError(f"{path} is a web page, not weights: the server sent an error page; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise BackboneError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` where it came from")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch on TorchScript's future and on pickle protocols
            found = _read(path, start)
    except BackboneError:
        raise
    except Exception as error:  # the readers raise a dozen kinds for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BackboneError(f"{path} is damaged or no weights ({reason}); it should be {FORMATS}") from error
    return _state_dict(found, path)


def stored_size(path: Path) -> tuple[tuple[int, int], int] | None:
    """Of weights that take images of another size than square: height and width, and the square's side before.

    Only a .safetensors file tells, in its header, as `size_fact` wrote it.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, "pt") as opened:
            height, width, side = (int(number) for number in (opened.metadata() or {})[SIZE_FACT].split())
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    return (height, width), side


def size_fact(size: tuple[int, int], side: int) -> dict[str, str]:
    """What a .safetensors file's header says of images that are not square."""
    return {SIZE_FACT: f"{size[0]} {size[1]} {side}"}


def _read(path: Path, start: bytes) -> Any:
    if path.suffix == ".safetensors":
        is_sealed(path)  # only what HandCLIP wrote has a checksum
        return safetensors.torch.load_file(path)
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise BackboneError(f"{path} is cut short: its end is missing; download it again")
        with zipfile.ZipFile(path) as archive:
            is_jit = is_torchscript(archive)
        if is_jit:
            return read_torchscript(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        # torch's own words end in the advice to set weights_only to False, which would run what the file says
        if "GLOBAL" in str(error) or "must be imported" in str(error):
            raise BackboneError(
                f"{path} holds Python objects beside tensors, and reading those could run code, so it was "
                "not opened; where you trust it, save its state_dict alone: torch.save(model.state_dict(), …)"
            ) from None
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        raise ValueError("torch cannot read it safely" if "weights_only" in reason else reason) from None


def _state_dict(found: Any, path: Path) -> dict[str, torch.Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping):
        raise BackboneError(f"{path} holds a {type(found).__name__}, not a state dict; it should be {FORMATS}")
    state = {
        str(name).removeprefix("module."): tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)
    }
    for name, tensor in state.items():
        plain = tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise BackboneError(
                f"{path} was not read: {name} is no plain tensor (quantized, sparse, without values or spread from "
                "fewer numbers than its size has); save it dense, in float16 or float32"
            )
    return {name: tensor for name, tensor in state.items() if name not in _SIZES}


def build_model(
    state: Mapping[str, torch.Tensor], path: Path, size: tuple[tuple[int, int], int] | None = None
) -> tuple[Any, ClipShape]:
    """The CLIP model whose sizes the weights have, in float32 (half precision widens without loss).

    Args:
        state: What `read_weights` returned.
        path: Where it came from, for messages.
        size: What `stored_size` returned.

    Returns:
        `clip.model.CLIP` on the CPU in evaluation mode, owning its memory, and its shape.

    Raises:
        BackboneError: A tower is absent, tensors are missing or too many, or sizes contradict each other.
    """
    model, shape, place = _fitting(state, path, size)
    own = state.get(place)
    state = {
        # a fresh copy: a tensor that maps the file would change or crash with it
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for name, tensor in state.items()
        if size is None or name != place
    }
    model.load_state_dict(state, assign=True, strict=size is None)
    if size is not None and own is not None:
        holder = model.visual if place == "visual.positional_embedding" else model.visual.attnpool
        holder.positional_embedding = torch.nn.Parameter(own.float().clone())
    return model.eval(), shape


def shape_of(path: Path) -> ClipShape:
    """The sizes of the CLIP in a file, all of whose tensors are there and fit each other.

    Raises:
        BackboneError: As `read_weights` and `build_model` raise it.
    """
    return _fitting(read_weights(path), path, stored_size(path))[1]


def _fitting(
    state: Mapping[str, torch.Tensor], path: Path, size: tuple[tuple[int, int], int] | None
) -> tuple[Any, ClipShape, str]:
    """A model of the weights' sizes with weights that are still anything, and the name of its position embedding."""
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        raise BackboneError(f"{path} is in the naming of Hugging Face transformers; OpenAI's is needed: {FORMATS}")
    if not any(name.startswith("visual.") for name in state):
        raise BackboneError(f"{path} has no image encoder (no tensor named visual.…), so it is no CLIP checkpoint")
    if "token_embedding.weight" not in state or "text_projection" not in state:
        raise BackboneError(f"{path} has no text encoder (token_embedding, text_projection): a whole CLIP is needed")
    place = "visual.positional_embedding" if "visual.proj" in state else "visual.attnpool.positional_embedding"
    own = state.get(place)
    try:
        if size is not None and own is not None:
            state = {**state, place: own.new_zeros((size[1] // _step(state)) ** 2 + 1, own.shape[1])}
        shape = infer_shape(state)
        model: Any = build_clip(shape)
    except (KeyError, IndexError) as error:
        raise BackboneError(f"{path} is no whole CLIP checkpoint: it lacks {error.args[0]}…") from error
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise BackboneError(f"{path} has sizes that make no CLIP model: {error}") from error
    _compare(model, state, shape, path)
    if size is not None and own is not None:
        rows, columns = grid_of(model.visual, size[0])
        if len(own) != rows * columns + 1:
            raise BackboneError(f"{path} says images of {size[0]}, and has {len(own) - 1} places for patches")
    return model, shape, place


def _step(state: Mapping[str, torch.Tensor]) -> int:
    return state["visual.conv1.weight"].shape[-1] if "visual.proj" in state else 32


def _compare(model: Any, state: Mapping[str, torch.Tensor], shape: ClipShape, path: Path) -> None:
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = [name for name in needed if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in needed]
    other = [
        f"{name} is {tuple(state[name].shape)} where {size} is needed"
        for name, size in needed.items()
        if name in state and tuple(state[name].shape) != size
    ]
    types = [
        f"{name} is {str(state[name].dtype).removeprefix('torch.')}"
        for name, tensor in model.state_dict().items()
        if name in state and state[name].is_floating_point() != tensor.is_floating_point()
    ]
    faults = [
        f"{len(found)} {kind}: {', '.join(found[:3])}{' …' if len(found) > 3 else ''}"
        for kind, found in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another size", other),
            ("of a type weights have not", types),
        )
        if found
    ]
    if faults:
        raise BackboneError(f"the tensors of {path} make no CLIP model ({shape}): {'; '.join(faults)}")


def refuse_not_finite(model: torch.nn.Module, where: str, error: type[HandClipError] = BackboneError) -> None:
    """Refuse weights that hold NaN or infinity: every figure made by them would mean nothing.

    Args:
        model: Whose tensors are looked at.
        where: Where they are from, for the message, which names the first bad tensor.
        error: What is raised.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            remedy = "the file is damaged or its training went wrong: take the weights of another epoch or file"
            require_finite(tensor.cpu().float(), f"{where}, tensor {name}", remedy, error)


def fingerprint(model: torch.nn.Module) -> str:
    """Name weights by their content: SHA-256 over names, shapes and float32 bytes, as 16 hex digits.

    The tensors are hashed side by side and their digests hashed together, sorted by name.
    """

    def digest(item: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = item
        values = tensor.detach().cpu().contiguous().reshape(-1).numpy()
        head = f"{name} {tuple(tensor.shape)} {values.dtype}\n".encode()
        return hashlib.sha256(head + hashlib.sha256(values.data).digest()).digest()

    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(digest, sorted(model.state_dict().items()))
        return hashlib.sha256(b"".join(digests)).hexdigest()[:16]
