"""From pixels to what a tower takes, and random changes of training photographs; evaluation never sees those."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.data.images import CLIP_MEAN, CLIP_STD

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of the three channels of pixels in 0..1: a backbone's own."""
CLIPS: Normalisation = (CLIP_MEAN, CLIP_STD)  # type: ignore[assignment]


def normalised(images: Tensor, by: Normalisation = CLIPS) -> Tensor:
    """Images in 0..1, less the mean and over the deviation, float32 (n, 3, height, width), channels last in memory."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in by)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def plain(pixels: Tensor, by: Normalisation = CLIPS) -> Tensor:
    """Photographs as they are: uint8 (n, height, width, 3) to normalised float32 (n, 3, height, width)."""
    return normalised(pixels.permute(0, 3, 1, 2).float() / 255, by)


def augment(
    pixels: Tensor, seeds: Sequence[int], strength: float = 1.0, flip: bool = False, by: Normalisation = CLIPS
) -> Tensor:
    """Move and turn, light and tint a little, and add noise.

    Each image's change depends on its own seed alone, so a batch in pieces, on several processes, is the same batch.

    Args:
        pixels: uint8, shape (n, height, width, 3).
        seeds: Of each image, 0 … 2^63 − 1.
        strength: 1: shifts up to 12 %, turns up to 9°, scales 0.88 to 1.12, light ±4 %; 0: nothing changes.
        flip: Also mirror half of them. Off by default: a mirrored right hand is a left one.

    Returns:
        Normalised float32, shape (n, 3, height, width).
    """
    if not strength and not flip:
        return plain(pixels, by)
    images, device = pixels.permute(0, 3, 1, 2).float() / 255, pixels.device
    generators = [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]
    drawn = torch.stack([torch.rand(11, generator=generator, device=device) for generator in generators])
    reach = torch.tensor([0.15, 0.12, 0.12, 0.12, 0.04, 0.014, 0.014, 0.014, 0.05], device=device)
    even = strength * reach * (2 * drawn[:, :9] - 1)  # turn, size, shift (2), light, tint (3), contrast
    cosine, sine = even[:, 0].cos() * (1 + even[:, 1]), even[:, 0].sin() * (1 + even[:, 1])
    rows = (torch.stack([cosine, -sine, even[:, 2]], 1), torch.stack([sine, cosine, even[:, 3]], 1))
    matrix = torch.stack(rows, 1)
    if flip:
        matrix[:, :, 0] *= torch.where(drawn[:, 9:10] < 0.5, -1.0, 1.0)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = images * (1 + even[:, 4, None, None, None]) * (1 + even[:, 5:8, None, None])
    images = 0.5 + (images - 0.5) * (1 + even[:, 8, None, None, None])
    for image, generator, amount in zip(images, generators, 0.02 * strength * drawn[:, 10], strict=True):
        image += amount * torch.randn(image.shape, generator=generator, device=device)
    return normalised(images.clamp(0, 1), by)
