"""The user's folders: of the project, of the cache, of the reports, and of data as a person types it."""

import os
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from handclip_lib.errors import ConfigError, DataError

METADATA, PHOTOGRAPHS = "HandInfo.csv", "Hands"
"""Of 11k Hands: its labels, and the folder of its photographs."""
LABELS = "manifest.csv"
"""Of data set csv: a row an image."""
HD_IDENTITIES, HD_DISTRACTORS = "Original Images/1-501", "Original Images/502-712"
"""Folders of the HD data set."""
TRAINED_ON = "trained_on"
"""Folder, in that of a training, of the manifests of what else trained its weights."""
PROJECT = "HANDCLIP_PROJECT"
STUDY = "study.toml"
"""What makes a folder a study; `handclip init` writes it."""
SHIPPED = ("notebooks", "params")
"""Folders of a project that the package has too."""


def cache_folder() -> Path:
    """The folder of decoded images, features, drawn hands and downloads: `HANDCLIP_CACHE`, or the user's cache."""
    return _named("HANDCLIP_CACHE") or _of_a_user(user_cache_path, "HANDCLIP_CACHE")


def reports_folder() -> Path:
    """The folder of runs, sweeps and reports: `HANDCLIP_REPORTS`, or `reports/` of the project.

    Outside every project it is one of the user's: the packaged notebooks may lie where nothing can be written.
    """
    if named := _named("HANDCLIP_REPORTS"):
        return named
    here = project()
    return here / "reports" if here else _of_a_user(user_data_path, "HANDCLIP_REPORTS") / "reports"


def elsewhere() -> str:
    """What to add to a message of the reports where the working folder is outside every project; else ""."""
    if os.environ.get("HANDCLIP_REPORTS") or project():
        return ""
    remedy = f"name one by --project FOLDER or {PROJECT}, or make one: handclip init FOLDER"
    return f" ({Path.cwd()} is in no project of HandCLIP: {remedy})"


def project() -> Path | None:
    """The study or checkout of HandCLIP that this works in; None: the notebooks are the packaged ones.

    `HANDCLIP_PROJECT` (which `handclip --project` sets), or the nearest at or above the working folder.

    Raises:
        ConfigError: `HANDCLIP_PROJECT` names none.
    """
    if named := _named(PROJECT):
        if not _is_project(named):
            remedy = f"name a folder with {STUDY}, or make one: handclip init FOLDER"
            raise ConfigError(f"{PROJECT}={os.environ[PROJECT]!r} is no project of HandCLIP; {remedy}")
        return named
    here = Path.cwd()
    return next(filter(_is_project, (here, *here.parents)), None)


def project_root() -> Path:
    """The folder whose `notebooks/` and `params/` are used: the project's, or else what is packaged."""
    return project() or shipped()


def shipped() -> Path:
    """The folder of `notebooks/` and `params/` as delivered: in a wheel, or the checkout around the library."""
    packaged = Path(__file__).with_name("shipped")
    return packaged if packaged.is_dir() else Path(__file__).parents[1]


def settle_home() -> None:
    """Give Jupyter, IPython and matplotlib a place in the named cache where the user has no home that can be written.

    So it is for a number without a name in a container, for many a service under cron, and on a read-only disk.
    """
    named = _named("HANDCLIP_CACHE")
    if not named:
        return
    try:
        if not os.access(Path.home(), os.W_OK | os.X_OK):
            for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
                os.environ.setdefault(variable, str(named / "home" / variable.lower()))
    except RuntimeError:  # no home is known at all
        os.environ["HOME"] = str(named / "home")


def _is_project(folder: Path) -> bool:
    checkout = (folder / "pyproject.toml").is_file() and (folder / "handclip_lib").is_dir()
    return (folder / STUDY).is_file() or (checkout and (folder / "notebooks").is_dir())


def _named(variable: str) -> Path | None:
    """The folder that an environment variable names."""
    named = os.environ.get(variable)
    try:
        return Path(named).expanduser().absolute() if named else None
    except RuntimeError as error:  # `~name` of nobody
        raise ConfigError(f"{variable}={named!r}: {error} Name the whole path of a folder") from error


def _of_a_user(folder: Callable[[str], Path], variable: str) -> Path:
    try:
        return folder("handclip")
    except RuntimeError as error:  # a process without HOME whose user has no entry, as in a container
        raise ConfigError(f"this user has no home folder; name a folder in {variable}") from error


def find_file(typed: str) -> Path:
    """A file as typed, from the working folder or else from the project's; as typed where it is in neither."""
    there = project_root() / typed
    return there if not Path(typed).exists() and there.is_file() else Path(typed)


def find_data_root(data_root: str) -> Path:
    """Find a data folder as typed, from the working folder or else from the project's; a DataError where none is."""
    if not data_root.strip():
        raise DataError("data_root is empty; name the folder that holds the photographs: -p data_root FOLDER")
    try:
        typed = Path(data_root).expanduser()
        tried = list(dict.fromkeys((here / typed).absolute() for here in (Path.cwd(), project()) if here))
        for folder in tried:
            if folder.is_dir():
                return folder.resolve() if ".." in folder.parts else folder
            if folder.is_file():
                raise DataError(f"data_root={data_root!r} is a file; name the folder that holds the data set")
    except (OSError, RuntimeError) as error:  # RuntimeError: `~name` of a user who does not exist
        raise DataError(f"data_root={data_root!r} cannot be opened ({error}); name a folder you may read") from error
    places = " and ".join(map(str, tried))
    raise DataError(f"data_root={data_root!r} does not exist; tried {places}; name the folder of the photographs")
