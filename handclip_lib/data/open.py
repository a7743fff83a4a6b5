"""Open a data set by name."""

from difflib import get_close_matches

from handclip_lib.data.folder import read_folder
from handclip_lib.data.hands11k import read_hands11k
from handclip_lib.data.hd import read_hd
from handclip_lib.data.places import cache_folder, find_data_root
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError

DATASETS = ("drawn", "11k", "hd", "folder")


def open_dataset(
    dataset: str, data_root: str = "", *, drawn_subjects: int = 140, drawn_images: int = 5, seed: int = 0
) -> HandTable:
    """Open a data set as one table.

    Args:
        dataset: "drawn" (drawn once into the cache), "11k", "hd" or "folder".
        data_root: Folder of the photographs, absolute, or relative to the working folder or the project's; unused
            for drawn hands.
        drawn_subjects: Number of subjects to draw.
        drawn_images: Photographs a drawn subject and aspect.
        seed: Seed of the drawn subjects.

    Raises:
        DataError: The name is unknown, or the folder is not such a data set.
    """
    match dataset:
        case "drawn":
            from handclip_lib.data.drawn import draw_dataset

            folder = cache_folder() / "drawn" / f"{drawn_subjects}x{drawn_images}-seed{seed}"
            root = draw_dataset(folder, subjects=drawn_subjects, images_per_aspect=drawn_images, seed=seed)
            return read_hands11k(root, dataset="drawn")
        case "11k":
            return read_hands11k(find_data_root(data_root))
        case "hd":
            return read_hd(find_data_root(data_root))
        case "folder":
            return read_folder(find_data_root(data_root))
    near = get_close_matches(dataset, DATASETS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise DataError(f"unknown dataset {dataset!r}; {hint}choose from {', '.join(DATASETS)}")
