"""Photographs described by a table: `HandInfo.csv` of 11k Hands, or `manifest.csv`, which is written here too."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from handclip_lib.data.content import files_below
from handclip_lib.data.decoder import file_fault, is_image
from handclip_lib.data.folder import MARKET
from handclip_lib.data.layout import aspect_columns, number_captures
from handclip_lib.data.table import ASPECTS, COLUMNS, HandTable, capture_number, misplaced
from handclip_lib.errors import DataError
from handclip_lib.files import whole_file
from handclip_lib.places import LABELS, METADATA, PHOTOGRAPHS

HAND_INFO_NEEDED = ("id", "accessories", "aspectOfHand", "imageName")
HAND_INFO_WORDS = {"gender": "gender", "skinColor": "skin_color"}
HAND_INFO_FLAGS = {"accessories": "accessories", "nailPolish": "nail_polish", "irregularities": "irregularities"}
AGE, FLAG = re.compile(r"[0-9]{1,3}"), re.compile(r"[01]")
OF_HAND = re.compile(r"\s*(dorsal|palmar)\s+(right|left)\s*")
NEEDED = ("path", "identity")
WORDS = {
    "side": ("left", "right"), "view": ("dorsal", "palmar"), "aspect": ASPECTS,
    "role": ("train", "val", "test", "query", "gallery"),
}  # fmt: skip
FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
OF_FLAGS = tuple(HAND_INFO_FLAGS.values())
NUMBERS = ("capture", "age", "draw")
MARKET_NAME = r"(?P<identity>-1|[0-9]{4,})_c(?P<camera>[0-9]+)s[0-9]+_[0-9]+_[0-9]+(?:\.\w+)+"
"""Person, camera and sequence in a file's name of Market-1501; -1 and 0000 are nobody."""


def read_hands11k(root: Path | str, dataset: str = "11k") -> HandTable:
    """Read a data set in the layout of 11k Hands: a folder that holds `Hands/` and `HandInfo.csv`.

    Identities are text, stripped (the published file has one row with the id `'1200000 '`). Images with accessories
    stay in: leaving them out is the protocol's decision.

    Source: Afifi, "11K Hands", Multimedia Tools and Applications, 2019.
    """
    root = Path(root).absolute()
    if not (root / METADATA).is_file():
        needs = f"11k Hands needs {METADATA} beside the folder {PHOTOGRAPHS}/"
        raise DataError(misplaced(root, METADATA, f"no {METADATA}", needs))
    if not (root / PHOTOGRAPHS).is_dir():
        raise DataError(f"{root} has {METADATA} but no folder {PHOTOGRAPHS}/; put the photographs there")
    frame, notes = _hand_info(root / METADATA)
    files = {file.name for file in (root / PHOTOGRAPHS).iterdir() if file.is_file()}
    twice = frame["imageName"].duplicated(keep=False)
    rows, left_out = [], {}
    for line, repeated, record in zip(frame.index, twice, frame.to_dict("records"), strict=True):
        path = f"{PHOTOGRAPHS}/{record['imageName']}" if record["imageName"] else f"{METADATA}, line {line}"
        reason = _fault(record, files)
        if not reason and repeated:
            reason = _disagreement(frame[frame["imageName"] == record["imageName"]])
        if reason:
            left_out[path] = reason
        else:
            rows.append(_hand_info_row(record, path))
    if not rows:
        path, reason = next(iter(left_out.items()))
        raise DataError(
            f"{root}: none of the {len(frame)} images that {METADATA} names can be used; {path}: {reason}; "
            f"put the photographs into {root / PHOTOGRAPHS}"
        )
    unnamed = sorted(name for name in files.difference(frame["imageName"]) if is_image(name))
    left_out |= {f"{PHOTOGRAPHS}/{name}": file_fault(name) or f"not named in {METADATA}" for name in unnamed}
    return HandTable.build(dataset, root, rows, left_out, notes=[*notes, *_unknown_attributes(frame)])


def _table(file: Path, needed: Sequence[str], remedy: str) -> pd.DataFrame:
    """The rows of a table as text, by their line in the file; those without anything are none.

    Raises:
        DataError: It cannot be read, has no row, or not all columns that are needed, or one twice, or one of no name.
    """
    try:
        mark = _mark_of(file, needed)
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, delimiter=mark, strict=True)
            lines = dict((reader.line_num, row) for row in reader if any(row))  # noqa: C402 - the line is each row's
        if not lines:
            raise ValueError("it is empty")
        if broken := [line for line, row in lines.items() if "\0" in "".join(row)]:
            raise ValueError(f"line {broken[0]} holds zero bytes, as a file that was not written to its end")
        header, *rows = lines.values()
        if longer := [row for row in rows if any(row[len(header) :])]:
            raise ValueError(f"{len(header)} columns, and {len(longer[0])} cells in the row of {longer[0][0]!r}")
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}); {remedy}") from error
    ours = (*COLUMNS, "role", "draw", *HAND_INFO_WORDS, *HAND_INFO_FLAGS, *needed)
    known = {name.casefold(): name for name in ours}
    padded = [(row + [""] * len(header))[: len(header)] for row in rows]
    frame = pd.DataFrame(padded, [*lines][1:], [known.get(name.strip().casefold(), name.strip()) for name in header])
    kept = (frame.columns != "") | (frame != "").any().to_numpy()  # a spreadsheet adds empty columns,
    kept[0] &= frame.columns[0] != ""  # and pandas its index
    frame = frame.loc[:, kept]
    names = frame.columns
    if missing := [name for name in needed if name not in names]:
        why = f"lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
    elif "" in names:
        why = "has cells in a column without a name"
    elif not names.is_unique:
        why = "has a column twice"
    elif frame.empty:
        why = "has a header but no rows"
    else:
        return frame
    raise DataError(f"{file} {why}; it has {', '.join(names)}. Mend it: {remedy}")


def _hand_info(file: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows as stripped text, each once, and what was put right."""
    frame = _table(file, HAND_INFO_NEEDED, f"download {METADATA} again")
    stripped = frame.apply(lambda column: column.str.strip())
    notes = []
    spaced = frame.loc[frame["id"] != stripped["id"], ["id", "imageName"]]
    if len(spaced):
        first = f"{spaced['id'].iloc[0]!r} of {spaced['imageName'].iloc[0]}"
        notes.append(f"spaces around the id of {len(spaced)} images were ignored ({first})")
    rows = stripped.drop_duplicates()
    if len(rows) < len(stripped):
        notes.append(f"{len(stripped) - len(rows)} rows of {METADATA} repeat another row and count once")
    return rows, notes


def _fault(record: dict[Any, str], files: set[str]) -> str:
    """Why a row cannot be used, or ""."""
    name = record["imageName"]
    if not name:
        return "its imageName is empty"
    if name in {".", ".."} or PureWindowsPath(name).name != name:
        return "it names a file outside the data set: an imageName is a plain file name"
    if not record["id"]:
        return "its id is empty"
    if not OF_HAND.fullmatch(record["aspectOfHand"].lower()):
        return f"its aspectOfHand {record['aspectOfHand']!r} is none of dorsal/palmar right/left"
    if record["accessories"] and not FLAG.fullmatch(record["accessories"]):
        return f"its accessories {record['accessories']!r} is neither 0 nor 1"
    if name not in files:
        return f"named in {METADATA} but absent from {PHOTOGRAPHS}/"
    return file_fault(name) if is_image(name) else ""


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
    row: dict[str, object] = {"path": path, "identity": record["id"], "capture": capture_number(path)}
    row |= aspect_columns(f"{view}_{side[0]}")
    row |= {ours: record[theirs] for theirs, ours in HAND_INFO_WORDS.items() if record.get(theirs)}
    flags = {ours: record.get(theirs, "") for theirs, ours in HAND_INFO_FLAGS.items()}
    row |= {name: flag == "1" for name, flag in flags.items() if FLAG.fullmatch(flag)}
    return row | ({"age": int(record["age"])} if AGE.fullmatch(record.get("age", "")) else {})


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
    if not (root / LABELS).exists():
        write = f"write it with `handclip data manifest {root}`, or name the folder it is in"
        raise DataError(f"{root / LABELS} does not exist; {write}")
    frame = _table(root / LABELS, NEEDED, f"write it as CSV in UTF-8, a row an image: {', '.join(NEEDED)}, …")
    own = [name for name in frame.columns if name not in ("identity", "subject")]  # whose spaces are looked at later
    frame[own] = frame[own].apply(lambda column: column.str.strip())
    frame["path"] = [_below(root, path) for path in frame["path"]]
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for line, record in zip(frame.index, frame.to_dict("records"), strict=True):
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


def _mark_of(file: Path, needed: Sequence[str]) -> str:
    """What parts the columns: the mark by which the first line of any text names those that are needed; else a comma.

    Spreadsheets of a language whose numbers have a decimal comma write semicolons.
    """
    with file.open(encoding="utf-8-sig") as opened:
        first = next((line.casefold() for line in opened if line.strip(' ,;\t|"\n')), "")
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
    found = frame["path"].str.rpartition("/")[2].str.extract(rf"^{MARKET_NAME}\Z")
    if found["identity"].isna().all():
        frame["identity"] = ""
        return frame, [f"no person was guessed, fill in the column identity: {why}"]
    nobody = found["identity"].isin(["-1", "0000"]) | frame["path"].str.startswith("gt_bbox")
    frame[["identity", "camera"]] = found
    frame = frame[found["identity"].notna() & ~nobody].reset_index(drop=True)
    return frame, [
        f"people and cameras are the numbers in the files' names, as in Market-1501 ({MARKET}/)",
        f"{len(paths) - len(frame)} images of nobody, or cut by hand, are left out",
    ]
