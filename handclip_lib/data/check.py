"""What is in a data folder, what is missing, and why images are left out: `handclip data check ROOT`."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from handclip_lib.data.audit import attribute_counts, left_out_reasons, split_counts
from handclip_lib.data.images import decode_file, open_image
from handclip_lib.data.open import READERS, open_dataset
from handclip_lib.data.splits import PROTOCOLS, Split, make_split
from handclip_lib.data.table import ASPECTS, HandTable
from handclip_lib.errors import DataError
from handclip_lib.machine import cores
from handclip_lib.places import HD_IDENTITIES, METADATA, PHOTOGRAPHS, find_data_root
from handclip_lib.terminal import one_line, visible

DATASETS = ("auto", *READERS)
DECODED_SIDE = 32  # pixels; a JPEG is still read to its last byte, but decoded eight times smaller
ORDINARY_MODES = {"RGB": "RGB", "L": "grey"}
CONVERTED_MODES = {
    "CMYK": "CMYK", "YCCK": "CMYK", "P": "palette", "PA": "palette", "1": "1-bit", "I": "16-bit", "I;16": "16-bit",
    "I;16B": "16-bit", "I;16L": "16-bit", "F": "floating-point", "RGBA": "transparent", "LA": "transparent",
}  # fmt: skip


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; as text, what the command prints.

    Attributes:
        table: The data set, less the images that could not be decoded when `deep`.
        protocol: The one that was planned, "auto" for the data set's own where none could be.
        protocols: For each aspect what its split holds (see `split_counts`), or why there is none.
        converted: For each kind of image that is converted to RGB, the paths of its images; empty unless `deep`.
        deep: Every image was decoded.
    """

    table: HandTable
    protocol: str
    protocols: Mapping[str, pd.DataFrame | str]
    converted: Mapping[str, list[str]]
    deep: bool

    @property
    def usable(self) -> bool:
        """True when at least one aspect can be split into train, query and gallery."""
        return any(isinstance(found, pd.DataFrame) for found in self.protocols.values())

    def __str__(self) -> str:
        return "\n".join(visible(line) for part in self._parts() for line in part.splitlines())

    def _parts(self) -> Iterator[str]:
        images = self.table.images
        yield one_line(self.table.root)
        yield f"data set {self.table.dataset!r}: {len(images)} images of {images['identity'].nunique()} identities"
        yield from _attributes(self.table)
        yield from _protocols(self.protocol, self.protocols)
        reasons = left_out_reasons(self.table)
        yield f"\nLeft out: {len(self.table.left_out)} images"
        for row in reasons[reasons["images"] > 0].itertuples(index=False):
            yield one_line(f"  {row.images} × {row.reason} ({row[2]})")
        notes = list(self.table.notes)
        for kind, paths in self.converted.items():
            notes.append(f"{len(paths)} {kind} images are converted to RGB ({paths[0]})")
        if notes:
            yield "\nNotes"
            yield from (one_line(f"  {note}") for note in notes)
        if self.deep:
            yield f"\nEvery image was decoded; {len(images)} can be used."
        else:
            yield "\nNo image was decoded, only looked for; --deep decodes each."
        if not self.usable:
            own = ", the data set's own" if self.protocol == "auto" else ""
            yield f"No split by protocol {self.protocol!r}{own}: see the reasons above; another: --protocol"


def check(
    root: Path | str, dataset: str = "auto", deep: bool = False, progress: bool = True, protocol: str = "auto"
) -> CheckReport:
    """Look at a data folder.

    Args:
        root: The folder, absolute, or relative to the working folder or the project's.
        dataset: "11k", "hd", "folder", or "auto" to recognise it.
        deep: Decode every image, to find those that are damaged, too large or of an unusual kind.
        progress: Show a progress bar.
        protocol: Of the split that is planned, as `make_split` takes it.

    Raises:
        DataError: The protocol is unknown, the folder is not a data set, or none of its images can be used.
    """
    if dataset not in DATASETS:
        raise DataError(f"unknown dataset {dataset!r}; choose from {', '.join(DATASETS)}")
    if protocol not in PROTOCOLS:
        raise DataError(f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    folder = find_data_root(str(root))
    table = open_dataset(recognised(folder) if dataset == "auto" else dataset, str(folder))
    converted: dict[str, list[str]] = {}
    if deep:
        failures, converted = _decode_all(table, progress)
        table = table.without(failures)
    there = set(table.images["aspect"])
    aspects = [aspect for aspect in ASPECTS if aspect in there] or ["all"]
    found = {aspect: _split_or_reason(table, aspect, protocol) for aspect in aspects}
    made = next((split.meta["protocol"] for split in found.values() if isinstance(split, Split)), protocol)
    counts = {aspect: split_counts(split) if isinstance(split, Split) else split for aspect, split in found.items()}
    return CheckReport(table, made, counts, converted, deep)


def recognised(root: Path) -> str:
    """Name the data set whose layout a folder has, or which holds the folder; "folder" when it has none."""
    try:
        near = [root, *sorted(folder for folder in root.iterdir() if folder.is_dir())]
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error}); make it readable or name another folder") from error
    # Trees of splits are written into the data set's folder, so only Hands/ itself belongs to the folder above it.
    if any((folder / METADATA).is_file() for folder in [*near, *[root.parent] * (root.name == PHOTOGRAPHS)]):
        return "11k"
    original = HD_IDENTITIES.split("/")[0]
    return "hd" if original in root.parts or any((folder / HD_IDENTITIES).is_dir() for folder in near) else "folder"


def _split_or_reason(table: HandTable, aspect: str, protocol: str) -> Split | str:
    try:
        return make_split(table, aspect, protocol)
    except DataError as error:
        return str(error)


def _decode_all(table: HandTable, progress: bool) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Reasons of the images that cannot be decoded, and the paths of those that are converted, by kind."""
    paths = list(table.images["path"])
    failures: dict[str, str] = {}
    converted: dict[str, list[str]] = defaultdict(list)
    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of large images; decode_file says it with the file's name
        results = pool.map(_examine, table.absolute(paths))
        bar = tqdm(results, total=len(paths), desc="decoding", unit="image", disable=not progress, leave=False)
        for path, (mode, fault) in zip(paths, bar, strict=True):
            if fault is not None:
                failures[path] = fault
            elif mode not in ORDINARY_MODES:
                converted[CONVERTED_MODES.get(mode, mode)].append(path)
    return failures, dict(converted)


def _examine(path: Path) -> tuple[str, str | None]:
    """The colour mode of an image, and why it cannot be decoded (None when it can)."""
    decoded = decode_file(path, DECODED_SIDE)
    if isinstance(decoded, str):
        return "", decoded
    with open_image(path) as image:
        return image.mode, None


def _attributes(table: HandTable) -> Iterator[str]:
    counts = attribute_counts(table)
    for attribute, values in counts.groupby("attribute", sort=False):
        yield f"\n{attribute}"
        names = values["value"].map(one_line)
        width = max(names.str.len())
        for row in values.assign(value=names)[values["images"] > 0].itertuples(index=False):
            yield f"  {row.value:<{width}}  {row.images:>6} images of {row.identities} identities"


def _protocols(protocol: str, protocols: Mapping[str, pd.DataFrame | str]) -> Iterator[str]:
    """One table of all aspects' splits, then the reasons of those that have none."""
    columns = {}
    for aspect, found in protocols.items():
        if isinstance(found, pd.DataFrame):
            columns[aspect] = found.set_index("count")["found"].astype(str)
            if "published" in found:
                columns[aspect] += " of " + found.set_index("count")["published"].astype(str)
    if columns:
        published = any(isinstance(found, pd.DataFrame) and "published" in found for found in protocols.values())
        yield f"\nProtocol {protocol}" + (", found of published" if published else "")
        yield pd.DataFrame(columns).rename_axis(None).to_string()
    for aspect, found in protocols.items():
        if isinstance(found, str):
            yield f"\nNo split of {aspect}: {found}"
