"""The one table that every data set becomes: a row an image, with identity, aspect and attributes."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from handclip_lib.errors import DataError
from handclip_lib.places import HD_DISTRACTORS
from handclip_lib.terminal import counted

ASPECTS = ("dorsal_r", "dorsal_l", "palmar_r", "palmar_l")
UNSPECIFIED = "unspecified"
"""The aspect of a split whose photographs record none."""
SIDES = {"r": "right", "l": "left", "": ""}
DTYPES = {
    "path": "object", "identity": "object", "subject": "object", "side": "object", "view": "object",
    "aspect": "object", "session": "object", "camera": "object",
    "capture": "Int64", "gender": "object", "age": "Int64", "skin_color": "object",
    "accessories": "boolean", "nail_polish": "boolean", "irregularities": "boolean",
}  # fmt: skip
COLUMNS = tuple(DTYPES)
AGE_BANDS = {"<20": 0, "20-29": 20, "30-39": 30, "40+": 40}
"""Bands of years and where they begin, in which people are counted and figures reported."""
ORDERS = {"age": tuple(AGE_BANDS), "skin_color": ("very fair", "fair", "medium", "dark")}
"""Groups whose order is no alphabet's, by attribute: bands of years, and skin from light to dark."""
COPY = re.compile(r" ?\([0-9]+\)| - (copy|kopie|copie)( \([0-9]+\))?| copy( [0-9]+)?", re.IGNORECASE)
"""What a system adds to the name of a folder that it copies beside one of that name."""
MOST_GROUPS = 20
UNKNOWN = "unknown"


def identity_order(identity: str) -> tuple[int, int, str, str]:
    """Sort key of identities: those that are whole numbers first, as numbers, then text."""
    if not re.fullmatch(r"[0-9]+", identity):
        return 1, 0, identity, identity
    digits = identity.lstrip("0")  # longer is larger: `int()` refuses a number of more than 4300 digits
    return 0, len(digits), digits, identity


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """Sort key of names with numbers in them: session2 comes before session10."""
    parts = re.findall(r"([0-9]{1,18})|([^0-9]+|[0-9])", text)
    return [(0, int(number), "") if number else (1, 0, word) for number, word in parts]


def capture_number(name: str) -> int | None:
    """The number of the photograph: the last run of digits in its file name, `None` without one.

    Numbers of more than 15 digits (timestamps glued to counters) are none: pandas may carry them as floats.
    """
    digits = re.findall(r"[0-9]+", Path(name).stem)
    return int(digits[-1]) if digits and len(digits[-1]) <= 15 else None


def misplaced(root: Path, mark: str, lacks: str, needs: str) -> str:
    """Why a folder is not the data set that holds `mark`, and which folder may be meant.

    `lacks` and `needs` are the same in words: "no HandInfo.csv", and what to do.
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


def in_order(attribute: str, groups: Iterable[str]) -> list[str]:
    """Groups of an attribute as one reads them: in its order of `ORDERS`, others after it by name, "unknown" last."""
    order = ORDERS.get(attribute, ())
    return sorted(
        groups,
        key=lambda group: (
            group == UNKNOWN, order.index(group) if group in order else len(order), natural_order(group),
        ),
    )  # fmt: skip


def own_groups(images: pd.DataFrame) -> list[str]:
    """Columns that a data set has beside `COLUMNS` and that make groups: two values or more, and not too many."""
    return [name for name in images.columns if name not in COLUMNS and 2 <= images[name].nunique() <= MOST_GROUPS]


def copied_names(names: Iterable[str]) -> list[str]:
    """A sentence on people whose names a system may have made of one: each half is taken for another."""
    alike: dict[str, list[str]] = {}
    for name in names:
        copied = next((end for end in COPY.finditer(name) if end.start() and end.end() == len(name)), None)
        alike.setdefault(name[: copied.start()] if copied else name, []).append(name)
    several = [sorted(some, key=natural_order) for some in alike.values() if len(some) > 1]
    if not several:
        return []
    return [
        f"{counted(len(several), 'person')} may be counted more than once, as copies of folders are called: "
        f"{' and '.join(map(repr, several[0]))}; move the photographs of one person into one folder"
    ]


@dataclass(frozen=True)
class HandTable:
    """A data set of hand photographs.

    Attributes:
        dataset: One of `open.DATASETS`.
        root: Absolute folder that the paths are relative to.
        images: One row an image, the columns of `COLUMNS` and any the data set has beside them. `path` is POSIX text
            relative to `root`; `identity` is what is recognised and `subject` who it is of, text in one form (stripped,
            NFC); `side` is "right", "left" or "", `view` "dorsal", "palmar" or "", `aspect` one of `ASPECTS` or "";
            `session` and `camera` are "" where unknown; `capture` is the number of the photograph (bursts are
            consecutive); the attributes are missing (NA) where the data set does not record them.
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
        """Make a table from rows with any columns, give each its type, bring names into one form, and validate it.

        Raises:
            DataError: Of `validated`, or two names of people differ in their spaces, letters' form or case, or zeros
                alone: one person would be two.
        """
        kept, unwritable = [], {}
        for row in rows:
            if _writable(str(row["path"])) == row["path"]:
                kept.append(row)
            else:
                unwritable[str(row["path"])] = "its name is not valid UTF-8; rename it"
        left_out = {_writable(path): reason for path, reason in {**left_out, **unwritable}.items()}
        frame = pd.DataFrame(kept)
        frame = frame.reindex(columns=list(dict.fromkeys([*COLUMNS, *frame.columns])))
        frame = frame.astype(DTYPES)  # before filling: a column that no row has starts as float64
        frame["subject"] = frame["subject"].where(frame["subject"].notna(), frame["identity"])
        own = [name for name in frame.columns if name not in COLUMNS]
        for text in ("side", "view", "aspect", "session", "camera", *own):
            frame[text] = frame[text].astype("object").where(frame[text].notna(), "")
        notes = [*notes, *_in_one_form(root, frame), *_sessions_in_one_form(frame), *_without_aspect(frame)]
        lost = pd.DataFrame(left_out.items(), columns=["path", "reason"], dtype="object")
        return cls(dataset, Path(root), frame, lost, given_split, tuple(notes)).validated()

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


def _in_one_form(root: Path, frame: pd.DataFrame) -> list[str]:
    """Strip and compose (NFC) the names of people, in place; a note on those that this changed."""
    if frame["identity"].isna().any():
        return []  # `validated` says so
    notes = []
    for column in ("identity", "subject"):
        first = frame.drop_duplicates(column)[[column, "path"]]
        forms = {name: unicodedata.normalize("NFC", name).strip() for name in first[column]}
        _refuse_alike(root, dict(zip(first[column], first["path"], strict=True)), forms)
        changed = [name for name, form in forms.items() if name != form]
        if column == "identity":
            notes += copied_names(forms.values())
        if changed and column == "identity":
            some = f"{changed[0]!a} is {forms[changed[0]]!a}"
            notes.append(f"spaces around names were ignored and letters composed, of {len(changed)} people: {some}")
        frame[column] = frame[column].map(forms)
    return notes


def _sessions_in_one_form(frame: pd.DataFrame) -> list[str]:
    """Give sessions the name of the first that differs in capitals, spaces or zeros alone, in place; a note on those.

    Told apart, a photograph would be searched for in its own session as if that were another.
    """
    first, told = dict[str, str](), dict[str, str]()
    names = sorted(frame["session"].unique(), key=natural_order)
    for name in names:
        plain = unicodedata.normalize("NFC", name).casefold().strip()
        joined = re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[0-9])", "", plain)
        told[name] = first.setdefault(re.sub(r"(?<![0-9])0+(?=[0-9])", "", joined), name)
    changed = [name for name, other in told.items() if name != other]
    frame["session"] = frame["session"].map(told)
    return [f"{len(changed)} sessions are taken for others: {changed[0]!r} is {told[changed[0]]!r}"] if changed else []


def _refuse_alike(root: Path, paths: Mapping[str, str], forms: Mapping[str, str]) -> None:
    """Refuse two names of one person, as a disk, a spreadsheet or a keyboard makes them."""
    kinds = {
        "spaces around them or the form of their letters": lambda name: forms[name],
        "capital letters": lambda name: forms[name].casefold(),
        "zeros in front": lambda name: re.sub(r"^0+(?=[0-9]+$)", "", forms[name]),
    }
    for told_apart_by, form_of in kinds.items():
        seen: dict[str, str] = {}
        for name in paths:
            other = seen.setdefault(form_of(name), name)
            if other != name:
                raise DataError(
                    f"{root}: the people {other!a} ({paths[other]}) and {name!a} ({paths[name]}) are told "
                    f"apart by {told_apart_by} alone: give one person one name, or two people names that differ in more"
                )


def _without_aspect(frame: pd.DataFrame) -> list[str]:
    """A note on the photographs that record no aspect where others do."""
    lacks = frame[frame["aspect"] == ""]
    if lacks.empty or len(lacks) == len(frame):
        return []
    return [
        f"{len(lacks)} images of {lacks['identity'].nunique()} identities record no aspect ({lacks['path'].iloc[0]}): "
        "they are in no split of one aspect; -p aspect all takes them too"
    ]


def _writable(text: str) -> str:
    """Text that any UTF-8 file can hold; the bytes of a file name that is not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
