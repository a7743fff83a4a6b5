"""What makes a run the run it is: its parameters, notebook, library and data, hashed before a kernel starts."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from handclip_lib.config import Analysis, Parameters
from handclip_lib.data.places import find_data_root, project_root
from handclip_lib.errors import ConfigError, RunError
from handclip_lib.workbench.record import PROMPTS_OF, TRAININGS, find_run, sound_record

PACKAGES = ("handclip", "torch", "openai-clip", "numpy", "pandas", "pillow", "papermill", "matplotlib")
LIBRARY = Path(__file__).parents[1]


def reports_folder() -> Path:
    """`HANDCLIP_REPORTS`, or `reports/` of the project."""
    named = os.environ.get("HANDCLIP_REPORTS")
    try:
        return Path(named).expanduser().absolute() if named else project_root() / "reports"
    except RuntimeError as error:  # `~name` of a user who does not exist
        raise ConfigError(f"HANDCLIP_REPORTS={named!r}: {error} Name the whole path of a folder") from error


def unwritable(folder: Path, error: OSError) -> RunError:
    """What to say of a folder of the reports that cannot be written."""
    return RunError(
        f"{folder} cannot be written ({error.strerror or error}); free space there, or name another folder in the "
        "environment variable HANDCLIP_REPORTS"
    )


def elsewhere() -> str:
    """What to add to a message of the reports where the working folder is outside every project; else ""."""
    root = project_root()
    if os.environ.get("HANDCLIP_REPORTS") or ((root / "notebooks").is_dir() and (root / "pyproject.toml").is_file()):
        return ""
    return f" ({Path.cwd()} is in no project of HandCLIP: change to the project's folder, or set HANDCLIP_REPORTS)"


def run_id(config: Parameters, notebook_source: str) -> str:
    """`<notebook>-<backbone>-<dataset>-<aspect>-<hash>`; the same for the same work on the same data.

    A part that the notebook has not (06 has no backbone) is left out.
    """
    digest = hashlib.sha256()
    for part in (
        json.dumps(config.model_dump(), sort_keys=True),
        notebook_source,
        _library_stamp(),
        _data_stamp(config),
        _input_stamp(config),
    ):
        digest.update(part.encode() + b"\0")
    parts = (str(getattr(config, name, "")) for name in ("backbone", "dataset", "aspect"))
    return "-".join(word for word in (config.notebook, *parts, digest.hexdigest()[:8]) if word)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, read without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """The commit of the project and whether files differ from it, or None outside a checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(LIBRARY.parent), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _input_stamp(config: Parameters) -> str:
    """Which run "latest" means now; of an analysis, the runs there are."""
    if isinstance(config, Analysis):
        records = [sound_record(path.parent) for path in sorted((reports_folder() / "runs").glob("0[1-5]_*/run.json"))]
        return "\n".join(f"{record['id']} {record.get('started')} {record['status']}" for record in records if record)
    wanted = {"prompt_run": PROMPTS_OF, "trained_run": TRAININGS}
    return " ".join(_latest(*of) for name, of in wanted.items() if getattr(config, name, "") == "latest")


def _latest(*notebooks: str) -> str:
    try:
        return find_run(reports_folder() / "runs", "latest", *notebooks).name
    except RunError:
        return "none"  # the notebook says so


def _library_stamp() -> str:
    digest = hashlib.sha256()
    for file in sorted([*LIBRARY.rglob("*.py"), *LIBRARY.rglob("*.safetensors")]):
        digest.update(file.relative_to(LIBRARY).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def _data_stamp(config: Parameters) -> str:
    """Names and sizes of the data set's files: cheap, and enough to notice that the data changed."""
    data_root = getattr(config, "data_root", "")
    if not data_root or getattr(config, "dataset", "") == "drawn":
        return ""
    root = find_data_root(data_root)
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            file = os.path.join(folder, name)  # noqa: PTH118 - a large tree: plain text is three times faster
            try:
                size = os.path.getsize(file)  # noqa: PTH202
            except OSError:  # a link to nothing: the audit of the data says so
                size = -1
            digest.update(f"{os.path.relpath(file, root)}|{size}\n".encode("utf-8", "replace"))
    return digest.hexdigest()
