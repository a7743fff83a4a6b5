"""Time two ways of the same work in one process, in turn, and print the ratio of the medians."""

import ctypes
import gc
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median

TURN = 0.5  # seconds each way has at a turn, at least


def allocated(way: Callable[[], object]) -> float:
    """Peak of what Python and numpy allocate, MiB."""
    tracemalloc.start()
    way()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peak


def resident(way: Callable[[], object]) -> float:
    """How much the process grows at its peak, MiB: for torch, which Python's tracing does not see. Linux only."""
    way()
    before = peak_begins()
    way()
    return status("VmHWM") - before


def peak_begins() -> float:
    """Begin the peak of the process anew; what it holds now, MiB, or NaN where nothing says so."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else what an earlier call freed is kept, and the next does not grow
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return float("nan")
    return status("VmRSS")


def status(name: str) -> float:
    """A line of the process's memory, MiB: VmRSS, VmHWM."""
    if not Path("/proc/self/status").exists():
        return float("nan")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _seconds(way: Callable[[], object]) -> float:
    """Mean seconds of a call, over half a second of calls: what is short is not judged by one cold call."""
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < TURN:
        way()
        calls += 1
    return (time.perf_counter() - began) / calls


def compare(
    row: str,
    peer: Callable[[], object],
    ours: Callable[[], object],
    repeats: int = 5,
    memory_of: Callable[[Callable[[], object]], float] = allocated,
) -> float:
    """Run both once to warm up and for the memory, then in turn; print and return the ratio."""
    memory = [memory_of(way) for way in (peer, ours)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for way, times in zip((peer, ours), seconds, strict=True):
            times.append(_seconds(way))
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
