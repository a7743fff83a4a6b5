"""The shape of a drawn hand: what a person keeps, how the hand is held, and the surface that follows.

Lengths are in hand lengths (wrist to middle fingertip = 1). The frame is a right hand seen from the back:
fingers towards +y, thumb towards +x, origin in the palm at the base of the fingers. Other aspects mirror it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

HEIGHT, WIDTH = 180, 240
THUMB, INDEX, MIDDLE, RING, LITTLE = range(5)
_ROWS, _COLUMNS = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
# Mean proportions after Garrett (1971), "The adult human hand: some anthropometric considerations".
_LENGTH = np.array([0.535, 0.480, 0.532, 0.492, 0.400])  # from the pivot (thumb: from the wrist)
_RADIUS = np.array([0.066, 0.059, 0.061, 0.058, 0.050])
_PIVOT = np.array([[0.110, -0.46], [0.172, -0.105], [0.058, -0.085], [-0.058, -0.100], [-0.166, -0.145]])
_JOINTS = np.array([[0.40, 0.71], [0.50, 0.76], [0.50, 0.76], [0.50, 0.76], [0.49, 0.74]])
_REST = np.array([0.70, 0.065, 0.0, -0.06, -0.15])  # radians from +y towards +x
_MOUNDS = (
    (0.115, -0.36, 0.075, 0.120, 0.045),
    (-0.120, -0.36, 0.060, 0.130, 0.030),
    (-0.125, -0.20, 0.040, 0.060, 0.012),
    (0.02, -0.27, 0.070, 0.090, -0.016),
)  # x, y, width, length, height
_FAR = 0.25  # from a part of the palm, where it rounds no corner of what is drawn
_FAN = np.array([0.16, 0.095, 0.015, -0.070, -0.17])  # what one unit of spread adds


def generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on the key alone, on every machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))


@dataclass(frozen=True)
class Anatomy:
    """Everything that belongs to a person's hand; rows of the arrays follow thumb to little finger."""

    length: np.ndarray  # (5,)
    radius: np.ndarray  # (5,)
    joints: np.ndarray  # (5, 2) fractions of the length
    bulge: np.ndarray  # (5, 2) how far the joints stand out
    taper: np.ndarray  # (5,)
    curve: np.ndarray  # (5,) radians a finger bends sideways at its middle joint
    pivot: np.ndarray  # (5, 2)
    wrist: float  # half width
    thenar: float  # radius of the ball of the thumb
    melanin: float  # 0 (very fair) .. 1 (dark)
    hue: np.ndarray  # (3,) relative shift of red, green, blue
    nail: np.ndarray  # (2,) length and width in finger radii
    finger_lines: np.ndarray  # (5, 3, 3, 4): joint × line × (offset, depth, curvature, slant), palmar
    knuckle_lines: np.ndarray  # (5, 2, 4, 4): the same for the back
    palm_lines: np.ndarray  # (3, 4): heart, head, life × shape
    minor_lines: np.ndarray  # (9, 5): x, y, angle, length, depth
    knuckles: np.ndarray  # (4,) how far the knuckles of the back stand out
    tendons: np.ndarray  # (4,) the same of the tendons that lead to them
    mounds: np.ndarray  # (4, 2) balls of the palm: place and height, in standard units
    veins: np.ndarray  # (4, 5): x, slope, wave, phase, depth
    marks: np.ndarray  # (2, 5, 4): view × mark × (x, y, radius, depth)


@lru_cache(maxsize=4)
def anatomy_of(subject_seed: int, side: str) -> Anatomy:
    """A person's "right" or "left" hand: shape and skin are shared, lines, veins and marks are each hand's own."""
    person = generator(subject_seed, 1)
    hand = generator(subject_seed, 2, int(side == "left"))
    female = generator(subject_seed, 3).random() < 0.6  # as its metadata say
    stout, broad = person.normal(-0.04 if female else 0.06, [0.09, 0.06])
    length = _LENGTH * (1 + person.normal(0, 0.065, 5) + hand.normal(0, 0.006, 5))
    radius = _RADIUS * (1 + stout + person.normal(0, 0.060, 5) + hand.normal(0, 0.006, 5))
    pivot = _PIVOT * [1 + broad + 0.5 * stout, 1.0] + person.normal(0, 0.011, (5, 2))
    finger_lines = hand.normal(0, 1, (5, 3, 3, 4)) * [0.020, 0.20, 3.0, 0.10] + [0, 0.36, 0, 0]
    knuckle_lines = hand.normal(0, 1, (5, 2, 4, 4)) * [0.022, 0.16, 4.0, 0.12] + [0, 0.20, 0, 0]
    minor = hand.uniform([-0.17, -0.46, 0, 0.04, 0.15], [0.14, -0.06, np.pi, 0.16, 0.50], (9, 5))
    marks = hand.uniform([-0.17, -0.45, 0.006, 0.35], [0.17, 0.15, 0.015, 0.85], (2, 5, 4))
    marks[..., 3] *= hand.random((2, 5)) < [[0.60], [0.25]]
    return Anatomy(
        length=length, radius=radius,
        joints=_JOINTS + person.normal(0, 0.020, (5, 2)),
        bulge=np.abs(person.normal(0.04, 0.045, (5, 2))),
        taper=person.normal(0.20, 0.07, 5), curve=person.normal(0, 0.07, 5), pivot=pivot,
        wrist=0.166 * (1 + broad + 0.6 * stout + person.normal(0, 0.08)),
        thenar=0.110 * (1 + stout + person.normal(0, 0.12)),
        melanin=float(person.beta(2.2, 3.0)),
        hue=person.normal(0, 0.03) * np.array([0.6, 0.1, -1.0]),
        nail=np.array([1.45, 1.27]) * (1 + person.normal(0, 0.10, 2)),
        finger_lines=finger_lines, knuckle_lines=knuckle_lines,
        palm_lines=hand.normal(0, 1, (3, 4)), minor_lines=minor,
        knuckles=np.abs(person.normal(0.013, 0.008, 4)),
        tendons=np.abs(person.normal(0.005, 0.005)) * (1 + person.normal(0, 0.3, 4)),
        mounds=person.normal(0, 1, (4, 2)), veins=hand.normal(0, 1, (4, 5)), marks=marks,
    )  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """How a hand is held and where it lies: angles in radians, place and scale in pixels."""

    spread: float
    finger: np.ndarray  # (5,) each finger's own turn
    thumb_bend: float
    rotation: float
    scale: float  # pixels a hand length
    centre: tuple[float, float]  # where the base of the fingers lies


@dataclass(frozen=True)
class FingerField:
    """One finger where it can be seen: a window of the image with the finger's own coordinates."""

    finger: int
    window: tuple[slice, slice]
    along: np.ndarray  # from the pivot to the tip
    across: np.ndarray  # signed, from the axis
    distance: np.ndarray  # signed, negative inside
    height: np.ndarray
    length: float
    radius: float


@dataclass(frozen=True)
class Surface:
    """The hand on the pixel grid: float32 fields of shape (180, 240), in hand lengths."""

    x: np.ndarray
    y: np.ndarray
    distance: np.ndarray
    height: np.ndarray
    fingers: tuple[FingerField, ...]
    grid: "Grid"


@dataclass(frozen=True)
class Grid:
    """Where the pixels lie in the hand's frame: mirrored, the thumb is to the left."""

    pose: Pose
    mirrored: bool

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every pixel, x and y."""
        pose = self.pose
        right = (_COLUMNS - np.float32(pose.centre[0])) / np.float32(pose.scale)
        down = (_ROWS - np.float32(pose.centre[1])) / np.float32(pose.scale)
        if self.mirrored:
            right = -right
        cos, sin = np.float32(np.cos(pose.rotation)), np.float32(np.sin(pose.rotation))
        return cos * right - sin * down, sin * right + cos * down

    def around(self, places: Sequence[Any], reach: float) -> tuple[slice, slice]:
        """A window in which every pixel lies that is nearer to the straight way between places than `reach`."""
        cos, sin, scale = math.cos(self.pose.rotation), math.sin(self.pose.rotation), self.pose.scale
        rows = [scale * (cos * y - sin * x) for x, y in places]
        columns = [scale * (cos * x + sin * y) * (-1 if self.mirrored else 1) for x, y in places]
        more = reach * scale + 1
        (left, top), (wide, high) = self.pose.centre, (columns, rows)
        return _span(top + min(high) - more, top + max(high) + more), _span(
            left + min(wide) - more, left + max(wide) + more
        )


def _span(low: float, high: float) -> slice:
    return slice(max(int(low), 0), max(int(high + 1), 0))


def surface_of(anatomy: Anatomy, pose: Pose, view: str, mirrored: bool) -> Surface:
    """Distance field and height of the hand in an image, "dorsal" or "palmar", whose heights differ.

    Mirrored, the thumb is to the left (palmar right and dorsal left).
    """
    grid = Grid(pose, mirrored)
    x, y = grid.coordinates()
    palm = _palm(anatomy, grid, x, y)
    height = _dome(palm) + _rises(anatomy, view, grid, x, y)
    fingers = tuple(_fingers(anatomy, pose, x, y))
    free, risen = np.full_like(palm, 9.0), np.zeros_like(palm)
    for field in fingers[1:]:
        free[field.window] = np.minimum(free[field.window], field.distance)
        risen[field.window] = np.maximum(risen[field.window], field.height)
    height = -_smooth_min(-height, -risen, 0.02)
    distance = _smooth_min(palm, free, 0.022)
    thumb = fingers[THUMB]
    distance[thumb.window] = _smooth_min(distance[thumb.window], thumb.distance, 0.07)
    height[thumb.window] = -_smooth_min(-height[thumb.window], -thumb.height, 0.04)
    return Surface(x, y, distance, height, fingers, grid)


def _palm(anatomy: Anatomy, grid: Grid, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Outline of forearm, four metacarpals up to the webs, and the two balls of the hand, smoothly joined.

    Far from the hand, where nothing is drawn by it, the distance is some large one.
    """
    wrist, pivot, radius = anatomy.wrist, anatomy.pivot, anatomy.radius
    parts = [((0.0, -0.55), (0.0, -2.6), wrist, wrist * 1.5)]
    for finger in (INDEX, MIDDLE, RING, LITTLE):
        carpal = (float(pivot[finger, 0]) * 0.74, -0.48)
        web = (float(pivot[finger, 0]) * 1.01, float(pivot[finger, 1]) + 0.045)
        parts.append((carpal, web, radius[finger] * 1.35, radius[finger] * 1.04))
    parts.append((tuple(pivot[THUMB] * [0.7, 1.0]), (0.085, -0.25), anatomy.thenar, anatomy.thenar * 0.8))
    parts.append(((-0.085, -0.48), tuple(pivot[LITTLE] + [0.025, -0.03]), 0.068, radius[LITTLE] * 1.25))
    distance = np.full_like(x, 9.0)
    for start, end, first, last in parts:
        near = grid.around([start, end], max(first, last) + _FAR)
        distance[near] = _smooth_min(distance[near], _capsule(x[near], y[near], start, end, first, last), 0.07)
    return distance


def _dome(distance: np.ndarray) -> np.ndarray:
    """Height over the table of a body with rounded edges and a flat top."""
    rest = 1 - np.clip(-distance / np.float32(0.085), 0, 1)
    return np.float32(0.062) * np.sqrt(1 - rest * rest)


def _rises(anatomy: Anatomy, view: str, grid: Grid, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What stands out: knuckles and tendons of the back, the balls and pads of the palm."""
    total = np.zeros_like(x)

    def add(px: float, py: float, wide: float, long: float, risen: float) -> None:
        near = grid.around([(px, py)], 2.1 * max(wide, long))
        total[near] += _hill(x[near] - np.float32(px), y[near] - np.float32(py), wide, long) * np.float32(risen)

    if view == "dorsal":
        for number, (px, py) in enumerate(anatomy.pivot[1:]):
            add(px, py, 0.050, 0.042, anatomy.knuckles[number])
            near = grid.around([(0.03, -0.52), (px, py)], 0.05)
            here, up = x[near], y[near]
            ahead = np.clip((up + np.float32(0.52)) / np.float32(py + 0.52), 0, 1)
            course = np.float32(0.03) + np.float32(px - 0.03) * ahead
            ridge = _hill(here - course, np.zeros_like(here), 0.020, 1) * np.clip((np.float32(py) - up) * 12, 0, 1)
            total[near] += ridge * np.clip((up + np.float32(0.50)) * 6, 0, 1) * np.float32(anatomy.tendons[number])
        return total
    for (px, py, wide, long, risen), (moved, more) in zip(_MOUNDS, anatomy.mounds, strict=True):
        add(px + 0.008 * moved, py, wide, long, risen * (1 + 0.2 * more))
    for px, py in anatomy.pivot[1:]:
        add(px * 0.97, py + 0.02, 0.050, 0.040, 0.010)
    return total


def _hill(x: np.ndarray, y: np.ndarray, wide: float, long: float) -> np.ndarray:
    """A rounded hill of height 1 that ends at twice its width and length."""
    rest = np.maximum(1 - 0.25 * ((x / np.float32(wide)) ** 2 + (y / np.float32(long)) ** 2), 0)
    return rest * rest


def _fingers(anatomy: Anatomy, pose: Pose, x: np.ndarray, y: np.ndarray) -> Iterator[FingerField]:
    angles_of = _REST + _FAN * pose.spread + pose.finger
    angles_of[INDEX] = max(angles_of[INDEX], angles_of[MIDDLE])  # fingers lie side by side, never across each other
    angles_of[RING:] = np.minimum.accumulate(angles_of[MIDDLE:])[1:]
    for finger in range(5):
        angle = angles_of[finger]
        turn = anatomy.curve[finger] - (pose.thumb_bend if finger == THUMB else 0.0)
        length, radius = float(anatomy.length[finger]), float(anatomy.radius[finger])
        stops = np.array([0.0, *anatomy.joints[finger], 1.0]) * (length - radius * 0.8)
        angles = angle + turn * np.array([0.0, 1.0, 1.35])
        steps = np.diff(stops)[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        points = anatomy.pivot[finger] + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        low, high = points.min(axis=0) - radius * 2.2, points.max(axis=0) + radius * 2.2
        window = window_of((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
        yield _finger(anatomy, finger, points, stops, window, x[window], y[window])


def window_of(inside: np.ndarray) -> tuple[slice, slice]:
    """The smallest window that holds all that is inside; of nothing the first pixel's."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _finger(anatomy: Anatomy, finger: int, points, stops, window, x, y) -> FingerField:
    """Three straight phalanges, swollen at the joints; each pixel goes to the nearest one."""
    length, radius = float(stops[-1]), float(anatomy.radius[finger])
    ticks = np.linspace(0, length, 40)
    girth = 1 + 0.03 - anatomy.taper[finger] * ticks / length
    for joint in range(2):
        girth += anatomy.bulge[finger, joint] * np.exp(-(((ticks - stops[joint + 1]) / 0.035) ** 2))
    if finger == THUMB:  # the ball of the thumb, where it leaves the palm
        girth += 0.45 * np.exp(-((ticks / 0.13) ** 2))
    along, across = np.zeros_like(x), np.zeros_like(x)
    off = np.full_like(x, np.inf)
    for phalanx in range(3):
        start, (dx, dy) = points[phalanx], points[phalanx + 1] - points[phalanx]
        size = float(np.hypot(dx, dy))
        dx, dy = np.float32(dx / size), np.float32(dy / size)
        px, py = x - np.float32(start[0]), y - np.float32(start[1])
        forward, sideways = px * dx + py * dy, px * dy - py * dx
        beyond = forward - np.clip(forward, 0, np.float32(size))
        away = np.sqrt(beyond * beyond + sideways * sideways)
        near = away < off
        along = np.where(near, forward + np.float32(stops[phalanx]), along)
        across, off = np.where(near, sideways, across), np.where(near, away, off)
    local = (radius * np.interp(along, ticks, girth)).astype(np.float32)
    distance = off - local
    height = np.sqrt(np.maximum(local * local - off * off, 0))
    return FingerField(finger, window, along, across, distance, height, length, radius)


def _capsule(x, y, start, end, first: float, last: float) -> np.ndarray:
    """Signed distance to a tapered capsule."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - np.float32(start[0]), y - np.float32(start[1])
    share = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(dx * dx + dy * dy), 0, 1)
    away = np.hypot(px - share * np.float32(dx), py - share * np.float32(dy))
    return away - (np.float32(first) + share * np.float32(last - first))


def _smooth_min(one: np.ndarray, other: np.ndarray, width: float) -> np.ndarray:
    """Minimum whose corner is rounded over `width` (Quilez's polynomial smooth minimum)."""
    near = np.maximum(np.float32(width) - np.abs(one - other), 0)
    return np.minimum(one, other) - near * near * np.float32(0.25 / width)
