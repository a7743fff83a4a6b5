"""Random changes of training photographs; evaluation never sees them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.data.images import CLIP_MEAN, CLIP_STD


def normalised(images: Tensor) -> Tensor:
    """CLIP's normalisation of images in 0..1, float32 (n, 3, side, side), channels last in memory."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=images.device)[:, None, None]
        for values in (CLIP_MEAN, CLIP_STD)
    )
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(pixels: Tensor, generator: torch.Generator, strength: float = 1.0, flip: bool = False) -> Tensor:
    """Move and turn, light and tint a little, and add noise.

    Args:
        pixels: uint8, shape (n, side, side, 3).
        generator: What chooses, on the CPU.
        strength: 1: shifts up to 12 %, turns up to 9°, scales 0.88 to 1.12, light ±4 %; 0: nothing changes.
        flip: Also mirror half of them. Off by default: a mirrored right hand is a left one.

    Returns:
        CLIP's normalised float32, shape (n, 3, side, side).
    """
    n = len(pixels)

    def uniform(reach: float, *shape: int) -> Tensor:
        return strength * reach * (2 * torch.rand(n, *shape, generator=generator) - 1)

    images = pixels.permute(0, 3, 1, 2).float() / 255
    angle, size = uniform(0.15), 1 + uniform(0.12)
    cosine, sine = angle.cos() * size, angle.sin() * size
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    matrix = torch.cat([turn, uniform(0.12, 2, 1)], dim=2)
    if flip:
        matrix[:, :, 0] *= torch.where(torch.rand(n, 1, generator=generator) < 0.5, -1.0, 1.0)
    if strength or flip:
        grid = F.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    light, tint, contrast = uniform(0.04, 1, 1, 1), uniform(0.014, 3, 1, 1), uniform(0.05, 1, 1, 1)
    noise = strength * 0.02 * torch.rand(n, 1, 1, 1, generator=generator)
    images = images * (1 + light).to(images.device) * (1 + tint).to(images.device)
    images = 0.5 + (images - 0.5) * (1 + contrast).to(images.device)
    images = images + (noise * torch.randn(images.shape, generator=generator)).to(images.device)
    return normalised(images.clamp(0, 1))
