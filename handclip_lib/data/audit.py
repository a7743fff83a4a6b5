"""What a researcher asks of a data set before training on it, and `handclip data check ROOT`.

Counts, balance, sizes, what is missing, and why images are left out.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from handclip_lib.data.images import decode_file, open_image
from handclip_lib.data.open import READERS, open_dataset, recognised
from handclip_lib.data.splits import PROTOCOLS, Split, make_split
from handclip_lib.data.table import ASPECTS, HandTable, as_groups
from handclip_lib.errors import DataError
from handclip_lib.machine import cores
from handclip_lib.places import find_data_root
from handclip_lib.terminal import one_line, visible

ATTRIBUTES = ("aspect", "gender", "skin_color", "age", "accessories", "nail_polish", "irregularities")
LAYOUTS = ("auto", *READERS)
DECODED_SIDE = 32  # pixels; a JPEG is still read to its last byte, but decoded eight times smaller
CONVERTED_MODES = {
    "CMYK": "CMYK", "YCCK": "CMYK", "P": "palette", "PA": "palette", "1": "1-bit", "I": "16-bit", "I;16": "16-bit",
    "I;16B": "16-bit", "I;16L": "16-bit", "F": "floating-point", "RGBA": "transparent", "LA": "transparent",
}  # fmt: skip

PUBLISHED_COUNTS = pd.DataFrame(
    {
        "dorsal_r": (72, 890, 72, 71, 1042, 971, 71, 290),
        "dorsal_l": (73, 735, 73, 73, 1061, 988, 73, 290),
        "palmar_r": (72, 905, 72, 71, 988, 917, 71, 290),
        "palmar_l": (76, 928, 76, 75, 1023, 948, 75, 290),
    },
    index=["train identities", "train", "val", "test identities", "test", "query", "gallery aspect", "gallery all"],
)
"""Images and identities of 11k Hands by aspect, standard protocol. Source: Baisa, "Multi-Branch with Attention Network
for Hand-Based Person Recognition", ICPR 2022; counted from the metadata (Afifi 2019)."""


def split_counts(split: Split) -> pd.DataFrame:
    """Count what a split holds: columns `count`, `found` and, where the protocol has it, `published`.

    Query and gallery are those of one draw.
    """
    roles, identity, draw = split.images["role"], split.images["identity"], split.draw(0, "aspect")
    images = {role: int((roles == role).sum()) for role in ("train", "val", "test")}
    people = {role: identity[roles == role].nunique() for role in ("train", "test")}
    counts = (
        people["train"], images["train"], images["val"], people["test"], images["test"], len(draw.query_paths),
        len(draw.gallery_paths), len(split.draw(0, "all").gallery_paths),
    )  # fmt: skip
    frame = pd.DataFrame({"count": PUBLISHED_COUNTS.index, "found": counts})
    aspect = split.meta["aspect"]
    if split.meta["protocol"] == "standard" and aspect in PUBLISHED_COUNTS:
        frame["published"] = PUBLISHED_COUNTS[aspect].to_numpy()
    return frame


def split_facts(split: Split) -> pd.DataFrame:
    """What a reader must know of a split to read its figures: columns `fact` and `value` (text)."""
    meta = split.meta
    alone = meta["unqueryable"]
    names = f" ({', '.join(alone[:8])}{', …' if len(alone) > 8 else ''})" if alone else ""
    facts = [
        ("protocol", meta["protocol"]),
        ("aspect", meta["aspect"]),
        ("identities up to this one train", "—" if meta["cutoff"] is None else str(meta["cutoff"])),
        ("draws, seed", f"{meta['draws']}, {meta['seed']}"),
        ("test identities with one image, never a query", f"{len(alone)}{names}"),
        *((f"note {number}", note) for number, note in enumerate(meta["notes"], 1)),
        ("checksum of the manifest", split.checksum[:16]),
    ]
    return pd.DataFrame(facts, columns=["fact", "value"])


def data_cautions(split: Split) -> list[str]:
    """What must be said with every figure on these data, a sentence each."""
    return (
        ["Synthetic: the hands are drawn, so no figure here is a result about people."]
        if split.meta["dataset"] == "drawn"
        else []
    )


def left_out_reasons(table: HandTable) -> pd.DataFrame:
    """Group the images that were left out by reason: columns `reason`, `images`, `for example` (a path)."""
    if table.left_out.empty:
        return pd.DataFrame(
            {"reason": ["every image that was found could be used"], "images": [0], "for example": [""]}
        )
    grouped = table.left_out.groupby("reason", sort=False)["path"]
    frame = pd.DataFrame({"images": grouped.size(), "for example": grouped.first()})
    return frame.sort_values("images", ascending=False).reset_index(names="reason")


def no_part(table: HandTable, split: Split) -> str:
    """How many images could not be used, and how many others the protocol does not use, such as with accessories."""
    unused = len(set(table.images["path"]) - set(split.images["path"]))
    return f"{len(table.left_out)} images cannot be used, {unused} others are not in this split"


def attribute_counts(table: HandTable) -> pd.DataFrame:
    """Columns `attribute`, `value` (text; ages in bands of years), `images`, `identities`, of what is recorded."""
    images = table.images
    parts = []
    for attribute in ATTRIBUTES:
        values = images[attribute]
        if values.isna().all() or values.astype("string").eq("").all():
            continue
        grouped = images.groupby(as_groups(values), sort=True)["identity"]
        part = pd.DataFrame({"images": grouped.size(), "identities": grouped.nunique()})
        parts.append(part.rename_axis("value").reset_index().assign(attribute=attribute))
    if not parts:
        return pd.DataFrame(columns=["attribute", "value", "images", "identities"])
    return pd.concat(parts, ignore_index=True)[["attribute", "value", "images", "identities"]]


def images_per_identity(table: HandTable) -> pd.Series:
    """Number of images of each identity, most first; the index is the identity."""
    return table.images.groupby("identity").size().sort_values(ascending=False, kind="stable")


def image_sizes(table: HandTable) -> pd.DataFrame:
    """Columns `path`, `width` and `height` (pixels, of the file's header); each must be readable (`decode_images`)."""
    paths = list(table.images["path"])

    def size(path: str) -> tuple[int, int]:
        with open_image(table.root / path) as image:
            return image.size

    with ThreadPoolExecutor() as pool:
        sizes = list(tqdm(pool.map(size, paths), total=len(paths), desc="image sizes", unit="image", leave=False))
    return pd.DataFrame({"path": paths, "width": [w for w, _ in sizes], "height": [h for _, h in sizes]})


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; as text, what the command prints.

    Attributes:
        table: The data set, less the images that could not be decoded when `deep`.
        protocol: The one that was planned, "auto" for the data set's own where none could be.
        protocols: For each aspect what its split holds (see `split_counts`), or why there is none.
        converted: Paths of the images that are converted to RGB, by their kind; empty unless `deep`.
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
        root: The folder, as `find_data_root` finds it.
        dataset: "11k", "hd", "folder", or "auto" to recognise it.
        deep: Decode every image, to find those that are damaged, too large or of an unusual kind.
        progress: Show a progress bar.
        protocol: Of the split that is planned, as `make_split` takes it.

    Raises:
        DataError: The protocol is unknown, the folder is not a data set, or none of its images can be used.
    """
    if dataset not in LAYOUTS:
        raise DataError(f"unknown dataset {dataset!r}; choose from {', '.join(LAYOUTS)}")
    if protocol not in PROTOCOLS:
        raise DataError(f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    folder = find_data_root(str(root))
    table = open_dataset(recognised(folder) if dataset == "auto" else dataset, str(folder))
    converted: dict[str, list[str]] = {}
    if deep:
        failures, converted = _decode_all(table, progress)
        table = table.without(failures)
    there, made = set(table.images["aspect"]), protocol
    found: dict[str, pd.DataFrame | str] = {}
    for aspect in [aspect for aspect in ASPECTS if aspect in there] or ["all"]:
        try:
            split = make_split(table, aspect, protocol)
            found[aspect], made = split_counts(split), split.meta["protocol"]
        except DataError as error:
            found[aspect] = str(error)
    return CheckReport(table, made, found, converted, deep)


def _decode_all(table: HandTable, progress: bool) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Reasons of the images that cannot be decoded, and the paths of those that are converted, by kind."""
    paths = list(table.images["path"])
    failures: dict[str, str] = {}
    converted: dict[str, list[str]] = defaultdict(list)
    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of large images; decode_file says it with the file's name
        results = pool.map(_examine, (table.root / path for path in paths))
        bar = tqdm(results, total=len(paths), desc="decoding", unit="image", disable=not progress, leave=False)
        for path, (mode, fault) in zip(paths, bar, strict=True):
            if fault is not None:
                failures[path] = fault
            elif mode not in ("RGB", "L"):
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
    columns, published = {}, ""
    for aspect, found in protocols.items():
        if isinstance(found, pd.DataFrame):
            columns[aspect] = found.set_index("count")["found"].astype(str)
            if "published" in found:
                columns[aspect] += " of " + found.set_index("count")["published"].astype(str)
                published = ", found of published"
    if columns:
        yield f"\nProtocol {protocol}{published}"
        yield pd.DataFrame(columns).rename_axis(None).to_string()
    for aspect, found in protocols.items():
        if isinstance(found, str):
            yield f"\nNo split of {aspect}: {found}"
