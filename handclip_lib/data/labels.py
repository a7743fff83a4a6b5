"""Photographs described by a table of one's own: `manifest.csv`, read as data set `csv`, and written for a folder."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from handclip_lib.data.content import files_below
from handclip_lib.data.folder import MARKET, read_folder
from handclip_lib.data.layout import aspect_columns, number_captures
from handclip_lib.data.table import ASPECTS, COLUMNS, IMAGE_SUFFIXES, HandTable, file_fault
from handclip_lib.errors import DataError
from handclip_lib.files import write_text
from handclip_lib.places import LABELS

NEEDED = ("path", "identity")
WORDS = {
    "side": ("left", "right"), "view": ("dorsal", "palmar"), "aspect": ASPECTS,
    "role": ("train", "val", "test", "query", "gallery"),
}  # fmt: skip
FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
OF_FLAGS = ("accessories", "nail_polish", "irregularities")
NUMBERS = ("capture", "age", "draw")
MARKET_NAME = re.compile(r"(-1|[0-9]{4,})_c([0-9]+)s([0-9]+)_[0-9]+_[0-9]+(?:\.\w+)+")
"""Person, camera and sequence in a file's name of Market-1501; -1 and 0000 are nobody."""


def read_labels(root: Path | str) -> HandTable:
    """Read a folder that holds `manifest.csv`, a row an image.

    `path` (below the folder) and `identity` must be there. `subject`, `side` (left, right), `view` (dorsal, palmar),
    `aspect`, `session`, `camera`, `capture` (whole number), `gender`, `age`, `skin_color`, and `accessories`,
    `nail_polish`, `irregularities` (yes, no) are known; `role` (train, val, test, query, gallery) with `draw` (whole
    number, from 0) gives the split; every other column is kept as a group.

    Raises:
        DataError: There is no such table, it lacks a column, a value is none of those above, or no image can be used.
    """
    root = Path(root).absolute()
    frame = _read(root / LABELS)
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for line, record in zip(frame.index + 2, frame.to_dict("records"), strict=True):
        path = str(record["path"])
        if fault := _path_fault(root, path):
            left_out[path or f"{LABELS}, line {line}"] = fault
        else:
            rows.append(_row(record, f"{root / LABELS}, line {line}"))
    named = set(frame["path"])
    unnamed = [p for p in files_below(root).files if Path(p).suffix.lower() in IMAGE_SUFFIXES and p not in named]
    left_out |= dict.fromkeys(unnamed, f"not named in {LABELS}")
    notes = []
    if not any("capture" in row for row in rows):
        notes.append(number_captures(rows))
    given = _given(rows, root)
    listed = {str(row["path"]): row for row in rows}  # in several draws, an image stands in several lines
    for row in rows:
        first = listed[str(row["path"])]
        if (given is None and first is not row) or first["identity"] != row["identity"]:
            raise DataError(f"{root / LABELS}: {row['path']} is listed more than once; keep one row an image and draw")
    return HandTable.build("csv", root, listed.values(), left_out, given, filter(None, notes))


def _read(file: Path) -> pd.DataFrame:
    """The rows as stripped text, but for identities, whose spaces are looked at later."""
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, index_col=False, skip_blank_lines=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{file} does not exist; write it with `handclip data manifest {file.parent}`, or name the folder it is in"
        ) from error
    except (OSError, UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{file} cannot be read as a table ({error}); write it as CSV in UTF-8") from error
    frame.columns = frame.columns.str.strip().str.removeprefix("\ufeff")
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing or not frame.columns.is_unique or frame.empty:
        why = f"lacks the column {missing[0]}" if missing else "has no row" if frame.empty else "has a column twice"
        raise DataError(f"{file} {why}; it has {', '.join(frame.columns)}. A row an image: {', '.join(NEEDED)}, …")
    kept = [name for name in frame.columns if name not in ("identity", "subject")]
    frame[kept] = frame[kept].apply(lambda column: column.str.strip())
    return frame


def _path_fault(root: Path, path: str) -> str:
    """Why a row's path names no photograph of the folder; "" where it does."""
    if not path:
        return "its path is empty"
    if "\\" in path or PurePosixPath(path).is_absolute() or {"..", "."} & set(PurePosixPath(path).parts):
        return "it names a file outside the folder: a path is relative to it, with / between folders"
    if not (root / path).is_file():
        return f"named in {LABELS} but absent"
    return file_fault(root / path)


def _row(record: Mapping[Any, str], where: str) -> dict[str, object]:
    """A row of the table; what is empty is not known."""
    row: dict[str, object] = {}
    for name, value in record.items():
        if value.strip() == "":
            continue
        if name in WORDS and value not in WORDS[name]:
            raise DataError(f"{where}: {name} {value!r} is none of {', '.join(WORDS[name])}; leave it empty if unknown")
        if name in OF_FLAGS and value.lower() not in FLAGS:
            raise DataError(f"{where}: {name} {value!r} is neither yes nor no; leave it empty if unknown")
        if name in NUMBERS and not re.fullmatch(r"[0-9]{1,15}", value):
            raise DataError(f"{where}: {name} {value!r} is no whole number; leave it empty if unknown")
        row[name] = FLAGS[value.lower()] if name in OF_FLAGS else int(value) if name in NUMBERS else value
    if "aspect" in row:
        row = aspect_columns(str(row["aspect"])) | row
    elif row.get("view") and row.get("side"):
        row["aspect"] = f"{row['view']}_{str(row['side'])[0]}"
    return row


def _given(rows: list[dict[str, object]], root: Path) -> pd.DataFrame | None:
    """The split that the column role gives, or None; role and draw leave the rows."""
    given = []
    for row in rows:
        role, draw = row.pop("role", None), row.pop("draw", None)
        if role:
            drawn = role in ("query", "gallery")
            given.append({"path": row["path"], "role": role, "trial": (draw or 0) if drawn else -1})
    if given and len(given) < len(rows):
        raise DataError(f"{root / LABELS}: {len(rows) - len(given)} rows have no role; give all rows one, or none")
    return pd.DataFrame(given) if given else None


def write_labels(
    root: Path, file: Path, identity_level: int = 0, session_level: int = 0
) -> tuple[pd.DataFrame, list[str]]:
    """Write a table of a folder's photographs for a person to correct; return its rows, and what was guessed and why.

    People are guessed from the folders as `read_folder` reads them; where it refuses, from file names in the manner of
    Market-1501; else they are left empty.

    Raises:
        DataError: The folder holds no photograph, or the file is there: nobody's corrections are overwritten.
    """
    if file.exists():
        raise DataError(f"{file} is there already; correct it, or move it away to have another written")
    try:
        table = read_folder(root, identity_level, session_level)
        frame, notes = table.images, ["people are named by folders", *table.notes]
    except DataError as error:
        frame, notes = _by_names(root, str(error))
    names = [name for name in COLUMNS if name in NEEDED or (frame[name].notna() & (frame[name] != "")).any()]
    frame = frame[[name for name in names if name != "subject" or (frame["subject"] != frame["identity"]).any()]]
    write_text(file, frame.to_csv(index=False, lineterminator="\n"))
    return frame, notes


def _by_names(root: Path, why: str) -> tuple[pd.DataFrame, list[str]]:
    paths = [path for path in files_below(root).files if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise DataError(f"{root} holds no photograph; name the folder that does")
    frame = pd.DataFrame({"path": paths}).reindex(columns=list(COLUMNS))
    names = [MARKET_NAME.fullmatch(path.rpartition("/")[2]) for path in paths]
    if not any(names):
        frame["identity"] = ""
        return frame, [f"no person was guessed, fill in the column identity: {why}"]
    keep = [
        match is not None and match[1] not in ("-1", "0000") and not path.startswith("gt_bbox")
        for match, path in zip(names, paths, strict=True)
    ]
    found = [match for match, kept in zip(names, keep, strict=True) if match and kept]
    frame = frame[keep].reset_index(drop=True)
    frame["identity"], frame["camera"] = [match[1] for match in found], [match[2] for match in found]
    return frame, [
        f"people and cameras are the numbers in the files' names, as in Market-1501 ({MARKET}/)",
        f"{len(paths) - len(frame)} images of nobody, or cut by hand, are left out",
    ]
