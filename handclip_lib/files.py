"""Files that are whole or not there."""

import os
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
