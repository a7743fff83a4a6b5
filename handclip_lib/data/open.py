"""Open a data set by name; readers of those that this field uses, each in its published layout, are here."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from handclip_lib.data.content import files_below
from handclip_lib.data.decoder import Resolution, file_fault, is_image
from handclip_lib.data.folder import read_folder
from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.labels import read_hands11k, read_labels
from handclip_lib.data.layout import LAYOUTS, aspect_columns, named_set, number_captures
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.survey import POOR, measure_quality, reasons, survey
from handclip_lib.data.table import ASPECTS, SIDES, HandTable, is_distractor, misplaced
from handclip_lib.errors import DataError
from handclip_lib.parameters.parts import Data
from handclip_lib.parameters.sets import NamedSet
from handclip_lib.places import (
    HD_DISTRACTORS,
    HD_IDENTITIES,
    LABELS,
    METADATA,
    PHOTOGRAPHS,
    cache_folder,
    find_data_root,
)

CAUTIONS = {
    "drawn": "Synthetic: the hands are drawn, so no figure here is a result about people.",
    "hagrid": "The photographs show faces and rooms: no figure here is about hands alone.",
    "tongji": "Which palms are one person's is not published: a split may part the two palms of a person.",
}
"""What must be said with every figure on a data set."""
DISTRACTOR_OFFSET = 1000
TONGJI_IMAGES = 10
"""Of each palm in each session."""


def read_hd(root: Path | str) -> HandTable:
    """Read the PolyU Hand Dorsal data set; the identity is the number before the first underscore of a file's name.

    The images of `502-712` are distractors: gallery images of other people, whose identity is their number + 1000.

    Raises:
        DataError: The two folders are absent or hold no image.

    Source: Kumar & Xu, "Personal Identification using Minor Knuckle Patterns", CVPR Workshops 2014.
    """
    root = Path(root).absolute()
    if not (root / HD_IDENTITIES).is_dir():
        needs = "name the folder that holds 'Original Images'"
        raise DataError(misplaced(root, HD_IDENTITIES, f"no folder {HD_IDENTITIES!r}", needs))
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for folder, offset in ((HD_IDENTITIES, 0), (HD_DISTRACTORS, DISTRACTOR_OFFSET)):
        for file in sorted(root.joinpath(folder).glob("*")):
            path, number = f"{folder}/{file.name}", re.match(r"([0-9]+)_", file.name)
            if file.name.startswith(".") or not file.is_file():
                continue
            if fault := file_fault(file):
                left_out[path] = fault
            elif number is None:
                left_out[path] = "its name does not begin with a number and an underscore"
            else:
                rows.append({"path": path, "identity": str(int(number[1]) + offset), "view": "dorsal"})
    notes = [number_captures(rows)]
    if not (root / HD_DISTRACTORS).is_dir():
        without = "the gallery has no distractors, which makes the task easier than published"
        notes.append(f"{HD_DISTRACTORS!r} is absent: {without}")
    return HandTable.build("hd", root, rows, left_out, notes=filter(None, notes))


def tongji_row(found: re.Match[str]) -> dict[str, object]:
    """Of the Tongji contactless palmprint data set, its photographs or its regions of interest.

    600 palms in two sessions, ten photographs of a palm in each, numbered through: `session1/00001` to `00010` are
    palm 1. Which two palms are one person's is not published, so each palm is its own subject.

    Source: Zhang et al., "Towards contactless palmprint recognition", Pattern Recognition 69 (2017);
    https://cslinzhang.github.io/ContactlessPalm; (number - 1) // 10 as in published code for it.
    """
    palm = (int(found["number"]) - 1) // TONGJI_IMAGES + 1
    return {"identity": f"{palm:03d}", "view": "palmar", "session": found["session"]}


def iitd_row(found: re.Match[str]) -> dict[str, object]:
    """Of the IIT Delhi touchless palmprint database, version 1: each palm is an identity.

    `Left/001_1.bmp` (of `Segmented/`), or `Left Hand/001_1.JPG` for the whole photographs; where both are there, the
    whole ones are read.

    Source: Kumar, "Incorporating cohort information for reliable palmprint authentication", ICVGIP 2008;
    folders and names as in published code for it (tpa-cnn of Stoimchev et al., and others).
    """
    return _palm(found["subject"], found["side"].lower())


def casia_row(found: re.Match[str]) -> dict[str, object]:
    """Of the CASIA palmprint database, version 1: each palm is an identity.

    `XXXX/XXXX_(m|f)_(l|r)_XX.jpg`: the person, gender, the hand, and the number of the photograph; with or without the
    folder.

    Source: CASIA-PalmprintV1, "Image Formats and Download Instructions".
    """
    return _palm(found["subject"], SIDES[found["side"]]) | {"gender": {"m": "male", "f": "female"}[found["gender"]]}


def _palm(subject: str, side: str) -> dict[str, object]:
    return {"subject": subject, **aspect_columns(f"palmar_{side[0]}"), "identity": f"{subject} {side}"}


def read_hagrid(root: Path | str) -> HandTable:
    """Read HaGRID photographs whose annotations say which user each shows.

    The JSON files below the folder map a photograph's name without suffix to its facts, of which `user_id` and
    `leading_hand` are read; the folder a photograph lies in is its gesture.

    Source: Kapitanov et al., "HaGRID - HAnd Gesture Recognition Image Dataset", WACV 2024; the project's README.
    """
    root = Path(root).absolute()
    facts: dict[str, dict[str, Any]] = {}
    for path in files_below(root).files:
        if path.endswith(".json"):
            try:
                read = json.loads((root / path).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise DataError(f"{root / path} cannot be read as JSON ({error}); download it again") from error
            items = read.items() if isinstance(read, dict) else ()
            facts |= {name: about for name, about in items if isinstance(about, dict) and "user_id" in about}
    if not facts:
        raise DataError(f"{root} holds no JSON file of annotations with a user_id; put HaGRID's beside the photographs")

    def row(found: re.Match[str]) -> dict[str, object] | str:
        known = facts.get(found["key"])
        if known is None:
            return "no annotation says whom it shows"
        gesture = found.string.rpartition("/")[0].rpartition("/")[2]
        return {"identity": str(known["user_id"]), "side": str(known.get("leading_hand", "")), "gesture": gesture}

    return _read("hagrid", row, root)


def _read(name: str, row_of: Callable[[re.Match[str]], dict[str, object] | str], root: Path | str) -> HandTable:
    """Rows of the photographs whose paths have the set's layout; `row_of` gives one, or the reason there is none."""
    root = Path(root).absolute()
    example, pattern = LAYOUTS[name]
    found = files_below(root)
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    whole = any(pattern.fullmatch(path) and "Segmented/" not in path for path in found.files)
    for path in found.files:
        match = pattern.fullmatch(path)
        if match is None:
            if is_image(path):
                left_out[path] = f"its name is none of the set's ({example})"
            continue
        row = file_fault(root / path) or row_of(match)
        if name == "iitd" and whole and "Segmented/" in path:
            row = "it was cut out of a photograph that is read; to read these name the folder Segmented"
        if isinstance(row, str):
            left_out[path] = row
        else:
            rows.append({"path": path} | row)
    if not rows and not left_out:
        raise DataError(f"{root} holds no photograph of {name}'s layout ({example}); name the folder of the set")
    return HandTable.build(name, root, rows, left_out, notes=[CAUTIONS[name]] if name in CAUTIONS else [])


READERS: dict[str, Callable[..., HandTable]] = {
    "11k": read_hands11k, "hd": read_hd, "folder": read_folder, "csv": read_labels,
    "tongji": partial(_read, "tongji", tongji_row), "iitd": partial(_read, "iitd", iitd_row),
    "casia": partial(_read, "casia", casia_row), "hagrid": read_hagrid,
}  # fmt: skip
DATASETS = ("drawn", *READERS)
OPENED_BY = (
    "dataset", "data_root", "drawn_subjects", "drawn_images", "identity", "identity_level", "session_level",
)  # fmt: skip
"""Parameters of `Data` that say which table is opened."""


def open_dataset(
    dataset: str, data_root: str = "", *, drawn_subjects: int = 140, drawn_images: int = 5, seed: int = 0,
    identity: str = "auto", identity_level: int = 0, session_level: int = 0,
) -> HandTable:  # fmt: skip
    """Open a data set as one table.

    Args:
        dataset: One of `DATASETS`; "drawn" is drawn once into the cache.
        data_root: Folder of the photographs, absolute, or relative to the working folder or the project's.
        drawn_subjects, drawn_images, seed: Of drawn hands: people, photographs of each aspect, and what draws them.
        identity: "subject", "hand": a left and a right hand are two identities, or "auto": as the set is published.
        identity_level, session_level: Of data set folder, as `read_folder` takes them.

    Raises:
        DataError: The name is unknown, or the folder is not such a data set.
    """
    if dataset == "drawn":
        from handclip_lib.drawn.dataset import draw_dataset

        folder = cache_folder() / "drawn" / f"{drawn_subjects}x{drawn_images}-seed{seed}"
        root = draw_dataset(folder, subjects=drawn_subjects, images_per_aspect=drawn_images, seed=seed)
        return identified_by(read_hands11k(root, dataset="drawn"), identity)
    if dataset not in READERS:
        near = get_close_matches(dataset.lower(), DATASETS, 1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"unknown dataset {dataset!r}; {hint}choose from {', '.join(DATASETS)}")
    root = find_data_root(data_root)
    levels = {"identity_level": identity_level, "session_level": session_level} if dataset == "folder" else {}
    try:
        return identified_by(READERS[dataset](root, **levels), identity)
    except OSError as error:
        raise DataError(
            f"{root} cannot be read ({error}); make its files readable or name another data_root"
        ) from error


def identified_by(table: HandTable, what: str) -> HandTable:
    """The table whose identities are its subjects or their hands; `what` as `open_dataset` takes `identity`.

    Raises:
        DataError: The hand of an image is not known.
    """
    images = table.images
    if what == "auto":
        return table
    if what == "subject":
        return replace(table, images=images.assign(identity=images["subject"]))
    if (images["side"] == "").any():
        path = images["path"][images["side"] == ""].iloc[0]
        raise DataError(f"identity='hand': of {path} it is not known which hand it shows; use identity='subject'")
    return replace(table, images=images.assign(identity=images["subject"] + " " + images["side"]))


def recognised(root: Path) -> str:
    """Name the data set whose layout a folder has, or which holds the folder; "folder" when it has none."""
    try:
        near = [root, *sorted(folder for folder in root.iterdir() if folder.is_dir())]
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error}); make it readable or name another folder") from error
    # Trees of splits are written into the data set's folder, so only Hands/ itself belongs to the folder above it.
    if any((folder / METADATA).is_file() for folder in [*near, *[root.parent] * (root.name == PHOTOGRAPHS)]):
        return "11k"
    original = HD_IDENTITIES.split("/")[0]
    if original in root.parts or any((folder / HD_IDENTITIES).is_dir() for folder in near):
        return "hd"
    if (root / LABELS).is_file():
        return "csv"
    images = [path for path in files_below(root).files if is_image(path) and not file_fault(path)]
    return named_set(images) or "folder"


def open_table(config: Data) -> HandTable:
    """The data set that a notebook's parameters name; no image of it was looked at."""
    return open_dataset(
        config.dataset, config.data_root, drawn_subjects=config.drawn_subjects, drawn_images=config.drawn_images,
        identity=config.identity, identity_level=config.identity_level, session_level=config.session_level,
    )  # fmt: skip


def open_extra(named: NamedSet, aspect: str, **opened: Any) -> HandTable:
    """What trains of a data set beside a notebook's own: all its people in one aspect, less distractors.

    Photographs with accessories do not, nor people whom its own folders or table test. One that records no aspect is
    taken whole.

    Args:
        aspect: Where `named` has none.
        opened: As `open_dataset` takes it.

    Raises:
        DataError: It cannot be opened, or nothing of it trains.
    """
    table = open_dataset(named.dataset, named.data_root, **opened)
    images, aspect = table.images, named.aspect or aspect
    there = [name for name in ASPECTS if (images["aspect"] == name).any()]
    own = images[images["aspect"] == aspect] if there and aspect != "all" else images
    if own.empty:
        other = f"it has {', '.join(there)}: name one behind the folder, or all: {named._replace(aspect=there[0])}"
        raise DataError(f"{table.root} has no photograph of aspect {aspect!r}; {other}")
    worn = own["accessories"].fillna(False).astype(bool)
    trains = ~worn & ~is_distractor(own)
    if (given := table.given_split) is not None:
        trains &= own["path"].isin(given.loc[given["role"].isin(["train", "val"]), "path"])
    if not trains.any():
        why = f"of {len(own)} photographs {int(worn.sum())} show accessories, and the others are of people to be tested"
        raise DataError(f"nothing of {table.root} trains: {why} or of the gallery alone; name another set")
    notes = [f"{int(worn.sum())} images with accessories left out"] if worn.any() else []
    return replace(table, images=own[trains].reset_index(drop=True), notes=(*table.notes, *notes))


def open_images(
    config: Data, resolution: Resolution, interpolation: str = "bicubic", *, progress: bool = True
) -> tuple[HandTable, DecodedImages, Split]:
    """What a notebook's parameters name: the table of what can be read, its images, and the split.

    Raises:
        DataError: There is no such data set, or the protocol does not fit it.
    """
    table, images = decode_table(open_table(config), config, resolution, interpolation, progress=progress)
    return table, images, make_split(table, config.aspect, config.protocol, config.seed, config.draws)


def decode_table(
    table: HandTable, config: Data, resolution: Resolution, interpolation: str = "bicubic", *, progress: bool = True
) -> tuple[HandTable, DecodedImages]:
    """The images of a table as a notebook's parameters want them, and the table of those that can be used."""
    paths = list(table.images["path"])
    seen = survey(table.root, paths, config.sample_range, progress)
    images = decode_images(
        table.root, paths, resolution, config.fit, progress=progress, exact=config.decode == "exact", seen=seen,
        interpolation=interpolation,
    )  # fmt: skip
    table = replace(table.without(images.failures), notes=(*table.notes, *seen.notes))
    if config.quality == "drop":
        measured = measure_quality(seen, images.paths, progress)
        table = table.without(reasons(measured, *POOR))
    return table, images
