"""The look of a drawn photograph: skin, lines, nails, what is worn, light, shadows and paper.

Fields are float32 of shape (180, 240); colours are RGB in 0..1, each a field of its own, (3, 180, 240), for numpy runs
along long rows: three values of a pixel side by side take four times as long.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from handclip_lib.drawn.hand import HEIGHT, RING, THUMB, WIDTH, Anatomy, FingerField, Surface, window_of

# Very fair, fair, medium, dark: skin under white light.
_TONES = np.array([[0.91, 0.76, 0.69], [0.84, 0.65, 0.55], [0.69, 0.49, 0.38], [0.40, 0.26, 0.19]])
_PALM = np.array([0.95, 0.755, 0.685])
_POLISH = np.array([[0.72, 0.06, 0.12], [0.95, 0.93, 0.92], [0.16, 0.10, 0.16], [0.86, 0.36, 0.55], [0.18, 0.28, 0.55]])

REACH = 2.3  # widths after which a `_bump` is nothing: a little more than the root of 5


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


@dataclass(frozen=True)
class Worn:
    """Accessory ("" none, "ring", "watch", "sleeve"), polish of the nails (-1: none), colour of the cloth."""

    accessory: str = ""
    polish: int = -1
    cloth: tuple[float, float, float] = (0.3, 0.3, 0.35)


def render(anatomy: Anatomy, surface: Surface, view: str, light: Light, worn: Worn, scale: float, rng) -> np.ndarray:
    """The photograph, uint8 RGB of shape (180, 240, 3).

    The scale is in pixels a hand length; `rng` draws mottling and noise.
    """
    skin = _skin(anatomy, surface, view, light.flush)
    _lines(skin, anatomy, surface, view, scale)
    _marks(skin, anatomy, surface, view)
    for field in surface.fingers:
        _nail(skin, anatomy, field, view, worn.polish)
    _grain(skin, view, rng)
    skin *= _relief(surface, light, scale) * _falloff(light)
    cover = np.clip(0.5 - surface.distance * np.float32(scale), 0, 1)
    cover = _wear(skin, cover, surface, worn, scale)
    background = _paper(cover, light)
    lit = skin * _rgb(light.gain * light.tint)
    image = np.clip(lit, 0, 1.2, out=lit).astype(np.float32)
    image -= np.float32(0.5)
    image *= np.float32(light.contrast)
    image += np.float32(0.5)
    image -= background
    image *= cover
    image += background
    image = gaussian_filter(image, (0, light.blur, light.blur), truncate=3)
    noise = rng.standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32) * np.float32(light.noise)
    image += noise.transpose(2, 0, 1)
    np.clip(image, 0, 1, out=image)
    image *= np.float32(255)
    image += np.float32(0.5)
    return np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))


def _rgb(factors: Any, kind: Any = None) -> np.ndarray:
    """A factor for each colour, (3, 1, 1)."""
    return np.array(factors, kind)[:, None, None]


def _skin(anatomy: Anatomy, surface: Surface, view: str, flush: float) -> np.ndarray:
    place = anatomy.melanin * 3
    tone = np.array([np.interp(place, range(4), _TONES[:, channel]) for channel in range(3)])
    if view == "palmar":
        tone = 0.30 * tone + 0.76 * _PALM * (0.74 + 0.26 * tone[1] / _TONES[0, 1])
    tone = tone * (1 + anatomy.hue)
    red = np.full((HEIGHT, WIDTH), flush, np.float32)
    for field in surface.fingers:  # blood shows at the tips, and on the back at the joints
        tip = _bump((field.along - field.length) ** 2, 0.07)
        red[field.window] += np.where(field.distance < 0.01, tip * np.float32(0.5), 0)
    for pivot in anatomy.pivot[1:]:
        near = surface.grid.around([pivot], REACH * 0.047)
        away = (surface.x[near] - np.float32(pivot[0])) ** 2 + (surface.y[near] - np.float32(pivot[1])) ** 2
        red[near] += np.float32(0.7 if view == "dorsal" else 0.35) * _bump(away, 0.047)
    change = _rgb([0.02, -0.10, -0.085], np.float32)
    return (_rgb(tone, np.float32) * (1 + red * change)).astype(np.float32)


def _grain(skin: np.ndarray, view: str, rng) -> None:
    """Uneven skin: broad patches, blood showing in the palm, and the net of fine furrows that the back has more of."""
    fine = gaussian_filter(rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32), 0.6, truncate=2)
    skin *= 1 + 0.05 * _mottle(rng, 12) + (0.060 if view == "dorsal" else 0.040) * fine
    blood = _mottle(rng, 32) * np.float32(0.025 if view == "dorsal" else 0.040)
    skin *= 1 - blood * _rgb([0.15, 1.0, 0.85], np.float32)


def _lines(skin: np.ndarray, anatomy: Anatomy, surface: Surface, view: str, scale: float) -> None:
    """Creases of the palm, or knuckles and veins of the back, darken the skin."""
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    thin = max(0.0045, 0.60 / scale)  # never thinner than the pixels can carry
    for field in surface.fingers:
        on = (field.distance < 0.006) & (field.along > 0.05)
        part = depth[field.window]
        part[on] = np.maximum(part[on], _finger_lines(anatomy, field, on, view, thin))
    if view == "palmar":
        np.maximum(depth, _palm_lines(anatomy, surface, thin), out=depth)
    else:
        cool = _veins(anatomy, surface)
        skin *= 1 - cool * _rgb([0.16, 0.08, 0.04], np.float32)
    skin *= 1 - np.minimum(depth, 1) * _rgb([0.36, 0.50, 0.52], np.float32)


def _finger_lines(anatomy: Anatomy, field: FingerField, on: np.ndarray, view: str, thin: float) -> np.ndarray:
    """Bent strokes across the finger at its joints, in the finger's own coordinates, at some of its pixels."""
    along, across = field.along[on], field.across[on]
    middle, end = anatomy.joints[field.finger] * field.length
    if view == "palmar":
        bundles = anatomy.finger_lines[field.finger]
        places, counts, reach = [field.length * 0.26, middle, end], [2, 3, 2], 1.0
    else:
        bundles = anatomy.knuckle_lines[field.finger]
        places, counts, reach = [middle, end], [4, 3], 0.72
    if field.finger == THUMB:
        places, counts = places[-2:], counts[-2:]
    total = np.zeros_like(along)
    for place, bundle, count in zip(places, bundles, counts, strict=False):
        for number, (offset, strength, bow, slant) in enumerate(bundle[:count]):
            shift = offset * (0.35 if number == 0 else 1.0)
            fade = strength if number == 0 or view == "dorsal" else strength * 0.5
            line = along - np.float32(place + shift) - np.float32(slant) * across
            line = line - np.float32(bow) * across**2
            side = across / np.float32(field.radius * reach)
            total += np.float32(max(fade, 0.05)) * _bump(line * line, thin) * np.clip(2 - 2 * side * side, 0, 1)
    if view == "dorsal":  # the loose, darker skin over the joint
        for place, dark, long in ((middle, 0.30, 0.030), (end, 0.16, 0.018)):
            ahead = (along - np.float32(place)) / np.float32(long)
            side = across / np.float32(field.radius * 0.62)
            total += np.float32(dark) * _bump(ahead * ahead + side * side, 1.0)
    return total


def _palm_lines(anatomy: Anatomy, surface: Surface, thin: float) -> np.ndarray:
    """Heart, head and life line, and short minor ones."""
    x, y = surface.x, surface.y
    (h0, h1, h2, h3), (m0, m1, m2, m3), (l0, l1, l2, l3) = anatomy.palm_lines
    heart = y + np.float32(0.118 + 0.022 * h0) - np.float32(0.26 + 0.12 * h1) * x
    heart -= np.float32(1.1 + 1.1 * h2) * (x + 0.02) ** 2
    span = _between(x, -0.20, 0.075 + 0.03 * h3)
    total = _fold(heart, 0.50, thin) * span
    head = y + np.float32(0.235 + 0.026 * m0) - np.float32(0.34 + 0.14 * m1) * x
    head += np.float32(0.9 + 0.8 * m2) * (x - 0.05) ** 2
    span = _between(x, -0.11 - 0.03 * m3, 0.175)
    total = np.maximum(total, _fold(head, 0.52, thin) * span)
    across = (x - np.float32(0.175 + 0.014 * l0)) / np.float32(0.165 + 0.022 * l1)
    down = (y + np.float32(0.405 + 0.018 * l2)) / np.float32(0.225 + 0.015 * l3)
    life = (np.hypot(across, down) - 1) * np.float32(0.18)
    span = _between(y, -0.54, -0.19) * (x < 0.17)
    total = np.maximum(total, _fold(life, 0.60, thin * 1.15) * span)
    for cx, cy, angle, length, depth in anatomy.minor_lines:
        near = surface.grid.around([(cx, cy)], REACH * np.hypot(length, thin))
        right, up = x[near] - cx, y[near] - cy
        along = right * np.float32(np.cos(angle)) + up * np.float32(np.sin(angle))
        aside = up * np.float32(np.cos(angle)) - right * np.float32(np.sin(angle))
        stroke = _bump(aside * aside, thin) * _bump(along * along, length)
        total[near] = np.maximum(total[near], np.float32(depth) * stroke)
    return total


def _fold(away: np.ndarray, depth: float, thin: float) -> np.ndarray:
    """A crease with the soft shade of the skin that bends into it."""
    squared = away * away
    return np.float32(depth) * (_bump(squared, thin) + np.float32(0.25) * _bump(squared, 4 * thin))


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """1 inside, fading to 0 over 0.03 at both ends."""
    rising, falling = (values - np.float32(low)) / np.float32(0.03), (np.float32(high) - values) / np.float32(0.03)
    return np.clip(rising, 0, 1) * np.clip(falling, 0, 1)


def _veins(anatomy: Anatomy, surface: Surface) -> np.ndarray:
    total = np.zeros_like(surface.x)
    near = surface.grid.around([(-0.5, -0.375), (0.5, -0.375)], 0.29)
    x, y = surface.x[near], surface.y[near]
    for number, (place, slope, wave, phase, depth) in enumerate(anatomy.veins):
        middle = -0.105 + 0.07 * number + 0.026 * place
        course = np.float32(middle) * (1 + (y + 0.1) * 0.7) + np.float32(0.14 * slope) * (y + 0.3)
        course += np.float32(0.010 * (0.4 + abs(wave))) * np.sin(y * np.float32(17) + np.float32(3 * phase))
        stroke = _bump((x - course) ** 2, 0.012) * _between(y, -0.62, -0.13)
        total[near] = np.maximum(total[near], np.float32(min(abs(depth) * 0.75, 1.2)) * stroke)
    return total


def _marks(skin: np.ndarray, anatomy: Anatomy, surface: Surface, view: str) -> None:
    for mark_x, mark_y, radius, depth in anatomy.marks[int(view == "palmar")]:
        if depth > 0:
            near = surface.grid.around([(mark_x, mark_y)], REACH * radius)
            away = (surface.x[near] - np.float32(mark_x)) ** 2 + (surface.y[near] - np.float32(mark_y)) ** 2
            spot = np.float32(depth) * _bump(away, radius)
            skin[:, *near] *= 1 - spot * _rgb([0.55, 0.70, 0.75], np.float32)


def _nail(skin: np.ndarray, anatomy: Anatomy, field: FingerField, view: str, polish: int) -> None:
    """A nail on the back; from the palm only a sliver of its free edge, when it is polished."""
    radius = field.radius * 0.82
    long, wide = anatomy.nail * radius
    aside = np.float32(0.30 * radius if field.finger == THUMB else 0.0)  # the thumb shows its side
    tip = field.length + radius * 0.84
    if view == "palmar":
        if polish >= 0:
            sliver = np.clip((field.along - np.float32(field.length + radius * 0.80)) / np.float32(0.006), 0, 1)
            sliver *= field.distance < 0.015
            _blend(skin[:, *field.window], sliver, _POLISH[polish])
        return
    forward = (field.along - np.float32(tip - long / 2)) / np.float32(long / 2)
    side = (field.across - aside) / np.float32(wide / 2)
    near = window_of((np.abs(forward) < 1.25) & (np.abs(side) < 1.3))  # beyond, neither plate nor outline is anything
    forward, side = forward[near], side[near]
    edge = 1 - np.sqrt(forward**4 + np.abs(side) ** 3)
    plate = np.clip(edge * 5 + 0.5, 0, 1)
    outline = _bump(edge * edge, 0.17)
    part = skin[:, *field.window][:, *near]
    part *= 1 - 0.16 * outline
    if polish >= 0:
        _blend(part, plate, _POLISH[polish])
        return
    _blend(part, plate * 0.50, np.array([0.93, 0.72, 0.68]))
    _blend(part, plate * np.clip((forward - 0.62) * 6, 0, 1) * 0.55, np.array([0.96, 0.92, 0.86]))


def _blend(part: np.ndarray, share: np.ndarray, colour: np.ndarray) -> None:
    part += share.astype(np.float32) * (_rgb(colour, np.float32) - part)


def _wear(skin: np.ndarray, cover: np.ndarray, surface: Surface, worn: Worn, scale: float) -> np.ndarray:
    """Draw an accessory; a sleeve is wider than the arm, so the covered part is returned."""
    cloth = np.array(worn.cloth)
    if worn.accessory == "ring":
        field = surface.fingers[RING]
        band = np.clip((0.011 - np.abs(field.along - 0.36 * field.length)) * scale + 0.5, 0, 1)
        gleam = 0.75 + 0.5 * _bump((field.across + 0.012) ** 2, 0.012)
        band = band * (field.distance < 0.008)
        _blend(skin[:, *field.window], band, np.array([0.80, 0.62, 0.26]))
        skin[:, *field.window] *= 1 + band.astype(np.float32) * (gleam - 1).astype(np.float32)
    elif worn.accessory == "watch":
        strap = np.clip((0.030 - np.abs(surface.y + 0.60)) * scale + 0.5, 0, 1)
        _blend(skin, strap, cloth * 0.5)
    elif worn.accessory == "sleeve":
        hem = np.clip((-0.545 - surface.y + 0.1 * surface.x) * scale + 0.5, 0, 1)
        folds = 1 + 0.12 * np.sin(surface.x * 38 + 4 * surface.y)
        _blend(skin, hem, cloth)
        skin *= 1 + hem * (folds - 1)
        return np.maximum(cover, hem * np.clip((0.045 - surface.distance) * scale, 0, 1)).astype(np.float32)
    return cover


def _bump(squared: np.ndarray, width: float) -> np.ndarray:
    """exp(-squared / width²) cut to compact support: no denormals, and no libm that differs by platform."""
    rest = squared * np.float32(-0.2 / (width * width))
    rest += 1
    np.maximum(rest, 0, out=rest)
    square = rest * rest
    square *= square
    square *= rest
    return square  # (1 - q/5)^5 is close to exp(-q)


def _relief(surface: Surface, light: Light, scale: float) -> np.ndarray:
    """Roundness: light on the slope of the height field, and less light in the valleys between fingers."""
    height = gaussian_filter(surface.height, 0.8, truncate=2)
    down, right = np.gradient(height * np.float32(scale))
    steep = np.sqrt(right * right + down * down + np.float32(1.2))
    lean = (np.float32(light.direction[0]) * right + np.float32(light.direction[1]) * down) / steep
    flat = np.float32(np.sqrt(1.2)) / steep
    shade = 1 + np.float32(light.relief) * (-lean * 0.60 + (flat - 1) * 0.75)
    valley = 1 - np.clip(height / np.float32(0.036), 0, 1)
    shade = np.clip(shade, 0.42, 1.30)
    return shade * (1 - _rgb([0.42, 0.54, 0.58], np.float32) * (valley * valley))


def _paper(cover: np.ndarray, light: Light) -> np.ndarray:
    """Overexposed white paper, greyer towards some corners, with the hand's shadow."""
    right = np.linspace(0, 1, WIDTH, dtype=np.float32)[None, :]
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None]
    top = light.fog[0] * (1 - right) ** 2 + light.fog[1] * right**2
    low = light.fog[2] * (1 - right) ** 2 + light.fog[3] * right**2
    fog = (1 - down) ** 2 * top + down**2 * low
    sheet = fog * _rgb([0.20, 0.13, 0.12], np.float32)
    np.subtract(1.05, sheet, out=sheet)
    small = np.asarray(Image.fromarray(cover).resize((WIDTH // 4, HEIGHT // 4), Image.Resampling.BOX))
    soft = Image.fromarray(gaussian_filter(small, 1.8)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    right_by, down_by = (round(float(by)) for by in light.shadow_offset)
    reach = 16  # more than any offset
    wide = np.pad(np.asarray(soft), reach, mode="edge")
    cast = wide[reach - down_by : reach - down_by + HEIGHT, reach - right_by : reach - right_by + WIDTH]
    sheet *= 1 - np.float32(light.shadow) * cast * _rgb([1.0, 0.93, 0.90], np.float32)
    sheet *= _rgb(0.8 + 0.2 * np.clip(light.gain * light.tint, 0.6, 1.3))
    return np.minimum(sheet, 1, out=sheet).astype(np.float32)


def _falloff(light: Light) -> np.ndarray:
    """The lamp is nearer to one side: a factor around 1 for each pixel."""
    right = np.linspace(-0.5, 0.5, WIDTH, dtype=np.float32)[None, :]
    down = np.linspace(-0.5, 0.5, HEIGHT, dtype=np.float32)[:, None]
    return 1 + np.float32(light.falloff[0]) * right + np.float32(light.falloff[1]) * down


def _mottle(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise of unit height."""
    grid = rng.standard_normal((cells * 3 // 4, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
