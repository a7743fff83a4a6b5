"""The run id: a hash of parameters, notebook, library and all that is read, made before a kernel starts."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handclip_lib.errors import RunError
from handclip_lib.parameters.parts import Parameters
from handclip_lib.places import project_root
from handclip_lib.runs.inputs import reports_folder, what_is_read

__all__ = ["elsewhere", "git_state", "reports_folder", "run_id", "unwritable", "versions"]

PACKAGES = ("handclip", "torch", "openai-clip", "numpy", "pandas", "pillow", "papermill", "matplotlib")
LIBRARY = Path(__file__).parents[1]


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


def run_id(config: Parameters, notebook_source: str, read: Mapping[str, str] | None = None) -> str:
    """`<notebook>-<backbone>-<dataset>-<aspect>-<hash>`; the same for the same work on the same content.

    A part that the notebook has not (06 has no backbone) is left out.

    Args:
        config: Checked parameters.
        notebook_source: The notebook's code.
        read: Of `what_is_read` where it is known already.
    """
    digest = hashlib.sha256()
    for part in (
        json.dumps(config.model_dump(), sort_keys=True),
        notebook_source,
        _library_stamp(),
        json.dumps(what_is_read(config) if read is None else dict(read), sort_keys=True),
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


def _library_stamp() -> str:
    digest = hashlib.sha256()
    for file in sorted([*LIBRARY.rglob("*.py"), *LIBRARY.rglob("*.safetensors")]):
        digest.update(file.relative_to(LIBRARY).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
