"""One drawn photograph: who it shows, how the hand is held and lit, and the picture.

Every draw is keyed by (subject, aspect, photograph), so neither the number of processes nor their order
changes a pixel. Between sittings pose, place, light and tint change so strongly that neither raw pixels nor
skin colour give a person away; the shots of one sitting are near-duplicates, as in 11k Hands.
"""

from dataclasses import dataclass

import numpy as np

from handclip_lib.drawn.hand import Pose, anatomy_of, generator, surface_of
from handclip_lib.drawn.skin import Light, Worn, render
from handclip_lib.errors import DataError

DRAWN_ASPECTS = ("dorsal_r", "palmar_r", "dorsal_l", "palmar_l")
_RENEWED = np.array([0.15, 0.2, 1, 1, 1, 1, 1, 1, 0.8, 0.4, 0.3] + [0] * 9)  # of the pose, at each burst
STAYS = 0.15  # chance that a burst belongs to the sitting of the burst before it
_CLOTH = ((0.05, 0.05, 0.06), (0.09, 0.10, 0.20), (0.35, 0.04, 0.07), (0.30, 0.30, 0.32), (0.80, 0.79, 0.76),
          (0.16, 0.22, 0.14), (0.28, 0.20, 0.15), (0.62, 0.30, 0.42), (0.20, 0.33, 0.48))  # fmt: skip
SIDES = {"r": "right", "l": "left"}
_SKIN = ("very fair", "fair", "medium", "dark")


@dataclass(frozen=True)
class Subject:
    """A drawn person's metadata."""

    seed: int
    age: int
    gender: str
    skin_color: str
    polish: int  # a colour's number, -1: never wears polish
    wears: str  # accessory worn in some sittings, "" none
    irregular: bool


@dataclass(frozen=True)
class Shot:
    """One photograph's circumstances."""

    pose: Pose
    light: Light
    worn: Worn


def draw_image(subject_seed: int, aspect: str, photograph: int, stays: float = STAYS) -> np.ndarray:
    """Draw one photograph of one person: uint8 RGB, shape (180, 240, 3).

    Args:
        subject_seed: The person, 0 or more.
        aspect: One of DRAWN_ASPECTS.
        photograph: 0 or more; neighbours may belong to one burst and then differ little.
        stays: Chance, 0..1, that a burst belongs to the sitting of the burst before it.

    Raises:
        DataError: The aspect is unknown, or a number is negative.
    """
    if aspect not in DRAWN_ASPECTS:
        raise DataError(f"unknown aspect {aspect!r}: choose from {', '.join(DRAWN_ASPECTS)}")
    if subject_seed < 0 or photograph < 0:
        raise DataError(f"subject_seed and photograph must not be negative, got {subject_seed} and {photograph}")
    view, side = aspect.split("_")
    anatomy = anatomy_of(subject_seed, SIDES[side])
    shot = shot_of(subject_of(subject_seed), aspect, photograph, stays)
    surface = surface_of(anatomy, shot.pose, view, mirrored=aspect in ("palmar_r", "dorsal_l"))
    rng = generator(subject_seed, 5, DRAWN_ASPECTS.index(aspect), photograph)
    return render(anatomy, surface, view, shot.light, shot.worn, shot.pose.scale, rng)


def subject_of(subject_seed: int) -> Subject:
    """Metadata of a person, in the vocabulary of 11k Hands and roughly its proportions."""
    rng = generator(subject_seed, 3)
    female = rng.random() < 0.6
    polish = int(rng.integers(5)) if rng.random() < (0.22 if female else 0.02) else -1
    wears = str(rng.choice(["", "ring", "watch", "sleeve"], p=[0.62, 0.18, 0.06, 0.14]))
    melanin = anatomy_of(subject_seed, "right").melanin
    return Subject(
        seed=subject_seed,
        age=int(np.clip(18 + rng.gamma(1.2, 4.5), 18, 75)),
        gender="female" if female else "male",
        skin_color=_SKIN[int(np.digitize(melanin, [0.14, 0.40, 0.72]))],
        polish=polish,
        wears=wears,
        irregular=bool(rng.random() < 0.015),
    )


def shot_of(subject: Subject, aspect: str, photograph: int, stays: float = STAYS) -> Shot:
    """Circumstances of a photograph: those of its sitting, moved a little from shot to shot."""
    number = DRAWN_ASPECTS.index(aspect)
    sitting, burst = sitting_of(subject.seed, aspect, photograph, stays)
    day = generator(subject.seed, 4, number, sitting)
    held = generator(subject.seed, 8, number, burst)
    moved = generator(subject.seed, 6, number, photograph)
    chance, change, again = day.normal(size=40), moved.normal(size=40), held.normal(size=20)
    # Worn things change between sittings; the first is without, so every subject keeps usable photographs.
    wearing, polished = (day.random(2) < [0.55, 0.75]).tolist()
    worn = Worn(
        accessory=subject.wears if wearing and sitting > 0 else "",
        polish=subject.polish if polished else -1,
        cloth=_CLOTH[day.integers(len(_CLOTH))],
    )
    pose = (1 - _RENEWED) * chance[:20] + np.sqrt(1 - (1 - _RENEWED) ** 2) * again
    return Shot(_pose(pose + 0.16 * change[:20]), _light(chance[20:] + 0.08 * change[20:]), worn)


def sitting_of(subject_seed: int, aspect: str, photograph: int, stays: float = STAYS) -> tuple[int, int]:
    """Sitting and burst of a photograph: bursts of one to three near-duplicates, in order, one or two to a sitting.

    Within a sitting light and clothes stay and the hand is held anew for each burst; between sittings all changes.
    """
    rng = generator(subject_seed, 7, DRAWN_ASPECTS.index(aspect))
    sizes = rng.choice([1, 2, 3], p=[0.5, 0.38, 0.12], size=photograph + 1)
    burst = int(np.searchsorted(np.cumsum(sizes), photograph, side="right"))
    stayed = generator(subject_seed, 9, DRAWN_ASPECTS.index(aspect)).random(burst) < stays
    return burst - int(stayed.sum()), burst


def _pose(values: np.ndarray) -> Pose:
    """Pose from standard normal values; tanh keeps the hand in the picture."""
    scale = 152 * np.exp(0.15 * np.tanh(values[0]))
    down = 80 + 17 * np.tanh(values[1])
    return Pose(
        spread=float(0.50 + 0.90 * np.tanh(values[2])),
        finger=np.tanh(values[3:8] / 2) * 2 * [0.12, 0.035, 0.025, 0.03, 0.05],
        thumb_bend=float(0.26 + 0.20 * np.tanh(values[8])),
        rotation=float(0.22 * np.tanh(values[9])),
        scale=float(scale),
        centre=(float(120 + 28 * np.tanh(values[10])), float(min(down, 177 - 0.48 * scale))),
    )


def _light(values: np.ndarray) -> Light:
    warm, green = np.tanh(values[1:3])
    return Light(
        gain=float(0.99 * np.exp(0.26 * np.tanh(values[0]))),
        tint=np.exp(warm * np.array([0.09, 0.0, -0.12]) + green * np.array([-0.02, 0.03, -0.01])),
        contrast=float(1.22 + 0.14 * np.tanh(values[4])),
        direction=np.array([0.65 * np.tanh(values[5]), -0.45 + 0.4 * np.tanh(values[6])]),
        relief=float(0.80 + 0.22 * np.tanh(values[7])),
        falloff=np.array([0.25 * np.tanh(values[18]), 0.30 + 0.30 * np.tanh(values[19])]),
        shadow=float(0.17 + 0.14 * np.tanh(values[8])),
        shadow_offset=np.array([11 * np.tanh(values[9]), 3 + 4 * np.tanh(values[10])]),
        fog=np.maximum(values[11:15] - 0.3, 0) * 0.6,
        blur=float(0.45 + 0.3 * np.tanh(values[15])),
        noise=float(0.010 + 0.006 * np.tanh(values[16])),
        flush=float(0.45 * np.tanh(values[17])),
    )
