"""11k Hands (Afifi 2019): `Hands/*.jpg` described by `HandInfo.csv`, with the quirks of the published file."""

import re
from pathlib import Path, PureWindowsPath
from typing import Any

import pandas as pd

from handclip_lib.data.decoder import file_fault, is_image
from handclip_lib.data.table import HandTable, capture_number, misplaced
from handclip_lib.errors import DataError
from handclip_lib.places import METADATA, PHOTOGRAPHS

NEEDED = ("id", "accessories", "aspectOfHand", "imageName")
WORDS = {"gender": "gender", "skinColor": "skin_color"}
FLAGS = {"accessories": "accessories", "nailPolish": "nail_polish", "irregularities": "irregularities"}
AGE, FLAG = re.compile(r"[0-9]{1,3}"), re.compile(r"[01]")
VIEWS, SIDES = {"dorsal", "palmar"}, {"right", "left"}


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
        dataset: Of the table.

    Raises:
        DataError: The folder or the CSV is absent, a column is missing, or no image can be used.

    Source: Afifi, "11K Hands", Multimedia Tools and Applications, 2019.
    """
    root = Path(root).absolute()
    csv = Path(metadata) if metadata is not None else root / METADATA
    if metadata is None and not csv.is_file():
        needs = f"11k Hands needs {METADATA} beside the folder {PHOTOGRAPHS}/"
        raise DataError(misplaced(root, METADATA, f"no {METADATA}", needs))
    frame, notes = _read_csv(csv)
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
            rows.append(_row(record, path))
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


def _read_csv(csv: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows as stripped text, each once, and what was put right."""
    try:
        frame = pd.read_csv(csv, dtype=str, keep_default_na=False, index_col=False)
    except FileNotFoundError as error:
        raise DataError(f"{csv} does not exist; it is the file {METADATA} of 11k Hands") from error
    except (OSError, UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{csv} cannot be read as a table ({error}); download {METADATA} again") from error
    frame.columns = frame.columns.str.strip()
    missing = [name for name in NEEDED if name not in frame.columns]
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
    if len(words) != 2 or words[0] not in VIEWS or words[1] not in SIDES:
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


def _row(record: dict[Any, str], path: str) -> dict[str, object]:
    view, side = record["aspectOfHand"].lower().split()
    row: dict[str, object] = {
        "path": path, "identity": record["id"], "side": side, "view": view, "aspect": f"{view}_{side[0]}",
        "capture": capture_number(path),
    }  # fmt: skip
    row |= {ours: record[theirs] for theirs, ours in WORDS.items() if record.get(theirs)}
    row |= {ours: record[theirs] == "1" for theirs, ours in FLAGS.items() if FLAG.fullmatch(record.get(theirs, ""))}
    if AGE.fullmatch(record.get("age", "")):
        row["age"] = int(record["age"])
    return row
