"""Cores and memory that this process may use, where a control group or Slurm lends it less than the machine has."""

import ctypes
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
SMALL = 2**27  # multiplications: ten milliseconds of one core
MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit, use, and which part of the use is given back when it is asked for; control groups of version 2, and of 1."""
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_THRESHOLD = 32 * 2**20  # that glibc comes to by itself, and twice that for trimming


def cores() -> int:
    """Cores this process may use: by its affinity, its control group's share of time, and Slurm; 1 or more."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    found = [len(affinity(0)) if affinity else os.cpu_count() or 1]
    for group in _groups("cpu"):
        quota, period = [*_words(group / "cpu.max"), "", ""][:2]
        if not quota:
            quota, period = ("".join(_words(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(math.ceil(int(quota) / int(period)))
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min([*found, int(slurm)] if slurm.isdigit() else found))


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads, one a core, each of which multiplies matrices alone: for work of which that is a part."""
    with _blas().limit(limits=1), ThreadPoolExecutor(cores()) as pool:
        yield pool


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed meanwhile, to be taken again, and give it back at the end. Not to be nested.

    Each training step frees and takes the same large tensors, and the system clears every page that it gives anew,
    which is a quarter of a small tower's step. glibc's allocator alone can be asked; others go on as they are.
    """
    try:
        libc: Any = ctypes.CDLL(None)
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):  # macOS and musl have neither, Windows no such library
        yield
        return
    for threshold in (MMAP_THRESHOLD, TRIM_THRESHOLD):
        mallopt(threshold, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)
        trim(0)


def products(multiplications: int) -> AbstractContextManager[Any]:
    """Matrix products of so many multiplications: by this thread alone where waking others takes longer than they."""
    return _blas().limit(limits=1) if multiplications < SMALL else nullcontext()


@cache
def _blas() -> Any:
    """What sets the threads of the libraries that multiply matrices, which takes milliseconds to find them."""
    import numpy  # noqa: F401  (whose library is to be found)
    from threadpoolctl import ThreadpoolController  # whoever only asks for the memory does without

    return ThreadpoolController().select(user_api="blas")


def total_memory() -> int:
    """Bytes this process may use in all."""
    import psutil  # whoever only asks for cores does without

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())])


def free_memory() -> int:
    """Bytes this process may still take: of the machine's, and of each control group it is in."""
    import psutil

    return max(0, min([psutil.virtual_memory().available, *(limit - used for limit, used in _limits())]))


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group that limits this process's memory."""
    for group in _groups("memory"):
        for limit, used, given_back in MEMORY_FILES:
            most, now = ("".join(_words(group / name)) for name in (limit, used))
            if most.isdigit() and now.isdigit():
                facts = _words(group / "memory.stat")
                spare = dict(zip(facts[::2], facts[1::2], strict=False)).get(given_back, "0")
                yield int(most), int(now) - int(spare)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of this process's control groups that may limit `controller`, and of those above them."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for root in (GROUPS / controller, GROUPS / controllers) if controllers else (GROUPS, GROUPS / "unified"):
            own = root / path.lstrip("/")  # in a container there may be no such folder, and the root is its own
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
