"""Where HandCLIP keeps what can be made again, and how a data folder typed by a person is found."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from handclip_lib.errors import DataError

METADATA, PHOTOGRAPHS = "HandInfo.csv", "Hands"
"""Of 11k Hands: its labels, and the folder of its photographs."""
HD_IDENTITIES, HD_DISTRACTORS = "Original Images/1-501", "Original Images/502-712"
"""Folders of the HD data set."""


def cache_folder() -> Path:
    """The folder of decoded images, features, drawn hands and downloads: `HANDCLIP_CACHE`, or the user's cache."""
    named = os.environ.get("HANDCLIP_CACHE")
    return Path(named).expanduser().absolute() if named else user_cache_path("handclip")


def project_root() -> Path:
    """The nearest folder at or above the working one with `notebooks/` and `pyproject.toml`, else the working one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return here


def find_data_root(data_root: str) -> Path:
    """Find a data folder as typed, from the working folder or else from the project's.

    Raises:
        DataError: No such folder in either place, or it is a file, or cannot be looked at.
    """
    if not data_root.strip():
        raise DataError("data_root is empty; name the folder that holds the photographs: -p data_root FOLDER")
    try:
        typed = Path(data_root).expanduser()
        tried = list(dict.fromkeys([(Path.cwd() / typed).absolute(), (project_root() / typed).absolute()]))
        for folder in tried:
            if folder.is_dir():
                return folder.resolve() if ".." in folder.parts else folder
            if folder.is_file():
                raise DataError(f"data_root={data_root!r} is a file; name the folder that holds the data set")
    except (OSError, RuntimeError) as error:  # RuntimeError: `~name` of a user who does not exist
        raise DataError(f"data_root={data_root!r} cannot be opened ({error}); name a folder you may read") from error
    places = " and ".join(str(folder) for folder in tried)
    raise DataError(
        f"data_root={data_root!r} does not exist; tried {places}; name the folder that holds the photographs"
    )
