"""Time two ways of the same work in one process, in turn, and print the ratio of the medians."""

import time
import tracemalloc
from collections.abc import Callable
from statistics import median


def compare(row: str, peer: Callable[[], object], ours: Callable[[], object], repeats: int = 5) -> float:
    """Run both once to warm up, then in turn; print and return the ratio. Memory is the peak of what each allocates."""
    memory = []
    for way in (peer, ours):
        tracemalloc.start()
        way()
        memory.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for way, times in zip((peer, ours), seconds, strict=True):
            began = time.perf_counter()
            way()
            times.append(time.perf_counter() - began)
    theirs, mine = median(seconds[0]), median(seconds[1])
    print(
        f"{row:<66} {theirs * 1e3:>10.1f} ms  {mine * 1e3:>9.1f} ms  {theirs / mine:>6.1f}×"
        f"  {memory[0]:>6.0f} / {memory[1]:.0f} MiB",
        flush=True,
    )
    return theirs / mine


def heading(title: str) -> None:
    """Print the head of a table of comparisons."""
    print(f"\n{title}\n{'':<66} {'peer':>13}  {'ours':>12}  {'ratio':>7}  {'peak memory':>14}")
