"""Drawn hands: photographs of drawn people, and a data set of them in the layout of 11k Hands.

Every draw is keyed by (subject, aspect, photograph), so neither the number of processes nor their order changes a
pixel. Between sittings pose, place, light and tint change so strongly that neither raw pixels nor skin colour give a
person away; the shots of one sitting are near-duplicates, as in 11k Hands.
"""

import csv
import glob
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from handclip_lib.drawn.hand import Pose, anatomy_of, generator, surface_of
from handclip_lib.drawn.skin import Light, Worn, render
from handclip_lib.errors import DataError
from handclip_lib.files import REMEDY, file_lock, make_folder
from handclip_lib.machine import cores

DRAWN_ASPECTS = ("dorsal_r", "palmar_r", "dorsal_l", "palmar_l")
_RENEWED = np.array([0.15, 0.2, 1, 1, 1, 1, 1, 1, 0.8, 0.4, 0.3] + [0] * 9)  # of the pose, at each burst
STAYS = 0.15  # chance that a burst belongs to the sitting of the burst before it
_CLOTH = ((0.05, 0.05, 0.06), (0.09, 0.10, 0.20), (0.35, 0.04, 0.07), (0.30, 0.30, 0.32), (0.80, 0.79, 0.76),
          (0.16, 0.22, 0.14), (0.28, 0.20, 0.15), (0.62, 0.30, 0.42), (0.20, 0.33, 0.48))  # fmt: skip
SIDES = {"r": "right", "l": "left"}
_SKIN = ("very fair", "fair", "medium", "dark")
RECIPE_VERSION = 2
TINY_SEED = 10_000
"""Of the people whose hands `tiny` learnt: a drawn data set's people follow from its seed, and its default is 0."""
_HEADER = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities\r\n"
_QUALITY = 92
_WORTH_PROCESSES = 100  # images; starting processes costs about as much as drawing these

Row = tuple[str, int, str, str, int, int, str, str, int]


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
    """Draw one photograph of one person: uint8 RGB, shape (180, 240, 3), or a DataError for no such photograph.

    Photographs that are neighbours may belong to one burst and then differ little; `stays` is as `STAYS`.
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


@lru_cache(maxsize=4)
def subject_of(subject_seed: int) -> Subject:
    """Metadata of a person, in the vocabulary of 11k Hands and roughly its proportions."""
    rng = generator(subject_seed, 3)
    female = rng.random() < 0.6
    polish = int(rng.integers(5)) if rng.random() < (0.22 if female else 0.02) else -1
    wears = str(rng.choice(["", "ring", "watch", "sleeve"], p=[0.62, 0.18, 0.06, 0.14]))
    melanin = anatomy_of(subject_seed, "right").melanin
    age = int(np.clip(18 + rng.gamma(1.2, 4.5), 18, 75))
    skin_color = _SKIN[int(np.digitize(melanin, [0.14, 0.40, 0.72]))]
    gender, irregular = "female" if female else "male", bool(rng.random() < 0.015)
    return Subject(subject_seed, age, gender, skin_color, polish, wears, irregular)


@lru_cache(maxsize=4)
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


def subject_seed(seed: int, number: int) -> int:
    """The key of the `number`-th subject of the data set drawn with `seed`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def draw_dataset(
    folder: Path, subjects: int = 140, images_per_aspect: int = 5, seed: int = 0, progress: bool = True,
    workers: int | None = None, stays: float = STAYS,
) -> Path:  # fmt: skip
    """Draw a data set in the layout of 11k Hands: `Hands/*.jpg`, `HandInfo.csv` and the recipe, `drawn.json`.

    A complete folder of the same recipe is kept. Anything else is drawn into a private folder beside it and
    put in place by one rename, so an interruption leaves no half-drawn data set.

    Args:
        folder: Returned as an absolute path; its parent is made when absent.
        subjects, images_per_aspect: People, and photographs of each in each of the four aspects, at least 1.
        workers: Processes, at most the machine's cores; None: all cores, 1: this process.

    Raises:
        DataError: A number is out of bounds, or the folder holds something that was not drawn here.
    """
    if min(subjects, images_per_aspect, seed + 1) < 1:
        counts = f"subjects={subjects}, images_per_aspect={images_per_aspect}, seed={seed}"
        raise DataError(f"{counts}: give at least 1, 1 and 0")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker is importing an unguarded script: drawing here would wait for its own parent.
        raise DataError("draw_dataset was called while a worker started: guard it by if __name__ == '__main__'")
    folder = Path(folder).absolute()
    recipe = {
        "version": RECIPE_VERSION, "subjects": subjects, "images_per_aspect": images_per_aspect, "seed": seed,
        "stays": stays, "images": subjects * images_per_aspect * len(DRAWN_ASPECTS),
    }  # fmt: skip
    if is_drawn(folder, recipe):
        return folder
    try:
        make_folder(folder.parent)
        with file_lock(folder.parent / f".{folder.name}.lock"):
            if not is_drawn(folder, recipe):  # another process may have drawn it meanwhile
                foreign = folder.exists() and not (folder / "drawn.json").is_file()
                if foreign and (not folder.is_dir() or any(folder.iterdir())):
                    raise DataError(
                        f"{folder} holds something that was not drawn here: choose an empty or a new folder"
                    )
                _replace(folder, recipe, progress, workers)
    except OSError as error:
        raise DataError(f"cannot draw into {folder}: {error}; {REMEDY}") from error
    return folder


def is_drawn(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether a folder holds the complete data set of a recipe (as `drawn.json` records it)."""
    try:
        if json.loads((folder / "drawn.json").read_text()) != recipe:
            return False
        drawn = sum(1 for path in (folder / "Hands").iterdir() if path.suffix == ".jpg")
    except (OSError, ValueError):
        return False
    return drawn == recipe["images"] and (folder / "HandInfo.csv").is_file()


def _replace(folder: Path, recipe: dict[str, Any], progress: bool, workers: int | None) -> None:
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.drawing-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    private = folder.parent / f".{folder.name}.drawing-{os.getpid()}"
    try:
        _draw_into(private / "new", recipe, progress, workers)
        if folder.exists():
            folder.replace(private / "replaced")
        (private / "new").replace(folder)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _draw_into(folder: Path, recipe: dict[str, Any], progress: bool, workers: int | None) -> None:
    (folder / "Hands").mkdir(parents=True)
    rows: dict[int, list[Row]] = {}
    with tqdm(total=recipe["images"], desc="drawing hands", unit="image", disable=not progress) as bar:
        for number, drawn in _draw_subjects(folder, recipe, workers):
            rows[number] = drawn
            bar.update(len(drawn))
    with (folder / "HandInfo.csv").open("w", newline="") as file:
        file.write(_HEADER)
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)  # as 11k Hands is published
        for number in sorted(rows):
            writer.writerows(rows[number])
    (folder / "drawn.json").write_text(json.dumps(recipe, indent=2) + "\n")


def _draw_subjects(folder: Path, recipe: dict[str, Any], workers: int | None) -> Iterator[tuple[int, list[Row]]]:
    """Draw every subject, in processes where that pays; yields (number, rows) in any order."""
    left = set(range(recipe["subjects"]))
    processes = min(workers or cores(), cores(), len(left))
    may_start = not multiprocessing.current_process().daemon  # a pool's worker may have no children
    if processes > 1 and may_start and recipe["images"] >= _WORTH_PROCESSES:
        pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
        try:
            tasks = {pool.submit(_draw_subject, folder, recipe, number): number for number in left}
            for task in as_completed(tasks):
                yield tasks[task], task.result()
                left.discard(tasks[task])
        except BrokenProcessPool:
            pass  # no processes here (an unguarded script, a sandbox): what is left is drawn below
        finally:
            pool.shutdown(cancel_futures=True)
    for number in sorted(left):
        yield number, _draw_subject(folder, recipe, number)


def _draw_subject(folder: Path, recipe: dict[str, Any], number: int) -> list[Row]:
    """Draw and write all photographs of one subject; captures run consecutively over the four aspects."""
    subject, stays = subject_of(subject_seed(recipe["seed"], number)), recipe["stays"]
    rows: list[Row] = []
    capture = number * recipe["images_per_aspect"] * len(DRAWN_ASPECTS)
    for aspect in DRAWN_ASPECTS:
        view, side = aspect.split("_")
        for photograph in range(recipe["images_per_aspect"]):
            capture += 1
            name = f"Hand_{capture:07d}.jpg"
            image = Image.fromarray(draw_image(subject.seed, aspect, photograph, stays))
            image.save(folder / "Hands" / name, quality=_QUALITY)
            worn = shot_of(subject, aspect, photograph, stays).worn
            accessories, polish = int(worn.accessory != ""), int(worn.polish >= 0)
            about = (f"{number:07d}", subject.age, subject.gender, subject.skin_color, accessories, polish)
            rows.append((*about, f"{view} {SIDES[side]}", name, int(subject.irregular)))
    return rows
