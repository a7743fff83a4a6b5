"""Images of another size than a CLIP was trained on: its position embeddings are interpolated to the new grid."""

from typing import Any

import torch
import torch.nn.functional as F

from handclip_lib.errors import BackboneError


def grid_of(visual: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the patches (ViT) or of the last map's cells (ResNet, 32 pixels each).

    Args:
        visual: openai-clip's image tower.
        size: Height and width of the images in pixels.

    Raises:
        BackboneError: A side is no multiple of what one patch covers.
    """
    return whole_cells(visual.conv1.kernel_size[0] if hasattr(visual, "transformer") else 32, size)


def whole_cells(step: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of cells of `step` pixels; raises as `grid_of`."""
    if size[0] < step or size[1] < step or size[0] % step or size[1] % step:
        near = "x".join(str(max(step, round(side / step) * step)) for side in size)
        raise BackboneError(
            f"input_size={size[0]}x{size[1]}: this image tower takes multiples of {step} pixels; try {near}"
        )
    return size[0] // step, size[1] // step


@torch.no_grad()
def resize_input(visual: Any, now: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Let an image tower take images of another size, in place: bicubic between the cells, the class token stays.

    Args:
        visual: openai-clip's image tower.
        now: Height and width it takes.
        wanted: Height and width it shall take; equal to `now`, nothing changes.

    Raises:
        BackboneError: A side is no multiple of what one patch covers.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, §3.2 (interpolation by place).
    """
    old, new = grid_of(visual, now), grid_of(visual, wanted)
    if old == new:
        return
    holder = visual if hasattr(visual, "transformer") else visual.attnpool
    whole, cells = holder.positional_embedding[:1], holder.positional_embedding[1:]
    image = cells.T.reshape(1, -1, *old)
    image = F.interpolate(image, new, mode="bicubic", align_corners=False, antialias=True)
    embedding = torch.cat([whole, image.flatten(2)[0].T]).contiguous()
    holder.positional_embedding = torch.nn.Parameter(embedding, requires_grad=holder.positional_embedding.requires_grad)
