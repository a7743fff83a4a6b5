"""Which HandCLIP this is: its version, and the commit it was made of where that is known."""

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

__version__ = "1.0.0"
MADE_OF = Path(__file__).with_name("made_of.json")
"""Written into a wheel by `tools/build_hook.py`: the commit it was built of."""


def commit_of_library() -> dict[str, Any] | None:
    """The commit of the library and whether its files differ from it; None where nobody knows.

    Of a checkout by git, of a wheel by what its build wrote down, of `pip install git+…` by what pip did.
    """
    checkout = Path(__file__).parents[1]
    if (checkout / ".git").exists():  # not of a folder above: a study's own repository may hold the environment
        return commit_of(checkout)
    with suppress(OSError, ValueError):
        return json.loads(MADE_OF.read_text(encoding="utf-8"))
    from importlib import metadata  # with the grammar of e-mail, for what is seldom asked

    with suppress(OSError, ValueError, LookupError, metadata.PackageNotFoundError):
        said = json.loads(metadata.distribution("handclip").read_text("direct_url.json") or "")
        return {"commit": said["vcs_info"]["commit_id"], "changed": False}
    return None


def commit_of(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder is checked out at and whether files below it differ; None outside of git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def described() -> str:
    """For `handclip --version`."""
    made_of = commit_of_library()
    if made_of is None:
        return f"handclip {__version__}"
    return f"handclip {__version__} ({made_of['commit'][:12]}{', files changed' if made_of['changed'] else ''})"
