"""The PolyU Hand Dorsal data set (HD): `Original Images/1-501/ID_*.jpg` and the distractors of `502-712`."""

import re
from pathlib import Path

import pandas as pd

from handclip_lib.data.table import IMAGE_SUFFIXES, HandTable, capture_number
from handclip_lib.errors import DataError

IDENTITIES, DISTRACTORS = "Original Images/1-501", "Original Images/502-712"
DISTRACTOR_OFFSET = 1000


def read_hd(root: Path | str) -> HandTable:
    """Read the HD data set; the identity is the number before the first underscore of the file name.

    The images of `502-712` are distractors: gallery images of other people, whose identity is their number + 1000.

    Raises:
        DataError: The two folders are absent or hold no image.

    Source: Kumar & Xu, "Personal Identification using Minor Knuckle Patterns", CVPR Workshops 2014.
    """
    root = Path(root).absolute()
    if not (root / IDENTITIES).is_dir():
        raise DataError(f"{root} holds no folder {IDENTITIES!r}; name the folder that holds 'Original Images'")
    rows, left_out = [], {}
    for folder, offset in ((IDENTITIES, 0), (DISTRACTORS, DISTRACTOR_OFFSET)):
        for file in sorted((root / folder).glob("*")):
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            path = file.relative_to(root).as_posix()
            number = re.match(r"([0-9]+)_", file.name)
            if number is None:
                left_out[path] = "its name does not begin with a number and an underscore"
            elif file.stat().st_size == 0:
                left_out[path] = "the file is empty (0 bytes)"
            else:
                identity = str(int(number[1]) + offset)
                rows.append(
                    {
                        "path": path,
                        "identity": identity,
                        "view": "dorsal",
                        "capture": capture_number(file.name),
                    }
                )
    return HandTable.build("hd", root, rows, left_out)


def is_distractor(images: pd.DataFrame) -> "pd.Series[bool]":
    """True for the rows of an HD table that belong to no test subject."""
    return images["path"].str.startswith(DISTRACTORS + "/")
