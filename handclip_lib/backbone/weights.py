"""Weights in files: HandCLIP's own, and CLIP's that somebody else wrote, without running any Python they may carry."""

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

from handclip_lib.backbone.image_tower import positions, resize_input
from handclip_lib.backbone.openai_clip import ClipShape, build_clip, cells_of, infer_shape
from handclip_lib.backbone.torchscript import is_torchscript, read_torchscript
from handclip_lib.errors import BackboneError, HandClipError
from handclip_lib.files import REMEDY, UNSEALED, is_sealed, seal, whole_file
from handclip_lib.finite import require_finite

FORMATS = "OpenAI's JIT archive, a state dict saved by torch.save (.pt, .pth), or .safetensors"
SIZE_FACT = "input_size"
SEALED = next(iter(UNSEALED))
"""In the header of a file that has a checksum."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_NUMBERS = ("input_resolution", "context_length", "vocab_size")  # that JIT archives keep beside the weights


def save_tensors(file: Path, tensors: Mapping[str, torch.Tensor], facts: dict[str, str], remedy: str = REMEDY) -> None:
    """Write a .safetensors file, whole and with a checksum, with facts in its header.

    Raises:
        WriteError: The file cannot be written.
    """
    # copies, one of each: two names of one memory are refused
    whole = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with whole_file(file, remedy) as private:
        safetensors.torch.save_file(whole, private, facts | UNSEALED)
        seal(private)


def load_tensors(file: Path, prefix: str = "") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors whose names begin so, by the rest of their names, and the facts of a file of `save_tensors`.

    Raises:
        ValueError: The file is absent, damaged or of another kind.
    """
    try:
        is_sealed(file)
        with safetensors.safe_open(file, "pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name.removeprefix(prefix): opened.get_tensor(name) for name in names}
            return tensors, opened.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(str(error)) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by their names of OpenAI's, on the CPU, in the precision they are stored in.

    Args:
        path: A JIT archive as OpenAI publishes them, a plain state dict (bare, or under one of `_WRAPPERS`; with or
            without `module.` before each name), or a .safetensors file.

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
    """Of weights that take images of another size than they were made for: height and width, and the side before.

    Only a .safetensors file tells, in its header, as `size_fact` wrote it.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, "pt") as opened:
            height, width, side = map(int, (opened.metadata() or {})[SIZE_FACT].split())
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    return (height, width), side


def size_fact(size: tuple[int, int], side: int) -> dict[str, str]:
    """What a .safetensors file's header says of images of another size than those of the side before."""
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
    return {name: tensor for name, tensor in state.items() if name not in _NUMBERS}


def build_model(state: Mapping[str, torch.Tensor], path: Path) -> tuple[Any, ClipShape]:
    """The CLIP that `read_weights(path)` makes, in float32 (half precision widens without loss), and its shape.

    It is a `clip.model.CLIP` on the CPU, in evaluation mode, and owns its memory.

    Raises:
        BackboneError: A tower is absent, tensors are missing or too many, or sizes contradict each other.
    """
    model, shape = fitting_model(state, path)
    state = {
        # a fresh copy: a tensor that maps the file would change or crash with it
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for name, tensor in state.items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval(), shape


def fitting_model(state: Mapping[str, torch.Tensor], path: Path) -> tuple[Any, ClipShape]:
    """As `build_model`, with weights that are still anything: all tensors are there and fit."""
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        raise BackboneError(f"{path} is in the naming of Hugging Face transformers; OpenAI's is needed: {FORMATS}")
    if not any(name.startswith("visual.") for name in state):
        raise BackboneError(f"{path} has no image encoder (no tensor named visual.…), so it is no CLIP checkpoint")
    if "token_embedding.weight" not in state or "text_projection" not in state:
        raise BackboneError(f"{path} has no text encoder (token_embedding, text_projection): a whole CLIP is needed")
    size, side = stored_size(path) or (None, None)
    try:
        shape = infer_shape(state, side)
        model: Any = build_clip(shape)
    except (KeyError, IndexError) as error:
        raise BackboneError(f"{path} is no whole CLIP checkpoint: it lacks {error.args[0]}…") from error
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise BackboneError(f"{path} has sizes that make no CLIP model: {error}") from error
    if size is not None:
        resize_input(model.visual, (shape.resolution, shape.resolution), size)
        needed, there = len(positions(model.visual).positional_embedding), cells_of(state) + 1
        if there != needed:
            raise BackboneError(f"{path} says images of {size}, and has {there - 1} places for patches")
    _compare(model, state, shape, path)
    return model, shape


def _compare(model: Any, state: Mapping[str, torch.Tensor], shape: ClipShape, path: Path) -> None:
    needed = model.state_dict()
    both = [(name, state[name], needed[name]) for name in needed if name in state]
    faults = {
        "missing": [name for name in needed if name not in state and not name.endswith("num_batches_tracked")],
        "unknown": [name for name in state if name not in needed],
        "of another size": [
            f"{name} is {tuple(its.shape)} where {tuple(wanted.shape)} is needed"
            for name, its, wanted in both if its.shape != wanted.shape
        ],
        "of a type weights have not": [
            f"{name} is {str(its.dtype).removeprefix('torch.')}"
            for name, its, wanted in both if its.is_floating_point() != wanted.is_floating_point()
        ],
    }  # fmt: skip
    named = [
        f"{len(names)} {kind}: {', '.join(names[:3])}{' …' if names[3:] else ''}"
        for kind, names in faults.items()
        if names
    ]
    if named:
        raise BackboneError(f"the tensors of {path} make no CLIP model ({shape}): {'; '.join(named)}")


def refuse_not_finite(model: torch.nn.Module, where: str, error: type[HandClipError] = BackboneError) -> None:
    """Refuse weights from `where` that hold NaN or infinity, by the first such tensor: figures would mean nothing."""
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
