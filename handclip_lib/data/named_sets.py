"""Data sets that this field uses, each read by its name in its published layout: HD, and sets of palms and gestures."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handclip_lib.data.content import files_below
from handclip_lib.data.layout import aspect_columns, number_captures
from handclip_lib.data.table import IMAGE_SUFFIXES, HandTable, file_fault, misplaced
from handclip_lib.errors import DataError
from handclip_lib.places import HD_DISTRACTORS, HD_IDENTITIES

DISTRACTOR_OFFSET = 1000
TONGJI_IMAGES = 10
"""Of each palm in each session."""
LAYOUTS = {
    "tongji": re.compile(r"(?:.*/)?(?P<session>session[12])/(?P<number>[0-9]{5})(?:\.\w+)+"),
    "iitd": re.compile(
        r"(?:.*/)?(?P<side>Left|Right)(?: Hand)?/(?P<subject>[0-9]{1,3})_[0-9]{1,2}(?:\.\w+)+", re.IGNORECASE
    ),
    "casia": re.compile(r"(?:.*/)?(?P<subject>[0-9]{4})_(?P<gender>[mf])_(?P<side>[lr])_[0-9]{2}(?:\.\w+)+"),
    "hagrid": re.compile(r"(?:.*/)?(?P<key>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.\w+"),
}
"""Paths of the photographs of each set, below its folder."""
WRITTEN = {
    "tongji": "session1/00001.bmp",
    "iitd": "Left/001_1.bmp",
    "casia": "0001_m_l_01.jpg",
    "hagrid": "<gesture>/<key>.jpg, beside JSON files of annotations",
}


def named_set(paths: Sequence[str]) -> str:
    """The set whose layout nine in ten photographs have, or ""."""
    for name, pattern in LAYOUTS.items():
        if paths and sum(pattern.fullmatch(path) is not None for path in paths) >= 0.9 * len(paths):
            return name
    return ""


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


def read_tongji(root: Path | str) -> HandTable:
    """Read the Tongji contactless palmprint data set, its photographs or its regions of interest.

    600 palms in two sessions, ten photographs of a palm in each, numbered through: `session1/00001` to `00010` are
    palm 1. Which two palms are one person's is not published, so each palm is its own subject.

    Source: Zhang et al., "Towards contactless palmprint recognition", Pattern Recognition 69 (2017);
    https://cslinzhang.github.io/ContactlessPalm; (number - 1) // 10 as in published code for it.
    """

    def row(found: re.Match[str]) -> dict[str, object]:
        palm = (int(found["number"]) - 1) // TONGJI_IMAGES + 1
        return {"identity": f"{palm:03d}", "view": "palmar", "session": found["session"]}

    note = "which palms are one person's is not published: a split may part the two palms of a person"
    return _read("tongji", root, row, [note])


def read_iitd(root: Path | str) -> HandTable:
    """Read the IIT Delhi touchless palmprint database, version 1: each palm is an identity.

    `Left/001_1.bmp` (of `Segmented/`), or `Left Hand/001_1.JPG` for the whole photographs; where both are there, the
    whole ones are read.

    Source: Kumar, "Incorporating cohort information for reliable palmprint authentication", ICVGIP 2008;
    folders and names as in published code for it (tpa-cnn of Stoimchev et al., and others).
    """

    def row(found: re.Match[str]) -> dict[str, object]:
        side = found["side"].lower()
        return {"subject": found["subject"], **aspect_columns(f"palmar_{side[0]}"), "identity": _hand(found, side)}

    return _read("iitd", root, row, [])


def read_casia(root: Path | str) -> HandTable:
    """Read the CASIA palmprint database, version 1: each palm is an identity.

    `XXXX/XXXX_(m|f)_(l|r)_XX.jpg`: the person, gender, the hand, and the number of the photograph; with or without the
    folder.

    Source: CASIA-PalmprintV1, "Image Formats and Download Instructions".
    """

    def row(found: re.Match[str]) -> dict[str, object]:
        side = {"l": "left", "r": "right"}[found["side"]]
        gender = {"m": "male", "f": "female"}[found["gender"]]
        aspect = aspect_columns(f"palmar_{side[0]}")
        return {"subject": found["subject"], **aspect, "gender": gender, "identity": _hand(found, side)}

    return _read("casia", root, row, [])


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
            facts |= _annotations(root / path)
    if not facts:
        raise DataError(f"{root} holds no JSON file of annotations with a user_id; put HaGRID's beside the photographs")

    def row(found: re.Match[str]) -> dict[str, object] | str:
        known = facts.get(found["key"])
        if known is None:
            return "no annotation says whom it shows"
        gesture = found.string.rpartition("/")[0].rpartition("/")[2]
        return {"identity": str(known["user_id"]), "side": str(known.get("leading_hand", "")), "gesture": gesture}

    note = "the photographs show faces and rooms: figures on whole photographs are not about hands"
    return _read("hagrid", root, row, [note])


def _annotations(file: Path) -> dict[str, dict[str, Any]]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}); download it again") from error
    items = read.items() if isinstance(read, dict) else ()
    return {name: facts for name, facts in items if isinstance(facts, dict) and "user_id" in facts}


def _hand(found: re.Match[str], side: str) -> str:
    return f"{found['subject']} {side}"


def _read(
    name: str, root: Path | str, row_of: Callable[[re.Match[str]], dict[str, object] | str], notes: list[str]
) -> HandTable:
    """Rows of the photographs whose paths have the set's layout; `row_of` gives one, or the reason there is none."""
    root = Path(root).absolute()
    found = files_below(root)
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    whole = any(LAYOUTS[name].fullmatch(path) and "Segmented/" not in path for path in found.files)
    for path in found.files:
        match = LAYOUTS[name].fullmatch(path)
        if match is None:
            if Path(path).suffix.lower() in IMAGE_SUFFIXES:
                left_out[path] = f"its name is none of the set's ({WRITTEN[name]})"
            continue
        row = file_fault(root / path) or row_of(match)
        if name == "iitd" and whole and "Segmented/" in path:
            row = "it was cut out of a photograph that is read; to read these name the folder Segmented"
        if isinstance(row, str):
            left_out[path] = row
        else:
            rows.append({"path": path} | row)
    if not rows and not left_out:
        raise DataError(f"{root} holds no photograph of {name}'s layout ({WRITTEN[name]}); name the folder of the set")
    return HandTable.build(name, root, rows, left_out, notes=notes)


SETS: dict[str, Callable[[Path], HandTable]] = {
    "tongji": read_tongji, "iitd": read_iitd, "casia": read_casia, "hagrid": read_hagrid,
}  # fmt: skip
