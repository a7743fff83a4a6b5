"""11k Hands (Afifi 2019): `Hands/*.jpg` described by `HandInfo.csv`, with the quirks of the published file."""

from collections import Counter
from pathlib import Path

import pandas as pd

from handclip_lib.data.table import HandTable, capture_number
from handclip_lib.errors import DataError

METADATA = "HandInfo.csv"
NEEDED = ("id", "accessories", "aspectOfHand", "imageName")
OPTIONAL = {"age": "age", "gender": "gender", "skinColor": "skin_color"}
FLAGS = {"accessories": "accessories", "nailPolish": "nail_polish", "irregularities": "irregularities"}
VIEWS = {"dorsal", "palmar"}
SIDES = {"right", "left"}


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
        dataset: Name to give the table.

    Raises:
        DataError: The folder or the CSV is absent, a column is missing, or no image can be used.

    Source: Afifi, "11K Hands", Multimedia Tools and Applications, 2019.
    """
    root = Path(root).absolute()
    csv = Path(metadata) if metadata is not None else _find_metadata(root)
    frame = _read_csv(csv)
    if require_images and not (root / "Hands").is_dir():
        raise DataError(f"{root} has {csv.name} but no folder Hands/; put the photographs there")
    present = _file_sizes(root / "Hands") if require_images else None
    rows, left_out = [], {}
    seen: set[str] = set()
    repeated = {name for name, n in Counter(frame["imageName"]).items() if n > 1}
    for record in frame.to_dict("records"):
        name = str(record["imageName"])
        path = f"Hands/{name}"
        reason = _fault(record, present) or (_repeat_fault(frame, name) if name in repeated else None)
        if reason:
            left_out[path] = reason
        elif name not in seen:
            rows.append(_row(record, path))
            seen.add(name)
    if not rows and require_images and left_out:
        first, reason = next(iter(left_out.items()))
        raise DataError(f"{root}: none of the {len(frame)} images of {csv.name} can be used; {first}: {reason}")
    return HandTable.build(dataset, root, rows, left_out)


def _find_metadata(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root} does not exist; name the folder that holds Hands/ and {METADATA}")
    if (root / METADATA).is_file():
        return root / METADATA
    if (root.parent / METADATA).is_file():
        raise DataError(f"{root} is inside the data set; name its parent: {root.parent}")
    inner = next((folder for folder in sorted(root.iterdir()) if (folder / METADATA).is_file()), None)
    if inner:
        raise DataError(f"{root} holds no {METADATA}, but {inner} does: name that folder")
    what = "is empty" if not any(root.iterdir()) else f"holds no {METADATA}"
    raise DataError(f"{root} {what}; 11k Hands needs {METADATA} beside the folder Hands/")


def _read_csv(csv: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError as error:
        raise DataError(f"{csv} does not exist; it is the file {METADATA} of 11k Hands") from error
    except (OSError, UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{csv} cannot be read as a table ({error}); download {METADATA} again") from error
    frame.columns = frame.columns.str.strip()
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing:
        raise DataError(
            f"{csv} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has {list(frame.columns)}"
        )
    if frame.empty:
        raise DataError(f"{csv} has a header but no rows; download {METADATA} again")
    return frame.apply(lambda column: column.str.strip())


def _file_sizes(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in folder.iterdir() if entry.is_file()}


def _fault(record: dict, present: dict[str, int] | None) -> str | None:
    """Why a row cannot be used, or None."""
    name, words = record["imageName"], record["aspectOfHand"].lower().split()
    if not name or "/" in name or "\\" in name or name in {".", ".."}:
        return f"its imageName {name!r} is not a plain file name"
    if not record["id"]:
        return "its id is empty"
    if len(words) != 2 or words[0] not in VIEWS or words[1] not in SIDES:
        return f"its aspectOfHand {record['aspectOfHand']!r} is not 'dorsal right', 'dorsal left', 'palmar right' or 'palmar left'"
    flags = [column for column in FLAGS if record.get(column, "") not in {"", "0", "1"}]
    if flags:
        return f"its {flags[0]} {record[flags[0]]!r} is neither 0 nor 1"
    if record.get("age", "") and not record["age"].isdigit():
        return f"its age {record['age']!r} is not a whole number"
    if present is not None and name not in present:
        return "named in HandInfo.csv but absent from Hands/"
    if present is not None and present[name] == 0:
        return "the file is empty (0 bytes)"
    return None


def _repeat_fault(frame: pd.DataFrame, name: str) -> str | None:
    identities = frame.loc[frame["imageName"] == name, "id"].unique()
    return f"listed under {len(identities)} ids: {', '.join(identities[:3])}" if len(identities) > 1 else None


def _row(record: dict, path: str) -> dict[str, object]:
    view, side = record["aspectOfHand"].lower().split()
    row: dict[str, object] = {
        "path": path, "identity": record["id"], "side": side, "view": view, "aspect": f"{view}_{side[0]}",
        "capture": capture_number(path),
    }  # fmt: skip
    row |= {ours: record[theirs] for theirs, ours in OPTIONAL.items() if record.get(theirs)}
    row |= {ours: record[theirs] == "1" for theirs, ours in FLAGS.items() if record.get(theirs)}
    if "age" in row:
        row["age"] = int(str(row["age"]))
    return row
