"""Models of open_clip, timm and transformers as backbones: `open_clip:NAME`, `timm:NAME`, `hf:FOLDER`.

The library makes the model and its modules compute; tensors are read here, so that no pickle and no code in a folder
is run, and nothing is downloaded. What the library says of photographs (mean, deviation, interpolation) is stated with
its source, and what it says in several ways, or not at all, is asked for.
"""

import importlib
import logging
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from handclip_lib.backbone.configs import images_beside, open_clips, stated_beside
from handclip_lib.backbone.library.makers import (
    Read,
    Said,
    Size,
    of_hugging_face,
    of_open_clip,
    of_timm,
    published_images,
)
from handclip_lib.backbone.library.tower import LibraryModel
from handclip_lib.backbone.naming import unwrapped
from handclip_lib.backbone.openai_clip import NoRandomNumbers
from handclip_lib.backbone.properties import Given, Properties, parsed, stated_in
from handclip_lib.backbone.weights import Weights, read_tensors, read_weights, sizes_in
from handclip_lib.errors import BackboneError, OtherModelError, reason_of
from handclip_lib.parameters.backbones import folder_of, of_library

_RESIZED = ("bicubic", "bilinear")
_PACKAGES = {"open_clip": "open_clip", "timm": "timm", "hf": "transformers"}


class Loaded(NamedTuple):
    """A library's model with its weights in it, and what is needed to feed it."""

    model: LibraryModel
    properties: Properties
    size: Size
    embedding_dim: int
    file: Path
    remarks: tuple[str, ...]


def load_library(backbone: str, weights: str | Path | None, input_size: Size | None, given: Given) -> Loaded:
    """Make a library's model, put weights into it, and let it embed an image of nothing.

    Args:
        backbone: `open_clip:NAME`, `timm:NAME` (a folder in the hub's layout may stand for a name) or `hf:FOLDER`.
        weights: File or folder of them; where the backbone is a folder they may lie in it.
        given: Of it `mean_std` is heard.

    Raises:
        BackboneError: The library is not installed, has no such model, or cannot read the folder; weights are absent,
            damaged or of another model; it takes no images of this size; or nobody says how they are normalised.
    """
    library, name = of_library(backbone) or ("", "")
    package = _imported(library)
    folder = folder_of(backbone)
    if folder and not Path(folder).expanduser().is_dir():
        raise BackboneError(f"backbone={backbone!r}: there is no folder {folder}")
    made_by = {"open_clip": of_open_clip, "timm": of_timm, "hf": of_hugging_face}[library]
    if not folder:
        _known(package, library, name)
    if not (weights or folder):
        raise BackboneError(f"backbone={backbone!r} needs its weights, for nothing is downloaded: -p weights FILE")
    path = Path(weights or folder).expanduser()
    file, found, facts = read_tensors(path)
    state, remarks = unwrapped(found, path)
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    read = Read(path, tensors, facts, sizes_in(facts)[0])
    place = str(Path(folder).expanduser()) if folder else ""
    with _quiet(), NoRandomNumbers(zeros=True):
        made = made_by(package, place or name, read, input_size, remarks)
    made.model.eval()
    size = input_size or read.size or made.size
    if size[0] % made.step or size[1] % made.step:
        raise BackboneError(f"input_size={size[0]}x{size[1]}: {backbone} takes multiples of {made.step} pixels")
    said = [*([(stated_in(facts, ""), "the file's own header")] if read.ours else []), *images_beside(file), *made.said]
    mean, std, interpolation, sources = _images(said, given, backbone)
    properties = Properties("", 0, 0, mean, std, interpolation, made.called, {"library": "parameter"} | sources)
    return Loaded(made.model, properties, size, _width(made.model, size, backbone), path, tuple(remarks))


def _imported(library: str) -> Any:
    package = _PACKAGES[library]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BackboneError(
            f"backbone='{library}:…' needs {package}, which cannot be imported ({error}): "
            f"pip install 'handclip[{package}]'"
        ) from error


def _known(package: Any, library: str, name: str) -> None:
    """Refuse a name that the library does not list: its own look-up would ask the network for some."""
    known = package.list_models()
    if (name.split(".")[0] if library == "timm" else name) in known:
        return
    near = get_close_matches(name, known, 3, 0.4)
    hint = f"near are {', '.join(near)}" if near else f"{_PACKAGES[library]}.list_models() lists them"
    raise BackboneError(f"backbone='{library}:{name}': {library} has no model of this name; {hint}")


@contextmanager
def _quiet() -> Any:
    """Without what the libraries say of made-up values, which the weights replace."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@torch.inference_mode()
def _width(model: LibraryModel, size: Size, backbone: str) -> int:
    """Length of an embedding, by trying."""
    try:
        found = model.visual(torch.zeros(1, 3, *size))
    except (AssertionError, ValueError, RuntimeError, TypeError, KeyError, IndexError) as error:
        taken = f"input_size={size[0]}x{size[1]}: {backbone} does not embed images of this size ({reason_of(error)})"
        raise BackboneError(f"{taken}; leave input_size out, or give another") from error
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise BackboneError(f"{backbone} gives no one embedding of an image; take a model that pools")
    return int(found.shape[1])


def clip_shaped(backbone: str, weights: str | Path | None, given: Given) -> Weights | None:
    """Weights of CLIP's own shape, of which a library's name or folder says what tensors do not; None of another shape.

    Raises:
        BackboneError: As `load_library`.
    """
    library, name = of_library(backbone) or ("", "")
    folder = Path(folder_of(backbone)).expanduser()
    stated: Mapping[str, Any] = {}
    if folder_of(backbone):
        try:
            stated = stated_beside(folder) if folder.is_dir() and library != "timm" else {}
        except OtherModelError:
            return None
    elif library == "open_clip":
        package = _imported(library)
        _known(package, library, name)
        try:
            stated = open_clips(package.get_model_config(name), f"open_clip {name}")
        except OtherModelError:
            return None
        mean, std, interpolation, sources = _images(published_images(name), given, backbone)
        images = {"mean": mean, "std": std, "interpolation": interpolation}
        stated = {**stated, **images, "sources": {**stated["sources"], **sources}}
    if not stated or stated.get("vocabulary") or not (weights or folder_of(backbone)):
        return None
    read = read_weights(Path(weights or folder).expanduser())
    sources = {**stated["sources"], **read.stated.get("sources", {})}
    return replace(read, stated={**stated, **read.stated, "sources": sources}, size=read.size or stated.get("size"))


def _images(
    said: list[Said], given: Given, backbone: str
) -> tuple[tuple[float, ...], tuple[float, ...], str, dict[str, str]]:
    """What is said of photographs: by the parameter, or the first who says it, unless a library contradicts itself.

    Its published weights of one name may differ; those of a file are one of them, and nobody says which.
    """
    told = [(one, who) for one, who in said if one.get("mean") is not None and one.get("std") is not None]
    firm = [(one, who) for one, who in told if not who.startswith(("open_clip's", "timm's"))]
    ways = {(tuple(one["mean"]), tuple(one["std"])): (one, who) for one, who in reversed(firm[:1] or told)}
    sources: dict[str, str] = {}
    if given.mean_std:
        mean, std = parsed(given.mean_std)
        sources |= dict.fromkeys(("mean", "std"), "parameter")
    elif len(ways) == 1:
        (((mean, std), (_, who)),) = ways.items()
        sources |= dict.fromkeys(("mean", "std"), who)
    elif ways:
        each = "; ".join(f"{', '.join(map(str, mean))} ({who})" for (mean, _), (_, who) in ways.items())
        remedy = "name the weights, as timm:NAME.TAG, or " if backbone.startswith("timm") else ""
        raise BackboneError(f"{backbone} was published with several means of the pixels: {each}; {remedy}say which: "
                            "-p mean_std clip, half, imagenet, none or six numbers")  # fmt: skip
    else:
        raise BackboneError(f"neither {backbone} nor a config beside its weights says how photographs are normalised: "
                            "-p mean_std clip, half, imagenet, none or six numbers")  # fmt: skip
    resized = [(one["interpolation"], who) for one, who in firm or told if one.get("interpolation") in _RESIZED]
    interpolation, sources["interpolation"] = (resized or [("bicubic", "nobody says another")])[0]
    return tuple(mean), tuple(std), interpolation, sources
