"""Loops compiled by numba, where it is installed and the work is worth its import; a numpy way stands beside each."""

import threading
from collections.abc import Callable

COMPILED_FROM = 2**25  # similarities in all, below which numba's import costs more than it saves
MOST_THREADS = 16

_compiled: dict[tuple[Callable, str], tuple[Callable, int] | None] = {}
_lock = threading.Lock()


def compiled(function: Callable, signature: str, n_scores: int) -> tuple[Callable, int] | None:
    """The function compiled, without the interpreter's lock, and on how many threads it may run.

    Args:
        function: Loops over arrays; it returns nothing.
        signature: numba's, such as "void(float32[:,::1], int64[::1])".
        n_scores: Similarities it will be asked about in all.

    Returns:
        None where numba is missing, or not worth its import.
    """
    key = (function, signature)
    if key not in _compiled and n_scores < COMPILED_FROM:
        return None
    with _lock:
        if key not in _compiled:
            _compiled[key] = _compile(function, signature)
    return _compiled[key]


def _compile(function: Callable, signature: str) -> tuple[Callable, int] | None:
    try:
        import numba
    except ImportError:  # not installed, or not for this version of numpy
        return None
    for cache in (True, False):  # whatever ails the cache (no folder to write, a full disk, a damaged file)
        try:
            made = numba.njit(signature, cache=cache, nogil=True, error_model="numpy")(function)
            # read, not asked for by get_num_threads(), which starts numba's own threads
            return made, min(MOST_THREADS, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        except Exception:
            continue
    return None
