"""Drawn hands: a data set in the layout of 11k Hands that needs no download and no licence."""

import csv
import glob
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from handclip_lib.drawn.photograph import DRAWN_ASPECTS, SIDES, STAYS, draw_image, shot_of, subject_of
from handclip_lib.errors import DataError
from handclip_lib.files import file_lock, make_folder
from handclip_lib.machine import cores

RECIPE_VERSION = 2
_HEADER = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities\r\n"
_QUALITY = 92
_WORTH_PROCESSES = 100  # images; starting processes costs about as much as drawing these

Row = tuple[str, int, str, str, int, int, str, str, int]


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
        seed: 0 or more.
        workers: Processes, at most the machine's cores; None: all cores, 1: this process.
        stays: See `draw_image`.

    Raises:
        DataError: A number is out of bounds, or the folder holds something that was not drawn here.
    """
    _require_counts(stays, subjects=subjects, images_per_aspect=images_per_aspect, seed=seed, workers=workers)
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
                _refuse_foreign(folder)
                _replace(folder, recipe, progress, workers)
    except OSError as error:
        raise DataError(f"cannot draw into {folder}: {error}; choose a folder you may write to") from error
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


def _require_counts(stays: float, **counts: int | None) -> None:
    for name, value in counts.items():
        least = 0 if name == "seed" else 1
        if value is not None and value < least:
            raise DataError(f"{name} must be at least {least}, got {value}")
    if not 0 <= stays <= 1:
        raise DataError(f"stays must lie in 0..1, got {stays}")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker is importing an unguarded script: drawing here would wait for its own parent.
        raise DataError("draw_dataset was called while a worker started: guard it by if __name__ == '__main__'")


def _refuse_foreign(folder: Path) -> None:
    foreign = folder.exists() and not (folder / "drawn.json").is_file()
    if foreign and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} holds something that was not drawn here: choose an empty or a new folder")


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
    hands, seed, images, stays = folder / "Hands", recipe["seed"], recipe["images_per_aspect"], recipe["stays"]
    left = set(range(recipe["subjects"]))
    processes = min(workers or cores(), cores(), len(left))
    may_start = not multiprocessing.current_process().daemon  # a pool's worker may have no children
    if processes > 1 and may_start and recipe["images"] >= _WORTH_PROCESSES:
        pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
        try:
            tasks = {pool.submit(_draw_subject, hands, seed, number, images, stays): number for number in left}
            for task in as_completed(tasks):
                yield tasks[task], task.result()
                left.discard(tasks[task])
        except BrokenProcessPool:
            pass  # no processes here (an unguarded script, a sandbox): what is left is drawn below
        finally:
            pool.shutdown(cancel_futures=True)
    for number in sorted(left):
        yield number, _draw_subject(hands, seed, number, images, stays)


def _draw_subject(hands: Path, seed: int, number: int, images_per_aspect: int, stays: float) -> list[Row]:
    """Draw and write all photographs of one subject; captures run consecutively over the four aspects."""
    subject = subject_of(subject_seed(seed, number))
    rows: list[Row] = []
    capture = number * images_per_aspect * len(DRAWN_ASPECTS)
    for aspect in DRAWN_ASPECTS:
        view, side = aspect.split("_")
        for photograph in range(images_per_aspect):
            capture += 1
            name = f"Hand_{capture:07d}.jpg"
            image = Image.fromarray(draw_image(subject.seed, aspect, photograph, stays))
            image.save(hands / name, quality=_QUALITY)
            worn = shot_of(subject, aspect, photograph, stays).worn
            accessories, polish = int(worn.accessory != ""), int(worn.polish >= 0)
            about = (f"{number:07d}", subject.age, subject.gender, subject.skin_color, accessories, polish)
            rows.append((*about, f"{view} {SIDES[side]}", name, int(subject.irregular)))
    return rows
