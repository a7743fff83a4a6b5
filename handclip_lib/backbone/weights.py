"""Weights in files: HandCLIP's own, and CLIP's that somebody else wrote, without running any Python they may carry."""

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from handclip_lib.backbone.configs import another_library, read_json, stated_beside
from handclip_lib.backbone.naming import named
from handclip_lib.backbone.openai_clip import ClipShape, clip_tokenizer
from handclip_lib.backbone.properties import INDICES, VOCABULARIES, WHOLE, openais, stated_in
from handclip_lib.backbone.published import published_as
from handclip_lib.backbone.torchscript import declared_activation, is_torchscript, read_torchscript
from handclip_lib.errors import BackboneError, HandClipError, OtherModelError, reason_of
from handclip_lib.files import REMEDY, UNSEALED, is_sealed, seal, whole_file
from handclip_lib.finite import require_finite

FORMATS = "OpenAI's JIT archive, a state dict saved by torch.save (.pt, .pth, .bin), .safetensors, or a folder of one"
SIZE_FACT, MADE_OF = "input_size", "made_of"
"""In the header of a file of HandCLIP's: the size of its images, and the name of the backbone it was trained from."""
SEALED = next(iter(UNSEALED))
"""In the header of a file that has a checksum."""
TINY_WEIGHTS = Path(__file__).with_name("tiny.safetensors")


@dataclass(frozen=True)
class Weights:
    """What a file or a folder of weights holds, and what is said of it.

    Attributes:
        path: As it was given; messages name it.
        state: Tensors by OpenAI's names, on the CPU, in the precision they are stored in.
        library: Whose names they had in the file.
        remarks: What was chosen among several and what was left out.
        stated: What the file, or those beside it, say that tensors do not.
        size: Height and width of the images they are for, where it is said.
        side: That of the square images they were made for, where they were interpolated since.
    """

    path: Path
    state: dict[str, torch.Tensor]
    library: str
    remarks: tuple[str, ...]
    stated: dict[str, Any]
    size: tuple[int, int] | None = None
    side: int | None = None


def save_tensors(file: Path, tensors: Mapping[str, torch.Tensor], facts: dict[str, str], remedy: str = REMEDY) -> None:
    """Write a .safetensors file, whole and with a checksum, with facts in its header; a WriteError where it cannot."""
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


def header_facts(file: Path) -> dict[str, str]:
    """The facts in the header of a .safetensors file; raises as safetensors does."""
    with safetensors.safe_open(file, "pt") as opened:
        return opened.metadata() or {}


def read_weights(path: Path) -> Weights:
    """Read weights of any library that `naming` knows, and what is said of them; no code in them is run.

    Args:
        path: A JIT archive as OpenAI publishes them, a state dict of torch.save, a .safetensors file, an index of
            several such files, or a folder as `save_pretrained` and open_clip write them.

    Raises:
        BackboneError: The file is absent, empty, cut short, of another kind, or holds Python objects.
    """
    file, found, facts = read_tensors(path)
    if of := stated_in(facts, "")["library"] if "properties" in facts else "":
        made_of = facts.get(MADE_OF, of)
        raise BackboneError(f"{path} was trained from {made_of}, another library's model: name it, -p backbone {of}")
    try:
        inside = named(found, path)
        stated = _stated(file, facts)
    except OtherModelError as error:
        raise OtherModelError(f"{error}{another_library(path)}") from None
    size, side = sizes_in(facts)
    state, remarks = inside.state, inside.remarks
    if not {"visual.class_embedding", "visual.proj", "visual.attnpool.positional_embedding"} & state.keys():
        alone = "without a class token (SigLIP and others pool without one) and without a CLIP ResNet's pooling"
        raise OtherModelError(f"{path} holds an image tower {alone}: it is none of CLIP's shape{another_library(path)}")
    if "token_embedding.weight" in state and (other := stated.get("vocabulary") or _other_words(file.parent)):
        state = {name: value for name, value in state.items() if name.startswith("visual.")}
        remarks += (f"its text tower was left out, for it reads other tokens than CLIP's ({other})",)
    return Weights(path, state, inside.library, remarks, stated, size or stated.get("size"), side)


def read_tensors(path: Path) -> tuple[Path, Any, dict[str, str]]:
    """The file of weights at a path, what it holds as it is, and the facts in its header; raises as `read_weights`."""
    if not path.exists():
        raise BackboneError(f"no weights at {path}; check the path")
    file = _file_in(path) if path.is_dir() else path
    return file, *(_shards(file) if file.name in INDICES else _whole(file))


def _other_words(folder: Path) -> str:
    """The file beside weights whose vocabulary is not CLIP's; "" where there is none. Of equal size is not equal."""
    for name in VOCABULARIES:
        if (folder / name).is_file():
            found = read_json(folder / name)
            words = found.get("model", {}).get("vocab") if name == "tokenizer.json" else found
            clips = {word: n for word, n in clip_tokenizer().encoder.items() if n < ClipShape.vocab_size - 2}
            if not (isinstance(words, dict) and clips.items() <= words.items()):
                return name
    return ""


def _file_in(folder: Path) -> Path:
    for name in (*WHOLE[:2], *INDICES, *WHOLE[2:]):
        if (folder / name).is_file():
            return folder / name
    others = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".pt", ".pth", ".bin"))
    if len(others) == 1:
        return others[0]
    wanted = f"one file of weights, such as {WHOLE[0]}"
    raise BackboneError(f"{folder} is a folder with {len(others)} files of weights; give the path of one, or {wanted}")


def _shards(index: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of an index of several files, each of which must be there and beside it."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        parts = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(f"{index} is no index of weights ({error!r}); copy it again") from error
    missing = [part for part in parts if Path(part).name != part or not (index.parent / part).is_file()]
    if missing:
        away = f"{len(missing)} of its {len(parts)} files are not beside it: {', '.join(map(str, missing[:3]))}"
        raise BackboneError(f"{index} is an index, and {away}; copy them, too")
    found: dict[str, Any] = {}
    for part in parts:
        found |= _whole(index.parent / part)[0]
    lost = [name for name in places if name not in found]
    if lost:
        raise BackboneError(
            f"{index} names {len(lost)} tensors that its files lack, such as {lost[0]}; copy them again"
        )
    return found, {}


def _whole(path: Path) -> tuple[Any, dict[str, str]]:
    """What one file holds, and the facts in a .safetensors file's header."""
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
            return _read(path, start)
    except BackboneError:
        raise
    except Exception as error:  # the readers raise a dozen kinds for a damaged file
        raise BackboneError(f"{path} is damaged or no weights ({reason_of(error)}); it should be {FORMATS}") from error


def _stated(file: Path, facts: Mapping[str, str]) -> dict[str, Any]:
    """What is said of a file's weights: in its own header, by its program, by its checksum, or beside it."""
    if "properties" in facts:
        return stated_in(facts, "the file's own header")
    if file == TINY_WEIGHTS:
        return openais("tiny of this library")
    if any(name in facts for name in (SEALED, SIZE_FACT)):
        return openais("HandCLIP wrote it when it knew nothing else")
    beside = stated_beside(file)
    if "activation" in beside or file.suffix == ".safetensors" or not is_torchscript(file):
        return beside
    if known := published_as(file):
        return openais(f"OpenAI's {known}, by its SHA-256")
    activation = declared_activation(file)
    said = {"activation": activation, "sources": {"activation": "the classes in the archive"}} if activation else {}
    return said | beside


def sizes_in(facts: Mapping[str, str]) -> tuple[tuple[int, int] | None, int | None]:
    """Of weights that take images of another size than they were made for: height and width, and the side before."""
    try:
        height, width, side = map(int, facts[SIZE_FACT].split())
    except (KeyError, ValueError):
        return None, None
    return (height, width), side


def size_fact(size: tuple[int, int], side: int) -> dict[str, str]:
    """What a .safetensors file's header says of images of another size than those of the side before."""
    return {SIZE_FACT: f"{size[0]} {size[1]} {side}"}


def _read(path: Path, start: bytes) -> tuple[Any, dict[str, str]]:
    if path.suffix == ".safetensors":
        is_sealed(path)  # only what HandCLIP wrote has a checksum
        with safetensors.safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise BackboneError(f"{path} is cut short: its end is missing; download it again")
    if start.startswith(b"PK") and is_torchscript(path):
        return read_torchscript(path), {}
    try:
        return torch.load(path, map_location="cpu", weights_only=True), {}
    except (pickle.UnpicklingError, RuntimeError) as error:
        # torch's own words end in the advice to set weights_only to False, which would run what the file says
        if "GLOBAL" in str(error) or "must be imported" in str(error):
            raise BackboneError(
                f"{path} holds Python objects beside tensors, and reading those could run code, so it was "
                "not opened; where you trust it, save its state_dict alone: torch.save(model.state_dict(), …)"
            ) from None
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        raise ValueError("torch cannot read it safely" if "weights_only" in reason else reason) from None


def refuse_not_finite(model: torch.nn.Module, where: str, error: type[HandClipError] = BackboneError) -> None:
    """Refuse weights from `where` that hold NaN or infinity, by the first such tensor: figures would mean nothing."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            remedy = "the file is damaged or its training went wrong: take the weights of another epoch or file"
            require_finite(tensor.cpu().float(), f"{where}, tensor {name}", remedy, error)


def fingerprint(model: torch.nn.Module, unlike_clip: str = "") -> str:
    """Name weights by their content: SHA-256 over names, shapes and float32 bytes, as 16 hex digits.

    What `Properties.unlike_clip` says is part of it, for the same weights embed otherwise with another activation.

    The tensors are hashed side by side and their digests hashed together, sorted by name.
    """

    def digest(item: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = item
        values = tensor.detach().cpu().contiguous().reshape(-1).numpy()
        head = f"{name} {tuple(tensor.shape)} {values.dtype}\n".encode()
        return hashlib.sha256(head + hashlib.sha256(values.data).digest()).digest()

    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(digest, sorted(model.state_dict().items()))
        return hashlib.sha256(b"".join(digests) + unlike_clip.encode()).hexdigest()[:16]
