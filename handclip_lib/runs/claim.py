"""A run that is one process's to write: let in by a lock, and seen from elsewhere by a heartbeat."""

import os
from pathlib import Path

from filelock import Timeout

from handclip_lib.errors import RunError
from handclip_lib.files import file_lock, make_folder
from handclip_lib.runs.identity import unwritable
from handclip_lib.runs.life import LOST_AFTER, Heartbeat, is_here
from handclip_lib.runs.record import read_record


class UnderWayError(RunError):
    """The run is another process's.

    Attributes:
        wait: Seconds after which it is known whether the process is gone.
    """

    wait = 0.0


class Claim:
    """A run that is this process's until `release`; the system takes the lock back from a process that is killed.

    A file server may keep the lock of a machine that crashed, or know no locks of others: so the record counts too.
    """

    def __init__(self, folder: Path):
        """Take the run.

        Raises:
            UnderWayError: It is another process's.
            RunError: Its folder cannot be written.
        """
        try:
            make_folder(folder)
            self._lock = file_lock(lock_of(folder), timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise _refusal(folder) from error
        except OSError as error:
            raise unwritable(folder, error) from error
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
