"""A study: a folder of a user's own with the notebooks and parameter files, and their way to newer ones."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handclip_lib.errors import ConfigError
from handclip_lib.files import read_regular, write_text, writing
from handclip_lib.places import SHIPPED, STUDY, shipped
from handclip_lib.terminal import one_line
from handclip_lib.version import __version__

WRITTEN = ".handclip.json"
"""File of a study: the version that wrote it last, and a checksum of each file as that version has it."""
FRAME = Path(__file__).with_name("study_frame")
"""The files around notebooks and params: names that begin with `dot_` get a dot."""
NEW = ".new"
MOST = 5_000_000  # characters of a file, with what a notebook showed
KEYS = "metadata.papermill metadata.widgets cell.metadata.papermill cell.metadata.execution"


@dataclass
class Changes:
    """What `begin` or `update` did, by file: written, replaced, or left as it is, for which reason."""

    written: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For a person; a line a file that needs a look."""
        said = [f"{len(self.written)} files written, {len(self.replaced)} replaced by newer ones"]
        said += [f"  {name} is yours and stays; ours lies beside it as {Path(name).name}{NEW}" for name in self.beside]
        said += [f"  {name} was removed here and stays away" for name in self.removed]
        return [one_line(line) for line in said]


def begin(folder: Path) -> Changes:
    """Make a study of a folder; it may be there, with files, of which none is overwritten.

    Raises:
        ConfigError: It is a study already, or a checkout of HandCLIP, or no folder.
        WriteError: It cannot be written.
    """
    if (folder / STUDY).exists():
        raise ConfigError(f"{folder} is a study already; newer notebooks come by: handclip init --update {folder}")
    if (folder / "handclip_lib").is_dir():
        raise ConfigError(f"{folder} is a checkout of HandCLIP, which needs no study; name another folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder")
    return _bring(folder, _delivered(folder.absolute().name))


def update(folder: Path) -> Changes:
    """Bring the notebooks and files of this version to a study, without touching what was edited.

    A notebook is edited where its cells are: what they showed is not looked at. A file that was removed stays away.

    Raises:
        ConfigError: It is no study.
        WriteError: It cannot be written.
    """
    if not (folder / STUDY).is_file():
        raise ConfigError(f"{folder} is no study ({STUDY} is not there); make one: handclip init FOLDER")
    delivered = _delivered("")
    del delivered[STUDY]
    return _bring(folder, delivered)


def _bring(folder: Path, delivered: Mapping[str, str]) -> Changes:
    """Lay files into a folder, beside what is another's or edited there as `NAME.new`, and note their checksums."""
    before, done = _written(folder), Changes()
    with writing(folder, "name a folder you may write to"):
        for name, text in delivered.items():
            file, ours = folder / name, _checksum(name, text)
            there = _checksum_of(file, name)
            if there is None and name in before:
                done.removed.append(name)
            elif there is None:
                write_text(file, text)
                done.written.append(name)
            elif there != ours and there == before.get(name):
                write_text(file, text)
                done.replaced.append(name)
            elif there != ours and before.get(name) != ours:
                write_text(file.with_name(file.name + NEW), text)
                done.beside.append(name)
        checksums = {name: _checksum(name, text) for name, text in delivered.items()}
        record = {"handclip": __version__, "files": checksums}
        write_text(folder / WRITTEN, json.dumps(record, indent=1) + "\n")
    _strip_in_git(folder)
    return done


def _delivered(study: str) -> dict[str, str]:
    """Every file of a study of this name and its text, the one that makes it a study last."""
    root = shipped()
    files = [file for part in SHIPPED for file in _files(root / part)]
    texts = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}
    frame = {file.name.replace("dot_", "."): file.read_text(encoding="utf-8") for file in sorted(FRAME.iterdir())}
    return texts | {name: text.replace("STUDY_NAME", json.dumps(study)) for name, text in frame.items()}


def _files(folder: Path) -> list[Path]:
    found = [file for ending in ("*.ipynb", "*.md", "*.yml", "*.json") for file in folder.rglob(ending)]
    return sorted(file for file in found if ".ipynb_checkpoints" not in file.parts)


def _written(folder: Path) -> dict[str, str]:
    """Checksums of the files as they were written last; none where nobody knows, so that none is overwritten."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        found = json.loads(read_regular(folder / WRITTEN, MOST))["files"]
        return {str(name): str(checksum) for name, checksum in found.items()}
    return {}


def _checksum_of(file: Path, name: str) -> str | None:
    """Of a file as it is; "" where it cannot be read as text, None where it is not there."""
    try:
        return _checksum(name, read_regular(file, MOST))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return ""


def _checksum(name: str, text: str) -> str:
    """Of a text; of a notebook, of its cells alone."""
    if name.endswith(".ipynb"):
        with suppress(ValueError, LookupError, TypeError):
            cells: list[dict[str, Any]] = json.loads(text)["cells"]
            text = json.dumps([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    return hashlib.sha256(text.encode()).hexdigest()


def is_stripped(folder: Path) -> bool:
    """Whether git, where there is a repository at all, adds the folder's notebooks without what they showed."""
    try:
        return _git_config(folder, "required") == "true"
    except subprocess.CalledProcessError as error:
        return error.returncode != 1  # 1: no such value; others: no repository
    except (OSError, subprocess.SubprocessError):
        return True


def _strip_in_git(folder: Path) -> None:
    """Have the user's git add notebooks without what they showed, photographs of hands among it, where there is one."""
    clean = f'"{sys.executable}" -m nbstripout --keep-id --extra-keys "{KEYS}"'
    with suppress(OSError, subprocess.SubprocessError):  # no git, or no repository yet: the README says what to do
        for name, value in {"clean": clean, "smudge": "cat", "required": "true"}.items():
            _git_config(folder, name, value)


def _git_config(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "config", "--local", f"filter.handclip.{words[0]}", *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
