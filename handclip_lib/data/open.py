"""Open a data set by name."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from handclip_lib.data.folder import read_folder, read_hd
from handclip_lib.data.hands11k import read_hands11k
from handclip_lib.data.images import DecodedImages, Resolution, decode_images
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError
from handclip_lib.parameters.parts import Data
from handclip_lib.places import HD_IDENTITIES, METADATA, PHOTOGRAPHS, cache_folder, find_data_root

READERS: dict[str, Callable[[Path], HandTable]] = {"11k": read_hands11k, "hd": read_hd, "folder": read_folder}
DATASETS = ("drawn", *READERS)


def open_dataset(
    dataset: str, data_root: str = "", *, drawn_subjects: int = 140, drawn_images: int = 5, seed: int = 0
) -> HandTable:
    """Open a data set as one table.

    Args:
        dataset: "drawn" (drawn once into the cache), "11k", "hd" or "folder".
        data_root: Folder of the photographs, absolute, or relative to the working folder or the project's.
        drawn_subjects, drawn_images, seed: Of drawn hands: people, photographs of each aspect, and what draws them.

    Raises:
        DataError: The name is unknown, or the folder is not such a data set.
    """
    if dataset == "drawn":
        from handclip_lib.drawn.dataset import draw_dataset

        folder = cache_folder() / "drawn" / f"{drawn_subjects}x{drawn_images}-seed{seed}"
        root = draw_dataset(folder, subjects=drawn_subjects, images_per_aspect=drawn_images, seed=seed)
        return read_hands11k(root, dataset="drawn")
    if dataset not in READERS:
        near = get_close_matches(dataset.lower(), DATASETS, 1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"unknown dataset {dataset!r}; {hint}choose from {', '.join(DATASETS)}")
    root = find_data_root(data_root)
    try:
        return READERS[dataset](root)
    except OSError as error:
        raise DataError(
            f"{root} cannot be read ({error}); make its files readable or name another data_root"
        ) from error


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


def open_images(
    config: Data, resolution: Resolution, interpolation: str = "bicubic", *, progress: bool = True
) -> tuple[HandTable, DecodedImages, Split]:
    """What a notebook's parameters name: the table of what can be read, its images, and the split.

    Raises:
        DataError: There is no such data set, or the protocol does not fit it.
    """
    table = open_dataset(
        config.dataset, config.data_root, drawn_subjects=config.drawn_subjects, drawn_images=config.drawn_images
    )
    images = decode_images(
        table.root, table.images["path"], resolution, config.fit, progress=progress, interpolation=interpolation
    )
    table = table.without(images.failures)
    return table, images, make_split(table, config.aspect, config.protocol, config.seed, config.draws)
