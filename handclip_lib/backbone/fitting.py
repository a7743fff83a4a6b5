"""The model that weights make: sizes by their tensors, the rest by what is said of them, every tensor in its place."""

from collections.abc import Mapping
from typing import Any

import torch

from handclip_lib.backbone.image_tower import RESNET_STEP, positions, resize_input
from handclip_lib.backbone.openai_clip import ClipShape, build_clip, cells_of, infer_shape
from handclip_lib.backbone.properties import Given, Properties, decided
from handclip_lib.backbone.weights import Weights
from handclip_lib.errors import BackboneError

NOTHING = Given()
_HINTS = {"CLIP-ReID": " (CLIP-ReID's own code has QuickGELU)"}


def build_model(weights: Weights, given: Given = NOTHING) -> tuple[Any, ClipShape, Properties]:
    """The CLIP that weights make, in float32 (half precision widens without loss), its shape and its properties.

    It is a `clip.model.CLIP`, or an `ImageTower`, on the CPU, in evaluation mode, and owns its memory.

    Raises:
        BackboneError: Tensors are missing or too many, sizes contradict each other, or what tensors do not say is said
            by nobody.
    """
    model, shape, properties = fitting_model(weights, given)
    state = {
        # a fresh copy: a tensor that maps the file would change or crash with it
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for name, tensor in weights.state.items()
    }
    if "logit_scale" not in state and shape.text_layers:
        state["logit_scale"] = model.logit_scale.detach()  # no embedding depends on it
    model.load_state_dict(state, assign=True)
    return model.eval(), shape, properties


def fitting_model(weights: Weights, given: Given = NOTHING) -> tuple[Any, ClipShape, Properties]:
    """As `build_model`, with weights that are still anything: all tensors are there and fit."""
    state, path = weights.state, weights.path
    if not any(name.startswith("visual.") for name in state):
        raise BackboneError(f"{path} has no image encoder (no tensor named visual.…), so it is no CLIP checkpoint")
    has_text = [name in state for name in ("token_embedding.weight", "text_projection")]
    if any(has_text) and not all(has_text):
        raise BackboneError(f"{path} has half a text encoder (of token_embedding and text_projection one is missing)")
    if not any(has_text):
        state.pop("logit_scale", None)
    try:
        size, side = own_size(weights)
        shape = infer_shape(state, side)
        is_vit = shape.patch_size is not None
        hint = _HINTS.get(weights.library, "")
        properties = decided(weights.stated, given, shape.widths, path, is_vit=is_vit, hint=hint)
        model: Any = build_clip(shape, properties)
    except BackboneError:
        raise
    except (KeyError, IndexError) as error:
        raise BackboneError(f"{path} is no whole CLIP checkpoint: it lacks {error.args[0]}…") from error
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise BackboneError(f"{path} has sizes that make no CLIP model: {error}") from error
    if size is not None:
        resize_input(model.visual, (shape.resolution, shape.resolution), size)
        needed, there = len(positions(model.visual).positional_embedding), cells_of(state) + 1
        if there != needed:
            raise BackboneError(f"{path} says images of {size}, and has {there - 1} places for patches")
    compare(model, state, f"the tensors of {path} make no CLIP model ({shape})")
    return model, shape, properties


def own_size(weights: Weights) -> tuple[tuple[int, int] | None, int | None]:
    """Height and width of images that are not square, and the side of square ones with about as many cells."""
    size, side, cells = weights.size, weights.side, cells_of(weights.state)
    if side is not None or size is None or size[0] == size[1] or round(cells**0.5) ** 2 == cells:
        return (size, side) if side is not None else (None, None)
    conv = weights.state["visual.conv1.weight"]
    step = conv.shape[-1] if "visual.class_embedding" in weights.state else RESNET_STEP
    return size, step * max(1, round((size[0] * size[1]) ** 0.5 / step))


def compare(model: Any, state: Mapping[str, torch.Tensor], fault: str) -> None:
    """Refuse, in these words, tensors that are not those of a model, one for one, but for what scales logits."""
    needed = model.state_dict()
    both = [(name, state[name], needed[name]) for name in needed if name in state]
    faults = {
        "missing": [
            name for name in needed
            if name not in state and not name.endswith(("num_batches_tracked", "logit_scale", "logit_bias"))
        ],
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
        raise BackboneError(f"{fault}: {'; '.join(named)}")
