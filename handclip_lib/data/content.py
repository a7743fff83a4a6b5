"""What is in the files of a data set: which there are, and a key of each one's bytes, read once and recorded."""

import json
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from handclip_lib.errors import WriteError
from handclip_lib.files import whole_file
from handclip_lib.machine import cores
from handclip_lib.places import HD_DISTRACTORS, HD_IDENTITIES, METADATA, PHOTOGRAPHS, cache_folder

ABSENT, UNREADABLE = "absent", "unreadable: "
SETTLED_NS = 2_000_000_000  # a file touched so shortly before it was read may change again within one tick of its clock
OF_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # put into a folder by looking at it: that is no other data set
AT_ONCE = 64  # files a task of the pool: one each costs more than a look at the file
THUMBNAILS = {"@eadir", "thumbs", "thumbnails", "_thumbs", "__macosx", "#recycle", "$recycle.bin", "lost+found"}
"""Folders, in small letters, that hold copies of what lies beside them, or what was thrown away."""
logger = logging.getLogger(__name__)
Facts = list[int]
"""Size, time of the last write and of the last change of any kind in nanoseconds, inode, device."""


def content_keys(root: Path | str, paths: Iterable[str], progress: bool = True) -> tuple[str, ...]:
    """A key of the bytes of each file: blake2b, 32 hex digits, in the order given.

    It is "absent" for a file that is not there, and "unreadable: " with the reason for one that cannot be read.

    A file is read again when its size, a time of it, its inode or its device is another than when it was read
    before; links are followed. Nobody can set the time of the last change of any kind, so new bytes are noticed under
    an old size and an old date too. A file that was touched within two seconds of being read is not recorded: it is
    read again until it rests (git calls such an entry racy).
    A bar of progress appears where it takes long.
    """
    root, paths = os.path.abspath(root), tuple(paths)  # noqa: PTH100 - plain text is three times faster on large trees
    file = record_file(root)
    known, new = read_record(file), dict[str, tuple[Facts, str]]()

    def keys(some: tuple[str, ...]) -> list[str]:
        return [_key(f"{root}/{path}", path, known, new) for path in some]

    from tqdm.auto import tqdm  # imports much, and whoever lists runs reads no data

    found: list[str] = []
    bar = tqdm(total=len(paths), desc="reading files", unit="file", disable=not progress, leave=False, delay=1)
    with ThreadPoolExecutor(cores()) as pool, bar:
        for part in pool.map(keys, (paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE))):
            found += part
            bar.update(len(part))
    add_to_record(file, new)
    return tuple(found)


def data_files(dataset: str, root: Path) -> list[str]:
    """Every file that opening a data set of one of `READERS` looks at: paths below its folder, in order, links too."""
    if dataset == "11k":
        return [METADATA, *_below(root, PHOTOGRAPHS, deep=False)]
    if dataset == "hd":
        return [path for place in (HD_IDENTITIES, HD_DISTRACTORS) for path in _below(root, place, deep=False)]
    return files_below(root).files


@dataclass(frozen=True)
class Found:
    """What lies below a folder.

    Attributes:
        files: Paths below it, in order; hidden files and those that systems put there are none.
        skipped: Folders of thumbnails and the like, which are not looked into.
        loops: Links that lead back to a folder above them.
    """

    files: list[str]
    skipped: list[str]
    loops: list[str]


def files_below(root: Path) -> Found:
    """The files in a folder and in all below it, through links too."""
    found = Found([], [], [])
    found.files.extend(_below(root, "", True, found))
    return found


def _below(
    root: Path, place: str, deep: bool, found: Found | None = None, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[str]:
    """Paths of the files in a folder; deep: in those below it too, but for hidden ones, thumbnails and loops."""
    try:
        status = (root / place).stat()
        entries = sorted(os.scandir(root / place), key=lambda entry: entry.name)
    except OSError:  # what reads the data says so
        return
    own = (status.st_dev, status.st_ino)
    if own in above and found is not None:
        found.loops.append(place)
    for entry in entries if own not in above else ():
        if entry.name in OF_SYSTEMS:
            continue
        path = f"{place}/{entry.name}" if place else entry.name
        is_folder = False
        with suppress(OSError):  # a link to itself
            is_folder = entry.is_dir()
        if not is_folder:
            if not (deep and entry.name.startswith(".")):
                yield path
        elif deep and entry.name.casefold() in THUMBNAILS and found is not None:
            found.skipped.append(path)
        elif deep and not entry.name.startswith("."):
            yield from _below(root, path, deep, found, (*above, own))


def is_content(key: str) -> bool:
    """Whether a key is of bytes that were read, and not "absent" or "unreadable: …"."""
    return bool(key) and key != ABSENT and not key.startswith(UNREADABLE)


def _key(name: str, path: str, known: Mapping[str, Any], new: dict[str, tuple[Facts, str]]) -> str:
    try:
        facts = _facts(os.stat(name))  # noqa: PTH116 - as above
        recorded, digest = known.get(path, (None, ""))
        if recorded == facts:
            return digest
        with open(name, "rb", opener=_without_waiting) as file:
            opened = os.fstat(file.fileno())
            if not stat.S_ISREG(opened.st_mode):
                return f"{UNREADABLE}it is no file"
            began = time.time_ns()
            digest = file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
            facts = _facts(os.fstat(file.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return f"{UNREADABLE}{getattr(error, 'strerror', None) or error}"
    if facts == _facts(opened) and max(facts[1:3]) + SETTLED_NS < began:
        new[path] = facts, digest
    return digest


def _facts(found: os.stat_result) -> Facts:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _without_waiting(name: str, flags: int) -> int:
    """Open a named pipe too, which would else wait for its writer; on files the flag does nothing."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def record_file(root: str, of: str = "") -> Path:
    """Where it is recorded what was found in the files of a folder, its absolute path; `of` names another record."""
    name = blake2b(os.fsencode(f"{of}\0{root}" if of else root), digest_size=16).hexdigest()
    return cache_folder() / "content" / f"{name}.json"


def read_record(file: Path) -> dict[str, Any]:
    """What was recorded, by name; nothing where there is no record or it is damaged."""
    try:
        checksum, _, text = file.read_text(encoding="ascii").partition("\n")
        if _checksum(text) != checksum:
            raise ValueError("its checksum differs")
        return dict(json.loads(text))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("the record %s of files that were read is of no use (%s); they are read again", file, error)
        return {}


def add_to_record(file: Path, new: dict[str, Any]) -> None:
    """Record more, beside what other processes recorded meanwhile; without it the files are read again next time."""
    if not new:
        return
    text = json.dumps(read_record(file) | new)
    try:
        with whole_file(file, "files are read again next time") as private:
            private.write_text(f"{_checksum(text)}\n{text}", encoding="ascii")
    except WriteError as error:  # what was found is right without it
        logger.warning("%s", error)


def _checksum(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
