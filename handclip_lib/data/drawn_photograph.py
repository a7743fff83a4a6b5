"""One drawn photograph: who it shows, how the hand is held and lit, and the picture.

Every draw is keyed by (subject, aspect, photograph), so neither the number of processes nor their order
changes a pixel. Between sittings pose, place, light and tint change so strongly that neither raw pixels nor
skin colour give a person away; the shots of one sitting are near-duplicates, as in 11k Hands.
"""

from dataclasses import dataclass

import numpy as np

from handclip_lib.data.drawn_hand import Pose, anatomy_of, generator, surface_of
from handclip_lib.data.drawn_light import Light
from handclip_lib.data.drawn_skin import Worn, render
from handclip_lib.errors import DataError

DRAWN_ASPECTS = ("dorsal_r", "palmar_r", "dorsal_l", "palmar_l")
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


def draw_image(subject_seed: int, aspect: str, photograph: int) -> np.ndarray:
    """Draw one photograph of one person.

    Args:
        subject_seed: non-negative; the person.
        aspect: one of DRAWN_ASPECTS.
        photograph: non-negative; neighbours may belong to one sitting and then differ little.

    Returns:
        uint8 RGB, shape (180, 240, 3).

    Raises:
        DataError: the aspect is unknown, or a number is negative.
    """
    _require_key(subject_seed, aspect, photograph)
    view, side = aspect.split("_")
    anatomy = anatomy_of(subject_seed, "right" if side == "r" else "left")
    shot = shot_of(subject_of(subject_seed), aspect, photograph)
    surface = surface_of(anatomy, shot.pose, mirrored=aspect in ("palmar_r", "dorsal_l"))
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


def shot_of(subject: Subject, aspect: str, photograph: int) -> Shot:
    """Circumstances of a photograph: those of its sitting, moved a little from shot to shot."""
    number = DRAWN_ASPECTS.index(aspect)
    sitting = _sitting(subject.seed, number, photograph)
    day = generator(subject.seed, 4, number, sitting)
    moved = generator(subject.seed, 6, number, photograph)
    chance, change = day.normal(size=40), moved.normal(size=40)
    # Worn things change between sittings; the first is without, so every subject keeps usable photographs.
    wearing, polished = (day.random(2) < [0.55, 0.75]).tolist()
    cloth = day.uniform(0.12, 0.75, 3)
    worn = Worn(
        accessory=subject.wears if wearing and sitting > 0 else "",
        polish=subject.polish if polished else -1,
        cloth=(float(cloth[0]), float(cloth[1]), float(cloth[2])),
    )
    values = chance + 0.16 * change
    return Shot(_pose(values[:20]), _light(values[20:]), worn)


def _pose(values: np.ndarray) -> Pose:
    """Pose from standard normal values; tanh keeps the hand in the picture."""
    scale = 156 * np.exp(0.15 * np.tanh(values[0]))
    down = 74 + 19 * np.tanh(values[1])
    return Pose(
        spread=float(0.75 + 0.95 * np.tanh(values[2])),
        finger=values[3:8] * [0.16, 0.035, 0.025, 0.03, 0.05],
        thumb_bend=float(0.35 + 0.30 * np.tanh(values[8])),
        rotation=float(0.26 * np.tanh(values[9])),
        scale=float(scale),
        centre=(float(120 + 42 * np.tanh(values[10])), float(min(down, 177 - 0.48 * scale))),
    )


def _light(values: np.ndarray) -> Light:
    warm, green = np.tanh(values[1:3])
    return Light(
        gain=float(0.99 * np.exp(0.16 * np.tanh(values[0]))),
        tint=np.exp(warm * np.array([0.09, 0.0, -0.11]) + green * np.array([-0.02, 0.03, -0.01])),
        contrast=float(1.08 + 0.09 * np.tanh(values[4])),
        direction=np.array([0.9 * np.tanh(values[5]), -0.45 + 0.4 * np.tanh(values[6])]),
        relief=float(0.52 + 0.14 * np.tanh(values[7])),
        shadow=float(0.17 + 0.14 * np.tanh(values[8])),
        shadow_offset=np.array([11 * np.tanh(values[9]), 3 + 4 * np.tanh(values[10])]),
        fog=np.maximum(values[11:15] - 0.3, 0) * 0.8,
        blur=float(0.45 + 0.3 * np.tanh(values[15])),
        noise=float(0.010 + 0.006 * np.tanh(values[16])),
        flush=float(0.45 * np.tanh(values[17])),
    )


def _sitting(subject_seed: int, aspect: int, photograph: int) -> int:
    """Which sitting a photograph belongs to: bursts of one to three shots, in order."""
    sizes = generator(subject_seed, 7, aspect).choice([1, 2, 3], p=[0.5, 0.38, 0.12], size=photograph + 1)
    return int(np.searchsorted(np.cumsum(sizes), photograph, side="right"))


def _require_key(subject_seed: int, aspect: str, photograph: int) -> None:
    if aspect not in DRAWN_ASPECTS:
        raise DataError(f"unknown aspect {aspect!r}: choose from {', '.join(DRAWN_ASPECTS)}")
    if subject_seed < 0 or photograph < 0:
        raise DataError(f"subject_seed and photograph must not be negative, got {subject_seed} and {photograph}")
