"""The light of a drawn photograph: roundness, shadows and paper.

Fields are float32 of shape (180, 240); colours are RGB in 0..1.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from handclip_lib.drawn.hand import HEIGHT, WIDTH, Surface


@dataclass(frozen=True)
class Light:
    """One photograph's light and camera."""

    gain: float
    tint: np.ndarray  # (3,) factors of red, green, blue
    contrast: float
    direction: np.ndarray  # (2,) where the light comes from, in the image
    relief: float
    falloff: np.ndarray  # (2,) how much lighter it is on the right and at the bottom
    shadow: float
    shadow_offset: np.ndarray  # (2,) pixels right and down
    fog: np.ndarray  # (4,) how grey each corner of the paper is
    blur: float  # pixels
    noise: float  # 0..1 units
    flush: float  # redness of the skin on the day


def bump(squared: np.ndarray, width: float) -> np.ndarray:
    """exp(-squared / width²) cut to compact support: no denormals, and no libm that differs by platform."""
    rest = np.maximum(1 - squared * np.float32(0.2 / (width * width)), 0)
    square = rest * rest
    return square * square * rest  # (1 - q/5)^5 is close to exp(-q)


def relief(surface: Surface, light: Light, scale: float) -> np.ndarray:
    """Roundness: light on the slope of the height field, and less light in the valleys between fingers."""
    height = gaussian_filter(surface.height, 0.8, truncate=2)
    down, right = np.gradient(height * np.float32(scale))
    steep = np.sqrt(right * right + down * down + np.float32(1.2))
    lean = (np.float32(light.direction[0]) * right + np.float32(light.direction[1]) * down) / steep
    flat = np.float32(np.sqrt(1.2)) / steep
    shade = 1 + np.float32(light.relief) * (-lean * 0.60 + (flat - 1) * 0.75)
    valley = 1 - np.clip(height / np.float32(0.036), 0, 1)
    shade = np.clip(shade, 0.42, 1.30)
    dark = np.array([0.42, 0.54, 0.58], np.float32) * (valley * valley)[..., None]
    return shade[..., None] * (1 - dark)


def paper(cover: np.ndarray, light: Light) -> np.ndarray:
    """Overexposed white paper, greyer towards some corners, with the hand's shadow."""
    right = np.linspace(0, 1, WIDTH, dtype=np.float32)[None, :]
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None]
    top = light.fog[0] * (1 - right) ** 2 + light.fog[1] * right**2
    low = light.fog[2] * (1 - right) ** 2 + light.fog[3] * right**2
    fog = (1 - down) ** 2 * top + down**2 * low
    sheet = 1.05 - fog[..., None] * np.array([0.20, 0.13, 0.12], np.float32)
    small = np.asarray(Image.fromarray(cover).resize((WIDTH // 4, HEIGHT // 4), Image.Resampling.BOX))
    soft = Image.fromarray(gaussian_filter(small, 1.8)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    right_by, down_by = (round(float(by)) for by in light.shadow_offset)
    reach = 16  # more than any offset
    wide = np.pad(np.asarray(soft), reach, mode="edge")
    cast = wide[reach - down_by : reach - down_by + HEIGHT, reach - right_by : reach - right_by + WIDTH]
    sheet = sheet * (1 - np.float32(light.shadow) * cast[..., None] * np.array([1.0, 0.93, 0.90], np.float32))
    tint = 0.8 + 0.2 * np.clip(light.gain * light.tint, 0.6, 1.3)
    return np.minimum(sheet * tint, 1).astype(np.float32)


def falloff(light: Light) -> np.ndarray:
    """The lamp is nearer to one side: a factor around 1 for each pixel."""
    right = np.linspace(-0.5, 0.5, WIDTH, dtype=np.float32)[None, :]
    down = np.linspace(-0.5, 0.5, HEIGHT, dtype=np.float32)[:, None]
    return 1 + np.float32(light.falloff[0]) * right + np.float32(light.falloff[1]) * down


def mottle(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise of unit height."""
    grid = rng.standard_normal((cells * 3 // 4, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
