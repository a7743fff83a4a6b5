"""The PolyU Hand Dorsal data set (HD): `Original Images/1-501/ID_*.jpg` and the distractors of `502-712`."""

import re
from pathlib import Path

import pandas as pd

from handclip_lib.data.table import IMAGE_SUFFIXES, HandTable, capture_number
from handclip_lib.errors import DataError
from handclip_lib.places import HD_DISTRACTORS, HD_IDENTITIES

DISTRACTOR_OFFSET = 1000


def read_hd(root: Path | str) -> HandTable:
    """Read the HD data set; the identity is the number before the first underscore of the file name.

    The images of `502-712` are distractors: gallery images of other people, whose identity is their number + 1000.

    Raises:
        DataError: The two folders are absent or hold no image.

    Source: Kumar & Xu, "Personal Identification using Minor Knuckle Patterns", CVPR Workshops 2014.
    """
    root = Path(root).absolute()
    if not (root / HD_IDENTITIES).is_dir():
        raise DataError(_misplaced(root))
    rows, left_out = [], {}
    for folder, offset in ((HD_IDENTITIES, 0), (HD_DISTRACTORS, DISTRACTOR_OFFSET)):
        for file in sorted((root / folder).glob("*")):
            if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file():
                continue
            path = file.relative_to(root).as_posix()
            number = re.match(r"([0-9]+)_", file.name)
            if number is None:
                left_out[path] = "its name does not begin with a number and an underscore"
            elif file.stat().st_size == 0:
                left_out[path] = "the file is empty (0 bytes)"
            else:
                identity = str(int(number[1]) + offset)
                capture = capture_number(file.name)
                rows.append({"path": path, "identity": identity, "view": "dorsal", "capture": capture})
    without = (
        f"{HD_DISTRACTORS!r} is absent: the gallery has no distractors, which makes the task easier than published"
    )
    notes = [] if (root / HD_DISTRACTORS).is_dir() else [without]
    return HandTable.build("hd", root, rows, left_out, notes=notes)


def _misplaced(root: Path) -> str:
    """Say why a folder is not the HD data set, and which folder may be meant."""
    if not root.is_dir():
        return f"{root} is not a folder; name the folder that holds 'Original Images'"
    above = next((folder for folder in root.parents if (folder / HD_IDENTITIES).is_dir()), None)
    if above:
        return f"{root} is inside the data set; name the folder above it: {above}"
    inner = next((folder for folder in sorted(root.iterdir()) if (folder / HD_IDENTITIES).is_dir()), None)
    if inner:
        return f"{root} holds no folder {HD_IDENTITIES!r}, but {inner} does: name that folder"
    return f"{root} holds no folder {HD_IDENTITIES!r}; name the folder that holds 'Original Images'"


def is_distractor(images: pd.DataFrame) -> "pd.Series[bool]":
    """True for the rows of an HD table that belong to no test subject."""
    return images["path"].str.startswith(HD_DISTRACTORS + "/")
