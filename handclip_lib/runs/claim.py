"""A run that is one process's to write: let in by a lock, and seen from elsewhere by a heartbeat."""

import os
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from filelock import Timeout

from handclip_lib.errors import RunError
from handclip_lib.files import begin_file, file_lock, make_folder, writing
from handclip_lib.runs.record import HEARTBEAT, LOST_AFTER, is_here, read_record

BEAT = 15.0  # seconds between touches of the heartbeat


class UnderWayError(RunError):
    """The run is another process's; `wait` is the seconds after which it is known whether that process is gone."""

    wait = 0.0


class Claim:
    """A run that is this process's until `release`; the system takes the lock back from a process that is killed.

    A file server may keep the lock of a machine that crashed, or know no locks of others: so the record counts too.
    """

    def __init__(self, folder: Path):
        """Take the run.

        Raises:
            UnderWayError: It is another process's.
            WriteError: Its folder cannot be written.
        """
        with writing(folder):
            make_folder(folder)
            self._lock = file_lock(lock_of(folder), timeout=0)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise _refusal(folder) from error
        record = read_record(folder)
        process = (record or {}).get("process") or {}
        if record and record["status"] == "running" and not (is_here(process) and process.get("pid") == os.getpid()):
            self._lock.release()
            raise _refusal(folder)
        self._heartbeat = Heartbeat(folder)

    def release(self) -> None:
        """Let others have it."""
        self._heartbeat.stop()
        self._lock.release()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


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


def lock_of(folder: Path) -> Path:
    """The file that the process of a run holds a lock on."""
    return folder.parent / f".{folder.name}.lock"


def _refusal(folder: Path) -> UnderWayError:
    record = read_record(folder) or {}
    status, known, process = record.get("status"), record.get("error"), record.get("process") or {}
    if status in ("running", "lost") and not is_here(process):
        ending = f"wait for it, stop it there, or change a parameter; silent for {LOST_AFTER / 60:.0f} min it is lost"
        if status == "lost":
            ending = f"and yet {lock_of(folder)} is locked: if that machine is gone, delete this file"
        error = UnderWayError(f"{folder.name} is {'running ' if status == 'running' else ''}{known}: {ending}")
        error.wait = 0.0 if status == "lost" else LOST_AFTER + 60
        return error
    who = f"another process, {process.get('pid')}" if status == "running" else "another process"
    return UnderWayError(
        f"{folder.name} is being run by {who}, perhaps a notebook that is open: wait for it, shut its kernel down, or "
        "change a parameter"
    )
