"""The shape of a drawn hand: what a person keeps, how the hand is held, and the surface that follows.

Lengths are in hand lengths (wrist to middle fingertip = 1). The frame is a right hand seen from the back:
fingers towards +y, thumb towards +x, origin in the palm at the base of the fingers. Other aspects mirror it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

HEIGHT, WIDTH = 180, 240
THUMB, INDEX, MIDDLE, RING, LITTLE = range(5)
# Mean proportions after Garrett (1971), "The adult human hand: some anthropometric considerations".
_LENGTH = np.array([0.515, 0.480, 0.532, 0.492, 0.400])  # from the pivot (thumb: from the wrist)
_RADIUS = np.array([0.060, 0.052, 0.054, 0.050, 0.043])
_PIVOT = np.array([[0.100, -0.46], [0.157, -0.105], [0.053, -0.085], [-0.053, -0.100], [-0.150, -0.145]])
_JOINTS = np.array([[0.40, 0.71], [0.50, 0.76], [0.50, 0.76], [0.50, 0.76], [0.49, 0.74]])
_REST = np.array([0.70, 0.10, 0.0, -0.09, -0.24])  # radians from +y towards +x
_FAN = np.array([0.16, 0.10, 0.015, -0.075, -0.17])  # what one unit of spread adds


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
    veins: np.ndarray  # (4, 5): x, slope, wave, phase, depth
    marks: np.ndarray  # (2, 5, 4): view × mark × (x, y, radius, depth)


def anatomy_of(subject_seed: int, side: str) -> Anatomy:
    """The hand of a subject; both hands share shape and skin, while lines, veins and marks are each hand's own.

    Args:
        subject_seed: non-negative; one person.
        side: "right" or "left".
    """
    person = generator(subject_seed, 1)
    hand = generator(subject_seed, 2, int(side == "left"))
    stout, broad = person.normal(0, [0.08, 0.06])
    length = _LENGTH * (1 + person.normal(0, 0.050, 5) + hand.normal(0, 0.006, 5))
    radius = _RADIUS * (1 + stout + person.normal(0, 0.045, 5) + hand.normal(0, 0.006, 5))
    pivot = _PIVOT * [1 + broad + 0.5 * stout, 1.0] + person.normal(0, 0.008, (5, 2))
    finger_lines = hand.normal(0, 1, (5, 3, 3, 4)) * [0.020, 0.20, 3.0, 0.10] + [0, 0.36, 0, 0]
    knuckle_lines = hand.normal(0, 1, (5, 2, 4, 4)) * [0.022, 0.13, 4.0, 0.10] + [0, 0.17, 0, 0]
    minor = hand.uniform([-0.17, -0.46, 0, 0.03, 0.08], [0.14, -0.06, np.pi, 0.13, 0.26], (9, 5))
    marks = hand.uniform([-0.17, -0.45, 0.004, 0.25], [0.17, 0.15, 0.012, 0.75], (2, 5, 4))
    marks[..., 3] *= hand.random((2, 5)) < [[0.45], [0.15]]
    return Anatomy(
        length=length,
        radius=radius,
        joints=_JOINTS + person.normal(0, 0.014, (5, 2)),
        bulge=np.abs(person.normal(0.05, 0.045, (5, 2))),
        taper=person.normal(0.24, 0.05, 5),
        curve=person.normal(0, 0.05, 5),
        pivot=pivot,
        wrist=0.152 * (1 + broad + 0.6 * stout + person.normal(0, 0.05)),
        thenar=0.098 * (1 + stout + person.normal(0, 0.08)),
        melanin=float(person.beta(2.2, 3.0)),
        hue=person.normal(0, 0.03) * np.array([0.6, 0.1, -1.0]),
        nail=np.array([1.45, 1.27]) * (1 + person.normal(0, 0.10, 2)),
        finger_lines=finger_lines,
        knuckle_lines=knuckle_lines,
        palm_lines=hand.normal(0, 1, (3, 4)),
        minor_lines=minor,
        veins=hand.normal(0, 1, (4, 5)),
        marks=marks,
    )


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


def surface_of(anatomy: Anatomy, pose: Pose, mirrored: bool) -> Surface:
    """Distance field and height of the hand in an image.

    Args:
        anatomy: the person's hand.
        pose: how it is held.
        mirrored: thumb to the left (palmar right and dorsal left).
    """
    x, y = _hand_coordinates(pose, mirrored)
    palm, height = _palm(anatomy, x, y)
    fingers = tuple(_fingers(anatomy, pose, x, y))
    free = np.full_like(palm, 9.0)
    for field in fingers[1:]:
        free[field.window] = np.minimum(free[field.window], field.distance)
        height[field.window] = -_smooth_min(-height[field.window], -field.height, 0.012)
    distance = _smooth_min(palm, free, 0.022)
    thumb = fingers[THUMB]
    distance[thumb.window] = _smooth_min(distance[thumb.window], thumb.distance, 0.07)
    height[thumb.window] = -_smooth_min(-height[thumb.window], -thumb.height, 0.02)
    return Surface(x, y, distance, height, fingers)


def _hand_coordinates(pose: Pose, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    right = (columns - np.float32(pose.centre[0])) / np.float32(pose.scale)
    down = (rows - np.float32(pose.centre[1])) / np.float32(pose.scale)
    if mirrored:
        right = -right
    cos, sin = np.float32(np.cos(pose.rotation)), np.float32(np.sin(pose.rotation))
    return cos * right - sin * down, sin * right + cos * down


def _palm(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forearm, four metacarpals and the two balls of the hand, smoothly joined."""
    wrist, pivot, radius = anatomy.wrist, anatomy.pivot, anatomy.radius
    parts = [((0.0, -0.55), (0.0, -2.6), wrist, wrist * 1.5)]
    for finger in (INDEX, MIDDLE, RING, LITTLE):
        carpal = (float(pivot[finger, 0]) * 0.62, -0.50)
        parts.append((carpal, tuple(pivot[finger]), radius[finger] * 1.40, radius[finger] * 1.10))
    parts.append((tuple(pivot[THUMB] * [0.7, 1.0]), (0.085, -0.25), anatomy.thenar, anatomy.thenar * 0.8))
    parts.append(((-0.085, -0.48), tuple(pivot[LITTLE] + [0.025, -0.03]), 0.068, radius[LITTLE] * 1.25))
    distance, height = _capsule(x, y, *parts[0])
    for part in parts[1:]:
        one, risen = _capsule(x, y, *part)
        distance = _smooth_min(distance, one, 0.07)
        height = -_smooth_min(-height, -risen, 0.10)
    return distance, height


def _fingers(anatomy: Anatomy, pose: Pose, x: np.ndarray, y: np.ndarray) -> Iterator[FingerField]:
    for finger in range(5):
        angle = _REST[finger] + _FAN[finger] * pose.spread + pose.finger[finger]
        turn = anatomy.curve[finger] - (pose.thumb_bend if finger == THUMB else 0.0)
        length, radius = float(anatomy.length[finger]), float(anatomy.radius[finger])
        stops = np.array([0.0, *anatomy.joints[finger], 1.0]) * (length - radius * 0.8)
        angles = angle + turn * np.array([0.0, 1.0, 1.35])
        steps = np.diff(stops)[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        points = anatomy.pivot[finger] + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        window = _window(x, y, points, radius * 2.2)
        yield _finger(anatomy, finger, points, stops, window, x[window], y[window])


def _window(x: np.ndarray, y: np.ndarray, points: np.ndarray, margin: float) -> tuple[slice, slice]:
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    inside = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
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


def _capsule(x, y, start, end, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to a tapered capsule and its height above the table."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - np.float32(start[0]), y - np.float32(start[1])
    share = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(dx * dx + dy * dy), 0, 1)
    away = np.hypot(px - share * np.float32(dx), py - share * np.float32(dy))
    radius = np.float32(first) + share * np.float32(last - first)
    return away - radius, np.sqrt(np.maximum(radius * radius - away * away, 0))


def _smooth_min(one: np.ndarray, other: np.ndarray, width: float) -> np.ndarray:
    """Minimum whose corner is rounded over `width` (Quilez's polynomial smooth minimum)."""
    near = np.maximum(np.float32(width) - np.abs(one - other), 0)
    return np.minimum(one, other) - near * near * np.float32(0.25 / width)
