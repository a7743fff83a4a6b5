"""Open a data set by name."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from handclip_lib.data.content import files_below
from handclip_lib.data.folder import read_folder
from handclip_lib.data.hands11k import read_hands11k
from handclip_lib.data.images import DecodedImages, Resolution, decode_images
from handclip_lib.data.labels import read_labels
from handclip_lib.data.manifest import Split
from handclip_lib.data.named_sets import SETS, named_set, read_hd
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import IMAGE_SUFFIXES, HandTable
from handclip_lib.errors import DataError
from handclip_lib.parameters.parts import Data
from handclip_lib.places import HD_IDENTITIES, LABELS, METADATA, PHOTOGRAPHS, cache_folder, find_data_root

READERS: dict[str, Callable[..., HandTable]] = {
    "11k": read_hands11k, "hd": read_hd, "folder": read_folder, "csv": read_labels, **SETS,
}  # fmt: skip
DATASETS = ("drawn", *READERS)
OPENED_BY = (
    "dataset", "data_root", "drawn_subjects", "drawn_images", "identity", "identity_level", "session_level",
)  # fmt: skip
"""Parameters of `Data` that say which table is opened."""


def open_dataset(
    dataset: str, data_root: str = "", *, drawn_subjects: int = 140, drawn_images: int = 5, seed: int = 0,
    identity: str = "auto", identity_level: int = 0, session_level: int = 0,
) -> HandTable:  # fmt: skip
    """Open a data set as one table.

    Args:
        dataset: One of `DATASETS`; "drawn" is drawn once into the cache.
        data_root: Folder of the photographs, absolute, or relative to the working folder or the project's.
        drawn_subjects, drawn_images, seed: Of drawn hands: people, photographs of each aspect, and what draws them.
        identity: "subject", "hand": a left and a right hand are two identities, or "auto": as the set is published.
        identity_level, session_level: Of data set folder, as `read_folder` takes them.

    Raises:
        DataError: The name is unknown, or the folder is not such a data set.
    """
    if dataset == "drawn":
        from handclip_lib.drawn.dataset import draw_dataset

        folder = cache_folder() / "drawn" / f"{drawn_subjects}x{drawn_images}-seed{seed}"
        root = draw_dataset(folder, subjects=drawn_subjects, images_per_aspect=drawn_images, seed=seed)
        return identified_by(read_hands11k(root, dataset="drawn"), identity)
    if dataset not in READERS:
        near = get_close_matches(dataset.lower(), DATASETS, 1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"unknown dataset {dataset!r}; {hint}choose from {', '.join(DATASETS)}")
    root = find_data_root(data_root)
    read = READERS[dataset]
    if dataset == "folder" and (identity_level or session_level):
        read = partial(read, identity_level=identity_level, session_level=session_level)
    try:
        return identified_by(read(root), identity)
    except OSError as error:
        raise DataError(
            f"{root} cannot be read ({error}); make its files readable or name another data_root"
        ) from error


def identified_by(table: HandTable, what: str) -> HandTable:
    """The table whose identities are its subjects or their hands; `what` as `open_dataset` takes `identity`.

    Raises:
        DataError: The hand of an image is not known.
    """
    images = table.images
    if what == "auto":
        return table
    if what == "subject":
        return replace(table, images=images.assign(identity=images["subject"]))
    if (images["side"] == "").any():
        path = images["path"][images["side"] == ""].iloc[0]
        raise DataError(f"identity='hand': of {path} it is not known which hand it shows; use identity='subject'")
    return replace(table, images=images.assign(identity=images["subject"] + " " + images["side"]))


def table_of(config: Data) -> HandTable:
    """The table that a notebook's parameters name."""
    return open_dataset(**config.model_dump(include=set(OPENED_BY)))


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
    if original in root.parts or any((folder / HD_IDENTITIES).is_dir() for folder in near):
        return "hd"
    if (root / LABELS).is_file():
        return "csv"
    images = [path for path in files_below(root).files if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    return named_set(images) or "folder"


def open_images(
    config: Data, resolution: Resolution, *, progress: bool = True
) -> tuple[HandTable, DecodedImages, Split]:
    """What a notebook's parameters name: the table of what can be read, its images, and the split.

    Raises:
        DataError: There is no such data set, or the protocol does not fit it.
    """
    table = table_of(config)
    images = decode_images(table.root, table.images["path"], resolution, config.fit, progress=progress)
    table = table.without(images.failures)
    return table, images, make_split(table, config.aspect, config.protocol, config.seed, config.draws)
