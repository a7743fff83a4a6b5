"""Photographs described by a table: `HandInfo.csv` of 11k Hands, or `manifest.csv`, which is written here too."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from handclip_lib.data.content import files_below
from handclip_lib.data.decoder import file_fault, is_image
from handclip_lib.data.folder import MARKET
from handclip_lib.data.layout import aspect_columns, number_captures
from handclip_lib.data.table import (
    ASPECTS,
    COLUMNS,
    HandTable,
    capture_number,
    misplaced,
)
from handclip_lib.errors import DataError
from handclip_lib.files import whole_file
from handclip_lib.places import LABELS, METADATA, PHOTOGRAPHS

HAND_INFO_NEEDED = ("id", "accessories", "aspectOfHand", "imageName")
HAND_INFO_WORDS = {"gender": "gender", "skinColor": "skin_color"}
HAND_INFO_FLAGS = {"accessories": "accessories", "nailPolish": "nail_polish", "irregularities": "irregularities"}
AGE, FLAG = re.compile(r"[0-9]{1,3}"), re.compile(r"[01]")
VIEWS, HANDS = {"dorsal", "palmar"}, {"right", "left"}
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


def read_hands11k(
    root: Path | str, metadata: Path | str | None = None, require_images: bool = True, dataset: str = "11k"
) -> HandTable:
    """Read a data set in the layout of 11k Hands.

    Identities are text, stripped (the published file has one row with the id `'1200000 '`). Images with accessories
    stay in: leaving them out is the protocol's decision.

    Args:
        root: Folder that holds `Hands/` and `HandInfo.csv`.
        metadata: The CSV, when it lies elsewhere.
        require_images: False reads the metadata although no image is there, to count a protocol.

    Source: Afifi, "11K Hands", Multimedia Tools and Applications, 2019.
    """
    root = Path(root).absolute()
    csv = Path(metadata) if metadata is not None else root / METADATA
    if metadata is None and not csv.is_file():
        needs = f"11k Hands needs {METADATA} beside the folder {PHOTOGRAPHS}/"
        raise DataError(misplaced(root, METADATA, f"no {METADATA}", needs))
    frame, notes = _read_hand_info(csv)
    if require_images and not (root / PHOTOGRAPHS).is_dir():
        raise DataError(f"{root} has {csv.name} but no folder {PHOTOGRAPHS}/; put the photographs there")
    files = {f.name for f in (root / PHOTOGRAPHS).iterdir() if f.is_file()} if require_images else None
    twice = frame["imageName"].duplicated(keep=False)
    rows, left_out = [], {}
    for line, repeated, record in zip(frame.index + 2, twice, frame.to_dict("records"), strict=True):
        path = f"{PHOTOGRAPHS}/{record['imageName']}" if record["imageName"] else f"{csv.name}, line {line}"
        reason = _fault(record, files)
        if not reason and repeated:
            reason = _disagreement(frame[frame["imageName"] == record["imageName"]])
        if reason:
            left_out[path] = reason
        else:
            rows.append(_hand_info_row(record, path))
    if not rows and require_images:
        path, reason = next(iter(left_out.items()))
        raise DataError(
            f"{root}: none of the {len(frame)} images that {csv.name} names can be used; {path}: {reason}; "
            f"put the photographs into {root / PHOTOGRAPHS}"
        )
    named = set(frame["imageName"])
    for name in sorted(files or ()):
        if name not in named and is_image(name):
            left_out[f"{PHOTOGRAPHS}/{name}"] = file_fault(name) or f"not named in {METADATA}"
    return HandTable.build(dataset, root, rows, left_out, notes=[*notes, *_unknown_attributes(frame)])


def _read_hand_info(csv: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows as stripped text, each once, and what was put right."""
    try:
        mark = _mark_of(csv, HAND_INFO_NEEDED)
        frame = pd.read_csv(csv, sep=mark, dtype=str, keep_default_na=False, index_col=False)
    except FileNotFoundError as error:
        raise DataError(f"{csv} does not exist; it is the file {METADATA} of 11k Hands") from error
    except (OSError, UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{csv} cannot be read as a table ({error}); download {METADATA} again") from error
    frame.columns = frame.columns.str.strip()
    missing = [name for name in HAND_INFO_NEEDED if name not in frame.columns]
    if missing:
        lacks = f"lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        it_has = ", ".join(frame.columns)
        raise DataError(f"{csv} {lacks}; it has {it_has}. Add what is missing or download {METADATA} again")
    if not frame.columns.is_unique:
        raise DataError(f"{csv} has a column twice: {', '.join(frame.columns)}; keep one of each")
    if frame.empty:
        raise DataError(f"{csv} has a header but no rows; download {METADATA} again")
    stripped = frame.apply(lambda column: column.str.strip())
    notes = []
    spaced = frame.loc[frame["id"] != stripped["id"], ["id", "imageName"]]
    if len(spaced):
        first = f"{spaced['id'].iloc[0]!r} of {spaced['imageName'].iloc[0]}"
        notes.append(f"spaces around the id of {len(spaced)} images were ignored ({first})")
    rows = stripped.drop_duplicates()
    if len(rows) < len(stripped):
        notes.append(f"{len(stripped) - len(rows)} rows of {csv.name} repeat another row and count once")
    return rows, notes


def _fault(record: dict[Any, str], files: set[str] | None) -> str | None:
    """Why a row cannot be used, or None."""
    name, words = record["imageName"], record["aspectOfHand"].lower().split()
    if not name:
        return "its imageName is empty"
    if name in {".", ".."} or PureWindowsPath(name).name != name:
        return "it names a file outside the data set: an imageName is a plain file name"
    if not record["id"]:
        return "its id is empty"
    if len(words) != 2 or words[0] not in VIEWS or words[1] not in HANDS:
        return f"its aspectOfHand {record['aspectOfHand']!r} is none of dorsal/palmar right/left"
    if record["accessories"] and not FLAG.fullmatch(record["accessories"]):
        return f"its accessories {record['accessories']!r} is neither 0 nor 1"
    if files is not None and name not in files:
        return f"named in {METADATA} but absent from {PHOTOGRAPHS}/"
    return file_fault(name) or None if is_image(name) else None


def _disagreement(rows: pd.DataFrame) -> str:
    """Why rows of one image that differ cannot be used: nothing says which of them is right."""
    column = next(name for name in rows.columns if rows[name].nunique() > 1)
    return f"listed {len(rows)} times with a different {column}: {', '.join(rows[column].unique()[:3])}"


def _unknown_attributes(frame: pd.DataFrame) -> list[str]:
    """Notes on attributes that cannot be read: the image stays, its attribute is unknown."""
    notes = []
    for column, pattern in {"age": AGE, "nailPolish": FLAG, "irregularities": FLAG}.items():
        if column in frame.columns:
            wrong = frame[column][(frame[column] != "") & ~frame[column].str.fullmatch(pattern)]
            if len(wrong):
                notes.append(f"{column} of {len(wrong)} images is unknown: {wrong.iloc[0]!r} cannot be read")
    return notes


def _hand_info_row(record: dict[Any, str], path: str) -> dict[str, object]:
    view, side = record["aspectOfHand"].lower().split()
    row: dict[str, object] = {
        "path": path, "identity": record["id"], "side": side, "view": view, "aspect": f"{view}_{side[0]}",
        "capture": capture_number(path),
    }  # fmt: skip
    row |= {ours: record[theirs] for theirs, ours in HAND_INFO_WORDS.items() if record.get(theirs)}
    row |= {
        ours: record[theirs] == "1"
        for theirs, ours in HAND_INFO_FLAGS.items()
        if FLAG.fullmatch(record.get(theirs, ""))
    }
    if AGE.fullmatch(record.get("age", "")):
        row["age"] = int(record["age"])
    return row


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
    for line, record in zip(frame.index + 1, frame.to_dict("records"), strict=True):
        path = str(record["path"])
        if fault := _path_fault(root, path):
            left_out[path or f"{LABELS}, line {line}"] = fault
        else:
            rows.append(_row(record, f"{root / LABELS}, line {line}"))
    named = set(frame["path"])
    unnamed = [p for p in files_below(root).files if is_image(p) and p not in named]
    left_out |= {path: file_fault(path) or f"not named in {LABELS}" for path in unnamed}
    notes = []
    if not any("capture" in row for row in rows):
        notes.append(number_captures(rows))
    given = _given(rows, root)
    listed = {str(row["path"]): row for row in rows}  # in several draws, an image stands in several lines
    for row in rows:
        first = listed[str(row["path"])]
        if (given is None and first is not row) or first.get("identity") != row.get("identity"):
            raise DataError(f"{root / LABELS}: {row['path']} is listed more than once; keep one row an image and draw")
    return HandTable.build("csv", root, listed.values(), left_out, given, filter(None, notes))


def _read(file: Path) -> pd.DataFrame:
    """The rows as stripped text, but for identities, whose spaces are looked at later."""
    try:
        cells = pd.read_csv(
            file, sep=_mark_of(file, NEEDED), dtype=str, keep_default_na=False, header=None, skip_blank_lines=False
        ).fillna("")
    except FileNotFoundError as error:
        raise DataError(
            f"{file} does not exist; write it with `handclip data manifest {file.parent}`, or name the folder it is in"
        ) from error
    except (OSError, UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{file} cannot be read as a table ({str(error).strip()}); write it as CSV in UTF-8") from error
    named = cells.iloc[0].str.strip().str.removeprefix("\ufeff")
    known = {*COLUMNS, "role", "draw"}
    frame = cells.iloc[1:].set_axis([low if (low := name.casefold()) in known else name for name in named], axis=1)
    frame = frame[(frame != "").any(axis=1)]
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing or not frame.columns.is_unique or frame.empty:
        why = f"lacks the column {missing[0]}" if missing else "has no row" if frame.empty else "has a column twice"
        raise DataError(f"{file} {why}; it has {', '.join(frame.columns)}. A row an image: {', '.join(NEEDED)}, …")
    frame["path"] = [_below(file.parent, path.strip()) for path in frame["path"]]
    kept = [name for name in frame.columns if name not in ("identity", "subject")]
    frame[kept] = frame[kept].apply(lambda column: column.str.strip())
    return frame


def _mark_of(file: Path, needed: Sequence[str]) -> str:
    """What parts the columns: the mark by which the first line names those that are needed; else a comma.

    Spreadsheets of a language whose numbers have a decimal comma write semicolons.
    """
    with file.open(encoding="utf-8-sig") as opened:
        first = opened.readline().casefold()
    wanted = {name.casefold() for name in needed}
    return next((mark for mark in ",;\t|" if wanted <= {name.strip(' "\n') for name in first.split(mark)}), ",")


def _below(root: Path, path: str) -> str:
    """A path as it is below the folder: programs write whole ones, and Windows parts folders by a backslash."""
    parted = path if "\\" not in path or (root / path).is_file() else path.replace("\\", "/")
    return parted.removeprefix(f"{root.as_posix()}/")


def _path_fault(root: Path, path: str) -> str:
    """Why a row's path names no photograph of the folder; "" where it does."""
    if not path:
        return "its path is empty"
    pure = PurePosixPath(path)
    if "\\" in path or pure.is_absolute() or ".." in pure.parts or str(pure) != path:
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


def write_labels(root: Path, file: Path, read: Callable[[], HandTable]) -> tuple[pd.DataFrame, list[str]]:
    """Write a table of a folder's photographs for a person to correct; return its rows, and what was guessed and why.

    People are those that `read` finds there; where it refuses, they are guessed from file names in the manner of
    Market-1501, else left empty.

    Raises:
        DataError: The folder holds no photograph, or the file is there: nobody's corrections are overwritten.
    """
    if file.exists():
        raise DataError(f"{file} is there already; correct it, or move it away to have another written")
    try:
        table = read()
        frame, notes = table.images, [f"people are those of data set {table.dataset!r}", *table.notes]
    except DataError as error:
        frame, notes = _by_names(root, str(error))
    names = [name for name in COLUMNS if name in NEEDED or (frame[name].notna() & (frame[name] != "")).any()]
    frame = frame[[name for name in names if name != "subject" or (frame["subject"] != frame["identity"]).any()]]
    with whole_file(file, "name a file of yours: --out FILE") as private:
        private.write_text(frame.to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="")
    return frame, notes


def _by_names(root: Path, why: str) -> tuple[pd.DataFrame, list[str]]:
    paths = [path for path in files_below(root).files if is_image(path) and not file_fault(path)]
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
