"""The one table that every data set becomes: a row an image, with identity, aspect and attributes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from handclip_lib.errors import DataError
from handclip_lib.places import HD_DISTRACTORS

ASPECTS = ("dorsal_r", "dorsal_l", "palmar_r", "palmar_l")
DTYPES = {
    "path": "object", "identity": "object", "side": "object", "view": "object", "aspect": "object",
    "capture": "Int64", "gender": "object", "age": "Int64", "skin_color": "object",
    "accessories": "boolean", "nail_polish": "boolean", "irregularities": "boolean",
}  # fmt: skip
COLUMNS = tuple(DTYPES)
AGE_BANDS = {"<20": 0, "20-29": 20, "30-39": 30, "40+": 40}
"""Bands of years and where they begin, in which people are counted and figures reported."""
UNKNOWN = "unknown"


def identity_order(identity: str) -> tuple[int, int, str, str]:
    """Sort key of identities: those that are whole numbers first, as numbers, then text."""
    if not re.fullmatch(r"[0-9]+", identity):
        return 1, 0, identity, identity
    digits = identity.lstrip("0")  # longer is larger: `int()` refuses a number of more than 4300 digits
    return 0, len(digits), digits, identity


def capture_number(name: str) -> int | None:
    """The number of the photograph: the last run of digits in its file name, `None` without one.

    Numbers of more than 15 digits (timestamps glued to counters) are none: pandas may carry them as floats.
    """
    digits = re.findall(r"[0-9]+", Path(name).stem)
    return int(digits[-1]) if digits and len(digits[-1]) <= 15 else None


def misplaced(root: Path, mark: str, lacks: str, needs: str) -> str:
    """Why a folder is not the data set that holds `mark`, and which folder may be meant.

    Args:
        root: The folder.
        mark: What its data set would hold.
        lacks, needs: The same in words: "no HandInfo.csv", and what to do.
    """
    if not root.is_dir():
        return f"{root} is not a folder; {needs}"
    above = next((folder for folder in root.parents if (folder / mark).exists()), None)
    if above:
        return f"{root} is inside the data set; name the folder above it: {above}"
    inner = next((folder for folder in sorted(root.iterdir()) if (folder / mark).exists()), None)
    if inner:
        return f"{root} holds {lacks}, but {inner} does: name that folder"
    return f"{root} {f'holds {lacks}' if any(root.iterdir()) else 'is empty'}; {needs}"


def is_distractor(images: pd.DataFrame) -> "pd.Series[bool]":
    """True for the rows of an HD table that belong to no test subject."""
    return images["path"].str.startswith(HD_DISTRACTORS + "/")


def as_groups(values: pd.Series) -> "pd.Series[str]":
    """The group of each image in an attribute, as text: ages in `AGE_BANDS`, "yes" and "no", or "unknown"."""
    if values.name == "age":
        edges = [*AGE_BANDS.values(), float("inf")]
        values = pd.cut(values.astype("Float64"), edges, right=False, labels=list(AGE_BANDS))
    return values.astype("string").replace({"True": "yes", "False": "no", "": UNKNOWN}).fillna(UNKNOWN)


@dataclass(frozen=True)
class HandTable:
    """A data set of hand photographs.

    Attributes:
        dataset: "11k", "hd", "folder" or "drawn".
        root: Absolute folder that the paths are relative to.
        images: One row an image, the columns of `COLUMNS`. `path` is POSIX text relative to `root`, `identity` is
            stripped text, `aspect` one of `ASPECTS` or "", `capture` the number of the photograph (bursts are
            consecutive), the attributes are missing (NA) where the data set does not record them.
        left_out: `path` and `reason` of each image that is not in `images`; of one that could not be acquired, its row
            of `images` too.
        given_split: `path`, `role`, `trial` where the folders themselves say the split, else None.
        notes: What was put right while reading, one sentence each.
    """

    dataset: str
    root: Path
    images: pd.DataFrame
    left_out: pd.DataFrame
    given_split: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def build(
        cls, dataset: str, root: Path, rows: Iterable[Mapping[str, object]], left_out: Mapping[str, str],
        given_split: pd.DataFrame | None = None, notes: Iterable[str] = (),
    ) -> "HandTable":  # fmt: skip
        """Make a table from rows with any of the columns, give each column its type, and validate it."""
        kept, unwritable = [], {}
        for row in rows:
            if _writable(str(row["path"])) == row["path"]:
                kept.append(row)
            else:
                unwritable[str(row["path"])] = "its name is not valid UTF-8; rename it"
        left_out = {_writable(path): reason for path, reason in {**left_out, **unwritable}.items()}
        frame = pd.DataFrame(kept).reindex(columns=list(COLUMNS))
        frame = frame.astype(DTYPES)  # before filling: a column that no row has starts as float64
        for text in ("side", "view", "aspect"):
            frame[text] = frame[text].astype("object").where(frame[text].notna(), "")
        return cls(dataset, Path(root), frame, _reasons(left_out), given_split, tuple(notes)).validated()

    def validated(self) -> "HandTable":
        """The table itself; a DataError if it is empty, a path repeats, or an identity or aspect is none."""
        if self.images.empty:
            why = "; ".join(f"{n} × {reason}" for reason, n in self.left_out["reason"].value_counts().head(3).items())
            raise DataError(f"{self.root} holds no usable image{': ' + why if why else ''}; name another data_root")
        repeated = self.images["path"][self.images["path"].duplicated()]
        if len(repeated):
            raise DataError(f"{self.root}: {repeated.iloc[0]!r} is listed more than once; keep one row an image")
        empty = self.images["path"][self.images["identity"].fillna("").str.strip() == ""]
        if len(empty):
            raise DataError(f"{self.root}: {empty.iloc[0]!r} has no identity; give it one or remove its row")
        unknown = set(self.images["aspect"]) - {*ASPECTS, ""}
        if unknown:
            raise DataError(f"{self.root}: unknown aspect {sorted(unknown)[0]!r}; choose from {', '.join(ASPECTS)}")
        return self

    def without(self, failures: Mapping[str, str]) -> "HandTable":
        """The table less the images that could not be read; they go to `left_out` with their reasons."""
        if not failures:
            return self
        reasons = self.images["path"].map(failures)
        images = self.images[reasons.isna()].reset_index(drop=True)
        failed = self.images[reasons.notna()].assign(reason=reasons.dropna())
        left_out = pd.concat([self.left_out, failed], ignore_index=True)
        return replace(self, images=images, left_out=left_out).validated()


def _writable(text: str) -> str:
    """Text that any UTF-8 file can hold; the bytes of a file name that is not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _reasons(left_out: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame({"path": list(left_out), "reason": list(left_out.values())}, dtype="object")
