"""Files of comparison scores, as bob and other tools write and read them; names are text and stay so."""

import csv
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handclip_lib.data.manifest import Split
from handclip_lib.errors import DataError
from handclip_lib.evaluation.features import Features, check_memory
from handclip_lib.evaluation.ranking.cosines import cosines
from handclip_lib.files import whole_file
from handclip_lib.terminal import counted

BLOCK = 256  # queries scored at once
FORMS = ("csv", "bob", "four-column", "two-column")
PLAIN = ("draw", "probe", "probe_subject", "reference", "reference_subject", "score")
BOB = ("probe_template_id", "probe_key", "probe_subject_id", "bio_ref_template_id", "bio_ref_subject_id", "score")
COLUMNS = {
    "draw": ("draw",), "probe": ("probe", "probe_key", "probe_template_id", "probe_reference_id"),
    "probe_subject": ("probe_subject", "probe_subject_id"),
    "reference": ("reference", "bio_ref_key", "bio_ref_template_id", "bio_ref_reference_id"),
    "reference_subject": ("reference_subject", "bio_ref_subject_id"), "score": ("score",),
}  # fmt: skip
"""Names that a column may have, the first that is there counting: ours, and those of bob.bio.base 5 to 8."""
OPTIONAL = ("draw", "reference")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WANTED = (
    "wanted is a CSV whose first line names the columns probe, probe_subject, reference, reference_subject and score, "
    "or those of bob.bio, or lines of claimed_id real_id test_label score"
)


class Row(NamedTuple):
    """One comparison; without a name of its own the reference is the one template of its subject."""

    line: int
    draw: str
    probe: str
    probe_subject: str
    reference: str
    reference_subject: str
    score: str


@dataclass(frozen=True)
class Comparisons:
    """Scores of a file, one a row: 24 bytes each; larger is more alike.

    Attributes:
        names, subjects: Of each image, text (n_images,).
        probe, reference: int32 (n,), places in `names`.
        draw: int32 (n,): of query and gallery, where the file tells them apart; else 0.
        score: float64 (n,), finite.
        has_draws: Whether the file tells draws apart: a pair may be in several.
    """

    names: np.ndarray
    subjects: np.ndarray
    probe: np.ndarray
    reference: np.ndarray
    draw: np.ndarray
    score: np.ndarray
    has_draws: bool


def write_scores(file: Path, features: Features, split: Split, form: str = "csv", draw: int | None = None) -> int:
    """Write the score of each query with each gallery image, of one draw or (plain CSV alone) of all; how many.

    A score is the cosine in full: reading it gives the same number. A block of queries is in memory at once.
    """
    if form not in FORMS:
        raise DataError(f"unknown form of scores {form!r}; choose from {', '.join(FORMS)}")
    if draw is None and form != "csv":
        raise DataError(f"the form {form} cannot tell draws apart, and pairs come again: choose one, such as --draw 0")
    written = 0
    with whole_file(file) as private, private.open("w", encoding="utf-8", newline="") as opened:
        text, titled = form == "four-column", form in ("csv", "bob")
        out = csv.writer(opened, delimiter="," if titled else " ", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
        if titled:
            out.writerow(PLAIN if form == "csv" else BOB)
        for number in range(split.meta["draws"]) if draw is None else (draw,):
            one = split.draw(number)
            gallery = features.of(one.gallery_paths)
            held = list(zip(one.gallery_paths.tolist(), one.gallery_ids.tolist(), strict=True))
            if text:
                _fit_for_text(one.query_paths.tolist(), one.query_ids.tolist(), [who for _, who in held])
            for start in range(0, len(one.query_paths), BLOCK):
                paths, people = (side[start : start + BLOCK].tolist() for side in (one.query_paths, one.query_ids))
                scores = cosines(features.of(paths), gallery).astype(np.float64).tolist()
                for path, who, row in zip(paths, people, scores, strict=True):
                    for (held_path, held_who), score in zip(held, row, strict=True):
                        out.writerow(
                            (held_who, who, path, repr(score)) if text
                            else (number, path, who, held_path, held_who, repr(score)) if form == "csv"
                            else (path, path, who, held_path, held_who, repr(score)) if titled
                            else (1 if who == held_who else -1, repr(score))
                        )  # fmt: skip
                written += len(paths) * len(held)
    return written


def _fit_for_text(paths: list[str], people: list[str], enrolled: list[str]) -> None:
    """Refuse names that the columns of spaces cannot hold, and a person enrolled twice, whom they cannot tell apart."""
    for name in (*paths, *people, *enrolled):
        if not name or re.search(r"[\s\"']", name) or name.startswith("#"):
            raise DataError(
                f"{name!r} cannot stand between spaces in a four-column file; write a CSV: --form csv or bob"
            )
    twice = (
        next((who for who in enrolled if enrolled.count(who) > 1), None) if len(set(enrolled)) < len(enrolled) else None
    )
    if twice is not None:
        raise DataError(
            f"{twice!r} has several gallery images, which four columns cannot name; write a CSV: --form csv"
        )


def read_scores(file: Path, *, distances: bool = False) -> Comparisons:
    """Read a file of scores a line at a time: bob's CSV, its four or five columns, or a plain CSV with named columns.

    Names are text: "007", "1e5" and "NA" are what they are; space around them goes. `distances`: smaller is more alike.

    Raises:
        DataError: With the line: a score that is no finite number, a name that is missing, an image of two people, an
            image compared with itself, a comparison that comes twice; or a file of another kind.
    """
    place, subjects = dict[tuple[str, str], int](), list[str]()
    draws, sides = dict[str, int](), _sides(file)
    columns: tuple[Any, ...] = tuple(array(kind) for kind in "iiid")
    check_memory(f"the scores of {file.name}", 2 * file.stat().st_size, "give a part of them")

    def image(side: str, name: str, subject: str, line: int) -> int:
        number = place.setdefault((side, name), len(subjects))
        if number == len(subjects):
            subjects.append(subject)
        elif subjects[number] != subject:
            raise DataError(f"{file}, line {line}: {name!r} is of {subject!r}, and of {subjects[number]!r} above")
        return number

    sign, has_draws = -1 if distances else 1, False
    for row in _rows(file):
        probe = image(sides[0], row.probe, row.probe_subject, row.line)
        reference = image(sides[1], row.reference, row.reference_subject, row.line)
        if probe == reference:
            raise DataError(f"{file}, line {row.line} compares {row.probe!r} with itself; leave such lines out")
        has_draws |= bool(row.draw)
        values = probe, reference, draws.setdefault(row.draw, len(draws)), sign * _number(file, row)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    if not subjects:
        raise DataError(f"{file} holds no score; {WANTED}")
    kinds = np.int32, np.int32, np.int32, np.float64
    arrays = [np.frombuffer(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    _refuse_twice(file, arrays, len(subjects))
    names = np.array([name for _, name in place], object)
    return Comparisons(names, np.array(subjects, str), arrays[0], arrays[1], arrays[2], arrays[3], has_draws)


def _refuse_twice(file: Path, columns: list[np.ndarray], n: int) -> None:
    probe, reference, draw = (column.astype(np.int64) for column in columns[:3])
    order = np.argsort(key := (draw * n + probe) * n + reference, kind="stable")
    again = np.flatnonzero(key[order][1:] == key[order][:-1])
    if len(again):
        row = next(islice(_rows(file), int(order[again + 1].min()), None))
        said = f"compares {row.probe!r} with {row.reference!r} again"
        raise DataError(
            f"{file}, line {row.line} {said} ({counted(len(again), 'such line')}); keep one, or tell draws apart by a "
            "column draw"
        )


def _number(file: Path, row: Row) -> float:
    value = float(row.score) if NUMBER.fullmatch(row.score) else float("nan")
    if not np.isfinite(value):
        remedy = "write it with a decimal point" if "," in row.score else "mend it, or leave the line out"
        raise DataError(f"{file}, line {row.line}: the score {row.score!r} is no finite number; {remedy}")
    return value


def _sides(file: Path) -> tuple[str, str]:
    """What keeps a probe and a reference of one name apart: one image in a plain CSV, elsewhere perhaps not."""
    _, fields = _header(file)
    return ("", "") if "probe" in fields and "reference" in fields else ("probe", "reference")


def _header(file: Path) -> tuple[str, list[str]]:
    """How the fields are parted, and the names of the columns; " " and none where the first line names no columns."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            first = opened.readline(10_000)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); name a file of scores") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read as text in UTF-8 ({error}); {WANTED}") from error
    for delimiter in ",;\t|":
        fields = [field.strip().casefold() for field in next(csv.reader([first], delimiter=delimiter), [])]
        if "score" in fields:
            return delimiter, fields
    return " ", []


def _rows(file: Path) -> Iterator[Row]:
    delimiter, fields = _header(file)
    with file.open(encoding="utf-8-sig", newline="") as opened:
        try:
            yield from (
                _csv_rows(file, csv.reader(opened, delimiter=delimiter), fields) if fields else _lines(file, opened)
            )
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{file} cannot be read as text in columns ({error}); {WANTED}") from error


def _csv_rows(file: Path, reader: "csv.Reader", fields: list[str]) -> Iterator[Row]:  # type: ignore[name-defined]
    at: list[int] = []
    for part, names in COLUMNS.items():
        found = [name for name in names if name in fields]
        if not found and part not in OPTIONAL:
            raise DataError(f"{file} has no column {names[0]}, but {', '.join(fields)}; {WANTED}")
        if found and fields.count(found[0]) > 1:
            raise DataError(f"{file} has {fields.count(found[0])} columns {found[0]}; keep the right one")
        at.append(fields.index(found[0]) if found else len(fields))
    next(reader)
    for values in reader:
        if not values:
            continue
        line = reader.line_num
        if len(values) != len(fields):
            raise DataError(f"{file}, line {line} has {len(values)} fields, and the first line {len(fields)}")
        values.append("")  # of a column that is not there
        draw, probe, probe_subject, reference, subject, score = [values[column].strip() for column in at]
        row = Row(line, draw, probe, probe_subject, reference if at[3] < len(fields) else subject, subject, score)
        if not all(row[2:]):
            raise DataError(
                f"{file}, line {line}: {Row._fields[2 + row[2:].index('')]} is empty; every comparison needs one"
            )
        yield row


def _lines(file: Path, opened: Iterator[str]) -> Iterator[Row]:
    """Rows of bob's text: claimed_id [model_label] real_id test_label score; what begins with # is a remark."""
    wanted = 0
    for line, text in enumerate(opened, 1):
        parts = text.split()
        if not parts or parts[0].startswith("#"):
            continue
        wanted = wanted or len(parts)
        if len(parts) != wanted or wanted not in (4, 5):
            raise DataError(f"{file}, line {line} has {len(parts)} fields, parted by spaces; {WANTED}")
        claimed, real, label, score = parts[0], *parts[-3:]
        yield Row(line, "", label, real, parts[1] if wanted == 5 else claimed, claimed, score)
