"""Whether the process of a run is still there: on this machine by its number, on another by its heartbeat."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from handclip_lib.files import begin_file
from handclip_lib.terminal import one_line

HEARTBEAT = "heartbeat"
"""File in a run's folder that is touched while the run goes on."""
BEAT = 15.0  # seconds between touches
LOST_AFTER = 300.0  # seconds without one; a file server may show a touch a minute late


def this_process() -> dict[str, Any]:
    """What tells this process from another of the same number, here or elsewhere."""
    return {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "began": _began(os.getpid())}


def is_here(process: dict[str, Any]) -> bool:
    """Whether a process is one of those that can be seen from here: a container of the same name has its own."""
    return process.get("host") == socket.gethostname() and process.get("machine", _machine()) == _machine()


def state_of(folder: Path, process: dict[str, Any]) -> tuple[str, str | None]:
    """What has become of a run whose record says "running": that, "died" or "lost", and what is known of it."""
    if is_here(process):
        return ("running", None) if _alive(process) else ("died", None)
    host = one_line(process.get("host") or "another machine", 60)
    silence = _silence(folder)
    if silence > LOST_AFTER:
        return "lost", f"running on {host}, no sign of life for {_in_words(silence)}"
    return "running", f"on {host}, last sign of life {_in_words(silence)} ago"


class Heartbeat:
    """Touches the heartbeat of a run until it is stopped; its thread ends with the process."""

    def __init__(self, folder: Path):
        self._file, self._ended = folder / HEARTBEAT, Event()
        self._thread = Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and remove the file."""
        self._ended.set()
        self._thread.join(BEAT)  # a file server that hangs is not waited for
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError):  # a full disk is told of by what the run writes
                begin_file(self._file)
            self._ended.wait(BEAT)


def _silence(folder: Path) -> float:
    """Seconds between the last sign of life in a folder and now, both by the clock of its file system.

    A record of before there were heartbeats goes by the newest file beside it.
    """
    beat = folder / HEARTBEAT
    times = [_changed(path) for path in ([beat] if beat.exists() else folder.rglob("*"))]
    # a time to come is no sign of life either: it was copied, or the clock was set
    return abs(_clock(folder) - max(times, default=0.0))


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _clock(folder: Path) -> float:
    """The time by the file system of a folder, in seconds since 1970; ours where nothing can be written there."""
    probe = folder / f".clock.{uuid4().hex[:8]}"
    try:
        begin_file(probe)
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _in_words(seconds: float) -> str:
    for size, unit in ((172_800, "days"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / (size / 2):.0f} {unit}"
    return f"{seconds:.0f} s"


def _alive(process: dict[str, Any]) -> bool:
    try:
        os.kill(int(process["pid"]), 0)
    except PermissionError:
        pass
    except (OSError, KeyError, ValueError, TypeError, OverflowError):
        return False
    return _began(int(process["pid"])) == process.get("began")


def _began(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None where the system does not say, or it has ended."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if facts[0] in "ZX" else facts[19]  # a zombie that nobody waits for


def _machine() -> str:
    """The boot and the processes' namespace that numbers of processes belong to; "" where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
