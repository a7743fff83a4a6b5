"""The user's folders: of the cache, of the reports, of the project, and of data as a person types it."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from handclip_lib.errors import ConfigError, DataError

METADATA, PHOTOGRAPHS = "HandInfo.csv", "Hands"
"""Of 11k Hands: its labels, and the folder of its photographs."""
HD_IDENTITIES, HD_DISTRACTORS = "Original Images/1-501", "Original Images/502-712"
"""Folders of the HD data set."""


def cache_folder() -> Path:
    """The folder of decoded images, features, drawn hands and downloads: `HANDCLIP_CACHE`, or the user's cache."""
    named = os.environ.get("HANDCLIP_CACHE")
    return Path(named).expanduser().absolute() if named else user_cache_path("handclip")


def reports_folder() -> Path:
    """The folder of runs, sweeps and reports: `HANDCLIP_REPORTS`, or `reports/` of the project."""
    named = os.environ.get("HANDCLIP_REPORTS")
    try:
        return Path(named).expanduser().absolute() if named else project_root() / "reports"
    except RuntimeError as error:  # `~name` of nobody
        raise ConfigError(f"HANDCLIP_REPORTS={named!r}: {error} Name the whole path of a folder") from error


def elsewhere() -> str:
    """What to add to a message of the reports where the working folder is outside every project; else ""."""
    if os.environ.get("HANDCLIP_REPORTS") or _is_project(project_root()):
        return ""
    return f" ({Path.cwd()} is in no project of HandCLIP: change to the project's folder, or set HANDCLIP_REPORTS)"


def project_root() -> Path:
    """The nearest folder at or above the working one with `notebooks/` and `pyproject.toml`, else the working one."""
    here = Path.cwd()
    return next(filter(_is_project, (here, *here.parents)), here)


def _is_project(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir()


def find_data_root(data_root: str) -> Path:
    """Find a data folder as typed, from the working folder or else from the project's; a DataError where none is."""
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
    places = " and ".join(map(str, tried))
    raise DataError(f"data_root={data_root!r} does not exist; tried {places}; name the folder of the photographs")
