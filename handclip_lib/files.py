"""Files that are whole or not there and their owner's alone, their checksums, and the reading of others' files."""

import errno
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock
from safetensors import SafetensorError

from handclip_lib.errors import WriteError

SHARED = "HANDCLIP_SHARED"  # variable: 1 where a group shares cache and reports
REMEDY = (
    "free space there, make it yours, or name another place: that of runs and reports by the environment variable "
    "HANDCLIP_REPORTS, that of the cache by HANDCLIP_CACHE"
)


def only_ours() -> bool:
    """Whether what is written is for this user alone: photographs of hands tell who it is; else the umask decides."""
    return os.environ.get(SHARED, "") in ("", "0")


def umask() -> int:
    """For the processes that write runs: their notebook, its libraries, and theirs; -1 leaves the user's."""
    return 0o077 if only_ours() else -1


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, for this user alone or as the umask says."""
    for each in [*reversed(path.parents), path]:
        if not each.is_dir():
            each.mkdir(0o700 if only_ours() else 0o777, exist_ok=True)


def begin_file(path: Path) -> int:
    """Make an empty file, for this user alone or as the umask says, where there is none; return its mode."""
    path.touch(0o600 if only_ours() else 0o666)
    return path.stat().st_mode & 0o777


def file_lock(path: Path, timeout: float = -1) -> FileLock:
    """What one process holds at a time, by a file; `timeout` in seconds, -1 waits until it is free."""
    begin_file(path)
    return FileLock(path, timeout=timeout)


@contextmanager
def writing(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Of a block that writes: what keeps it from that is told in one sentence, a WriteError, with the remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WriteError(f"{path} cannot be written ({getattr(error, 'strerror', None) or error}); {remedy}") from error


@contextmanager
def whole_file(path: Path, remedy: str = REMEDY) -> Iterator[Path]:
    """A private path beside `path` to write; it becomes `path` when the block ends well, and is removed otherwise."""
    if path.is_dir():
        raise WriteError(f"{path} is a folder; name a file in it")
    private = path.with_name(f".{path.name}.{uuid4().hex[:8]}{path.suffix}")
    with writing(path, remedy):
        make_folder(path.parent)
        try:
            mode = begin_file(private)
            yield private
            if private.stat().st_mode & 0o777 != mode:  # safetensors makes a file of its own in its place
                private.chmod(mode)
            os.replace(private, path)
        except BaseException:
            private.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a file of text whole or not at all; signs that are no UTF-8, as in names of files, are written out."""
    with whole_file(path) as private:
        private.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


UNSEALED = {"handclip_crc32": "--------"}
"""Goes into the header's metadata of a .safetensors file: room for its checksum, which `seal` writes there."""
_ROOM = next(iter(UNSEALED.values())).encode()
_FIELD = f'"{next(iter(UNSEALED))}":"'.encode()
_CHUNK = 2**22


def seal(path: Path) -> None:
    """Write the checksum of a .safetensors file, header and all, into the room that `UNSEALED` left in its header.

    The facts in the header are put in order first: safetensors writes them in another with each process.
    """
    _sort_facts(path)
    found = _checksum(path)
    assert found is not None, f"{path} was written without UNSEALED"
    place, checksum = found
    with path.open("r+b") as file:
        file.seek(place)
        file.write(checksum)


def _sort_facts(path: Path) -> None:
    with path.open("r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little")).decode()
        start = header.index(mark := '"__metadata__":') + len(mark)
        facts, end = json.JSONDecoder().raw_decode(header, start)
        ordered = json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert len(ordered) == end - start, "the facts are written as JSON is here"
        file.seek(8 + len(header[:start].encode()))
        file.write(ordered.encode())


def is_sealed(path: Path) -> bool:
    """Read a .safetensors file through, and say whether it has a checksum at all.

    CRC-32 tells every change of up to 32 bits in a row, and any other (a hole, another page) but once in 4 billion.

    Raises:
        OSError: The file cannot be read.
        ValueError: The content is not that of the checksum.
    """
    found = _checksum(path)
    if found is None:
        return False
    place, checksum = found
    with path.open("rb") as file:
        file.seek(place)
        if file.read(len(checksum)) != checksum:
            raise ValueError("its content is not what was written: bytes changed, or a part is missing")
    return True


def _checksum(path: Path) -> tuple[int, bytes] | None:
    """Where the checksum stands in the file, and what it should be; None where there is no room for it."""
    with path.open("rb") as file:
        size = file.read(8)
        header = file.read(min(int.from_bytes(size, "little"), path.stat().st_size))
        start = header.find(_FIELD) + len(_FIELD)
        if start < len(_FIELD):
            return None
        checksum = zlib.crc32(header[:start] + _ROOM + header[start + len(_ROOM) :], zlib.crc32(size))
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return len(size) + start, f"{checksum:08x}".encode()


def read_regular(path: Path, most: int) -> str:
    """Text of a regular file; a pipe, device or folder of its name is refused instead of waited for.

    Raises:
        OSError: It cannot be opened, or is no regular file.
        ValueError: It has more bytes than `most`, or is no UTF-8.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode("utf-8")
