"""What is measured of each file of a data set, once for its content: its head, its samples, and its quality."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from pathlib import Path
from threading import Condition
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from handclip_lib.data.content import add_to_record, content_keys, read_record, record_file
from handclip_lib.data.decoder import (
    DECODER,
    Header,
    decode_file,
    decoding_bytes,
    read_header,
    sample_extremes,
    white_of,
)
from handclip_lib.errors import DataError
from handclip_lib.machine import cores, free_memory

AT_ONCE = 256  # images handed to the threads together: what is done waits in memory for what is not
DIM = 0.25  # of white: a file whose largest sample is no more may hold two bits less
QUALITY_SIDE = 256
"""Pixels of a photograph's longer side at which its quality is measured; a smaller one is taken as it is."""
LIMITS = {"shorter side": (64, "too small"), "contrast": (0.02, "blank"), "sharpness": (6.0, "unfocused")}
"""Of each measure of `measure_quality` what a photograph should reach, and what one is called that does not.

Measured: the least sharp of 200 photographs of 11k Hands has 32 and the least contrast is 0.08; blurred by a Gaussian
of 2 pixels at `QUALITY_SIDE` the sharpest of them has 6.
"""
MEASURES = ("shorter side", "sharpness", "exposure", "contrast")
UNREADABLE, POOR = "unreadable", tuple(fault for _, fault in LIMITS.values())
"""Why a photograph cannot be used, and why one should perhaps not be."""


def recorded(
    root: Path, contents: Mapping[str, str], what: str, measure: Callable[[str], list[Any] | str], progress: bool,
    needs: Callable[[str], int] = lambda path: 0,
) -> dict[str, list[Any] | str]:  # fmt: skip
    """What was measured of each file, by path: read from a record by content, and what is new measured in threads.

    Args:
        contents: `content_keys` of the paths.
        what: Names the record, and its version.
        measure: Of a path, what JSON can hold; text says why there is nothing, and is not recorded: another reader
            may be installed.
        needs: Bytes that measuring a path takes.
    """
    file = record_file(str(root.absolute()), what)
    known = read_record(file)
    new = list({content: path for path, content in contents.items() if content not in known}.values())
    made = in_threads(lambda row: measure(new[row]), [needs(path) for path in new], what.split()[0], progress)
    found = {contents[path]: values for path, values in zip(new, made, strict=True)}
    add_to_record(file, {content: values for content, values in found.items() if not isinstance(values, str)})
    return {path: known.get(content) or found[content] for path, content in contents.items()}


def in_threads(work: Callable[[int], Any], needs: Sequence[int], label: str, progress: bool) -> Iterator[Any]:
    """`work(i)` for each i in order, on the cores this process may use; Pillow's warnings are silent meanwhile.

    `needs` are the bytes that each takes: those at work take half of the free memory together, but one always works. A
    bar of progress appears where it takes long.
    """
    limit, used, changed = free_memory() // 2, 0, Condition()

    def one(row: int) -> Any:
        nonlocal used
        with changed:
            changed.wait_for(lambda: not used or used + needs[row] <= limit)
            used += needs[row]
        try:
            return work(row)
        finally:
            with changed:
                used -= needs[row]
                changed.notify_all()

    bar = tqdm(total=len(needs), desc=label, unit="image", disable=not progress, leave=False, delay=1)
    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool, bar:
        warnings.simplefilter("ignore")  # they do not name the file; what is said of it here does
        for start in range(0, len(needs), AT_ONCE):
            for result in pool.map(one, range(start, min(start + AT_ONCE, len(needs)))):
                bar.update()
                yield result


@dataclass(frozen=True)
class Survey:
    """What the files of a data set are.

    Attributes:
        root: Folder the paths are relative to.
        contents: `content_keys` by path.
        headers: What each head says, by path; of those that can be read.
        failures: Why the others cannot, by path.
        whites: The sample that becomes 255, by `Header.samples`, where those have more than 8 bits.
        notes: What was measured or put right, a sentence each.
    """

    root: Path = Path()
    contents: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, Header] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    whites: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def white(self, path: str) -> float:
        """The sample that becomes 255 in one file; 0 where its samples have 8 bits or fewer."""
        return self.whites.get(self.headers[path].samples, 0)


def survey(root: Path, paths: Sequence[str], sample_range: float = 0, progress: bool = True) -> Survey:
    """Look at the head of each file, and at all samples of those of more than 8 bits: what is white in them.

    Args:
        paths: Of the whole data set: white is measured over all of it, and so is the same for any part.
        sample_range: The sample that is white; 0 measures it.

    Raises:
        DataError: What is white is not plain.
    """
    contents = dict(zip(paths, content_keys(root, paths, progress), strict=True))

    def head(path: str) -> list[Any] | str:
        header = read_header(root / path)
        return header if isinstance(header, str) else list(astuple(header))

    found = recorded(root, contents, f"headers {DECODER}", head, progress)
    headers = {path: Header(*values) for path, values in found.items() if not isinstance(values, str)}
    failures = {path: reason for path, reason in found.items() if isinstance(reason, str)}
    deep = {path: contents[path] for path, header in headers.items() if header.samples}
    extremes = recorded(
        root, deep, f"samples {DECODER}", lambda path: sample_extremes(root / path), progress,
        lambda path: decoding_bytes(headers[path]),
    )  # fmt: skip
    failures |= {path: reason for path, reason in extremes.items() if isinstance(reason, str)}
    kinds: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for path, values in extremes.items():
        if not isinstance(values, str):
            kinds[headers[path].samples][path] = values
    whites, notes = {}, []
    for kind, files in sorted(kinds.items()):
        whites[kind], left_out, said = _white(root, kind, files, sample_range)
        failures |= left_out
        notes.append(said)
    turned = [(path, header.fault) for path, header in headers.items() if header.fault]
    if turned:
        notes.append(
            f"{len(turned)} photographs stay turned as their pixels lie, such as {turned[0][0]}: {turned[0][1]}"
        )
    headers = {path: header for path, header in headers.items() if path not in failures}
    return Survey(root, contents, headers, failures, whites, tuple(notes))


def _white(
    root: Path, kind: str, files: Mapping[str, Sequence[float]], sample_range: float
) -> tuple[float, dict[str, str], str]:
    """The white of files of one kind of samples, why some cannot be scaled with the others, and a sentence.

    A file that is far darker than white beside the others is of fewer bits, or nearly black: scaled with them it
    would be black, so it is left out by name; more than one in ten are another camera's.
    """
    low = min(values[0] for values in files.values())
    highest = max(files, key=lambda path: files[path][1])
    peak = files[highest][1]
    declared = 4095 if kind == "12-bit" else 0
    white = sample_range or declared or white_of(peak, kind != "floating-point")
    there = f"{len(files)} photographs of {kind} samples from {low:,.6g} to {peak:,.6g}"
    if not white or low < -0.05 * white:
        why = "some are negative" if low < 0 else "what they may reach is not plain"
        raise DataError(
            f"{root} has {there} ({highest}), and {why}: say which sample is white with sample_range, or save them "
            "with 8 bits"
        )
    dim = [] if sample_range or declared else [path for path, values in files.items() if values[1] <= DIM * white]
    if len(dim) > max(1, len(files) / 10):
        raise DataError(
            f"{root} has {there} ({highest}), but {len(dim)} of them reach {DIM * white:,.6g} at most, such as "
            f"{dim[0]}: two kinds of camera? Say which sample is white with sample_range, or convert one kind"
        )
    reasons = {
        path: f"its largest sample is {files[path][1]:,.6g}, others' {peak:,.6g}: nearly black, or of fewer bits; "
        "give sample_range, or convert it" for path in dim
    }  # fmt: skip
    reasons |= {
        path: f"its largest sample, {values[1]:,.6g}, is above sample_range={sample_range:,.6g}; give the right one"
        for path, values in files.items() if values[1] > 1.05 * white
    }  # fmt: skip
    return white, reasons, f"{there}: {white:,.6g} is white"


def measure_quality(seen: Survey, paths: Sequence[str], progress: bool = True) -> pd.DataFrame:
    """Decode photographs, and measure how well they were taken; see the definitions.

    Returns:
        Columns path, width, height and shorter side (pixels, as one looks at it), sharpness (variance of the Laplacian
        of grey in 0..255, the longer side `QUALITY_SIDE` pixels), exposure (mean of grey, 0..1), contrast (its standard
        deviation, 0..1), fault (`UNREADABLE`, else the first of `POOR` that holds, else "") and why.
    """

    def measure(path: str) -> list[float] | str:
        width, height = seen.headers[path].upright
        scale = min(1.0, QUALITY_SIDE / max(width, height))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = decode_file(seen.root / path, size, white=seen.white(path))
        return pixels if isinstance(pixels, str) else quality_of(pixels)

    whites = ",".join(f"{kind} {white}" for kind, white in sorted(seen.whites.items()))
    contents = {path: seen.contents[path] for path in paths if path in seen.headers}
    found = recorded(
        seen.root, contents, f"quality {DECODER} 1 {whites}", measure, progress,  # 1: raise it with another definition
        lambda path: decoding_bytes(seen.headers[path], QUALITY_SIDE),
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for path in paths:
        values = found.get(path) or seen.failures[path]
        if isinstance(values, str):
            rows.append({"path": path, "fault": UNREADABLE, "why": values})
        else:
            width, height = seen.headers[path].upright
            row = dict(zip(MEASURES, (min(width, height), *values), strict=True))
            rows.append({"path": path, "width": width, "height": height} | row | _fault(row))
    return pd.DataFrame(rows, columns=["path", "width", "height", *MEASURES, "fault", "why"])


def reasons(measured: pd.DataFrame, *faults: str) -> dict[str, str]:
    """Why the photographs with some of the faults have them, by path; rows of `measure_quality`."""
    some = measured[measured["fault"].isin(faults)]
    return dict(zip(some["path"], some["why"], strict=True))


def _fault(measured: Mapping[str, float]) -> dict[str, str]:
    for measure, (least, fault) in LIMITS.items():
        if measured[measure] < least:
            return {"fault": fault, "why": f"{fault}: its {measure} is below {least:g}"}
    return {"fault": "", "why": ""}


def quality_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Spread of each measure over the photographs that can be read, its limit, and how many fall below; a row each."""
    rows = []
    for measure in MEASURES:
        values = measured[measure].dropna()
        spread = dict(zip(("lowest", "5 %", "median", "highest"), values.quantile([0, 0.05, 0.5, 1]), strict=True))
        least, fault = LIMITS.get(measure, (float("nan"), ""))
        below = {"photographs below": int((values < least).sum()) if fault else None, "called": fault}
        rows.append({"measure": measure, **spread, "limit": least, **below})
    return pd.DataFrame(rows)


def poorest(measured: pd.DataFrame, count: int) -> pd.DataFrame:
    """The rows of the photographs that can be read and are poorest: those with a fault first, then the least sharp."""
    there = measured[measured["fault"] != UNREADABLE]
    order = there.assign(good=there["fault"] == "").sort_values(["good", "sharpness"], kind="stable")
    return order.drop(columns="good").head(count)


def quality_of(pixels: np.ndarray) -> list[float]:
    """Sharpness, exposure and contrast, as `measure_quality` has them, of uint8 (height, width, 3)."""
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    inner = grey[1:-1, 1:-1]
    bends = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    sharpness = float(bends.var()) if bends.size else 0.0
    return [round(value, 6) for value in (sharpness, grey.mean() / 255, grey.std() / 255)]
