"""Files that are whole or not there, and files of others, of which only regular ones of a sensible size are read."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A private path beside `path` to write; it becomes `path` when the block ends well, and is removed otherwise.

    Raises:
        OSError: The folder cannot be made or written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    private = path.with_name(f".{path.name}.{uuid4().hex[:8]}{path.suffix}")
    try:
        yield private
        os.replace(private, path)
    except BaseException:
        private.unlink(missing_ok=True)
        raise


def read_regular(path: Path, most: int) -> str:
    """Text of a regular file; a pipe, device or folder of its name is refused instead of waited for.

    Args:
        path: The file.
        most: Bytes it may have.

    Raises:
        OSError: It cannot be opened, or is no regular file.
        ValueError: It is larger, or no UTF-8.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode("utf-8")
