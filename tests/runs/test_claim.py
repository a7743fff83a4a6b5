import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from handclip_lib.cli import main
from handclip_lib.errors import RunError
from handclip_lib.launch.launcher import find_notebook
from handclip_lib.launch.plan import run_folder
from handclip_lib.parameters.notebooks import DataExploration, Evaluation
from handclip_lib.runs import record
from handclip_lib.runs import run as runs
from handclip_lib.runs.listing import named_runs, removable, remove
from handclip_lib.runs.record import (
    HEARTBEAT,
    LOST_AFTER,
    Claim,
    UnderWayError,
    is_here,
    lock_of,
    state_of,
    this_process,
    write_record,
)
from handclip_lib.runs.run import Run

NODE = {"host": "node7", "machine": "another boot", "pid": 1, "began": "1"}
CLAIMANT = """
import sys, time
from pathlib import Path
from handclip_lib.runs.record import Claim, UnderWayError
folder, held = Path(sys.argv[1]), []
print("ready", flush=True)
start = float(sys.stdin.readline())
for number in range(30):
    while time.time() < start + number / 50: pass
    try:
        held.append(Claim(folder / str(number)))
    except UnderWayError:
        pass
print(len(held), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def claimants(folder: Path, count: int) -> list[subprocess.Popen]:
    words = [sys.executable, "-c", CLAIMANT, str(folder)]
    return [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]


def beaten(folder: Path, ago: float) -> Path:
    (folder / HEARTBEAT).touch()
    os.utime(folder / HEARTBEAT, (time.time() - ago,) * 2)
    return folder


def elsewhere(folder: Path, ago: float, days: float = 0.0) -> Path:
    """A run of another machine, whose last sign of life is some seconds old."""
    started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - days * 86_400))
    write_record(folder, {"id": folder.name, "status": "running", "started": started, "process": NODE})
    return beaten(folder, ago)


@pytest.mark.matrix("two at once", "start", "one is let in, the other refused, by hand too")
def test_of_two_starts_at_once_one_is_let_in_and_a_killed_one_holds_nothing(tmp_path: Path):
    both = claimants(tmp_path, 2)
    for process in both:
        process.stdout.readline()
    start = str(time.time() + 0.2)
    for process in both:
        print(start, file=process.stdin, flush=True)
    assert sum(int(process.stdout.readline()) for process in both) == 30
    for process in both:
        process.kill()
        process.communicate()
    Claim(tmp_path / "0").release()


def test_a_run_by_hand_is_held_until_it_ends(tmp_path: Path):
    run = Run(tmp_path / "runs" / "a", Evaluation())
    with pytest.raises(UnderWayError, match=f"by another process, {os.getpid()}, perhaps a notebook"):
        Claim(run.folder)
    again = Run(tmp_path / "runs" / "a", Evaluation())  # the guard cell, run again
    with pytest.raises(UnderWayError):
        Claim(run.folder)
    assert (run.folder / HEARTBEAT).is_file()
    again.finish()
    assert not (run.folder / HEARTBEAT).exists()
    Claim(run.folder).release()


@pytest.mark.matrix("full disk", "start by hand", "refused with the remedy; the next start is not in its own way")
def test_a_start_that_could_not_write_is_not_in_the_way_of_the_next(tmp_path: Path, monkeypatch):
    def full(*_):
        raise RunError("full")

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_record", full)
        with pytest.raises(RunError, match="full"):
            Run(tmp_path / "runs" / "a", Evaluation())
    Run(tmp_path / "runs" / "a", Evaluation()).finish()


@pytest.mark.matrix("machine gone", "start, resume, clean, runs", "a lost run can go on and be removed")
def test_a_run_of_another_machine_is_refused_while_it_lives_and_free_when_it_is_lost(tmp_path: Path, capsys):
    folder = elsewhere(tmp_path / "runs" / "05_evaluation-a", 12)
    with pytest.raises(UnderWayError, match=r"is running on node7, last sign of life 1\d s ago: .*silent for 5 min"):
        Claim(folder)
    with pytest.raises(RunError, match="is running on node7, last sign of life"):
        named_runs([folder.name])
    assert removable(0) == []
    assert main(["runs"]) == 0
    assert "(on node7, last sign of life 1" in capsys.readouterr().out
    elsewhere(folder, 3 * 3600, days=31)
    assert main(["runs", "--status", "lost"]) == 0
    assert "(running on node7, no sign of life for 3 h)" in capsys.readouterr().out
    Claim(folder).release()
    elsewhere(folder, 3 * 3600, days=31)
    (item,) = removable(30)
    assert "lost 31 days ago" in str(item)
    assert (remove([item])[1], folder.exists()) == ([], False)


def test_what_a_dry_run_says_of_a_run_elsewhere(capsys):
    folder = run_folder(find_notebook("01"), DataExploration())
    elsewhere(folder, 12)
    assert main(["run", "01", "--dry-run"]) == 0
    assert "running on node7, last sign of life 1" in capsys.readouterr().out
    assert main(["run", "01"]) == 2
    assert f"{folder.name} is running on node7" in capsys.readouterr().err
    elsewhere(folder, LOST_AFTER + 120)
    assert main(["run", "01", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "lost (running on node7, no sign of life for 7 min); no checkpoint: would start at the beginning" in said


@pytest.mark.matrix("machine gone", "its lock is left on the file server", "refused; the file to delete is named")
def test_a_lock_that_a_crashed_machine_left_is_named(tmp_path: Path):
    folder = elsewhere(tmp_path / "runs" / "a", 3600)
    with (
        FileLock(lock_of(folder)),
        pytest.raises(UnderWayError, match=r"no sign of life .* delete this") as caught,
    ):
        Claim(folder)
    assert str(lock_of(folder)) in str(caught.value)
    assert caught.value.wait == 0


@pytest.mark.parametrize(
    ("ago", "status", "words"),
    [
        (0, "running", "on node7, last sign of life 0 s ago"),
        (LOST_AFTER - 60, "running", "on node7, last sign of life 4 min ago"),
        (LOST_AFTER + 60, "lost", "running on node7, no sign of life for 6 min"),
        (3 * 3600, "lost", "running on node7, no sign of life for 3 h"),
        (4 * 86_400, "lost", "no sign of life for 4 days"),
        (-4 * 86_400, "lost", "no sign of life for 4 days"),  # of a time to come: copied, or a clock was set
    ],
)
@pytest.mark.matrix("machine gone", "while it runs", "lost after 5 min without a heartbeat; before that running")
def test_a_run_of_another_machine_goes_by_its_heartbeat(ago, status, words, tmp_path: Path):
    found, said = state_of(beaten(tmp_path, ago), NODE)
    assert (found, words in said) == (status, True)


def test_the_age_is_by_the_clock_of_the_file_system_and_not_by_ours(tmp_path: Path, monkeypatch):
    beaten(tmp_path, 3600)
    monkeypatch.setattr(record.time, "time", lambda: 0.0)
    assert state_of(tmp_path, NODE) == ("lost", "running on node7, no sign of life for 60 min")
    assert [path.name for path in tmp_path.iterdir()] == [HEARTBEAT], "nothing is left of the question"


def test_before_there_were_heartbeats_the_newest_file_is_the_sign_of_life(tmp_path: Path):
    for name, ago in (("run.json", 9000), ("figures/a.png", 30)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - ago,) * 2)
    os.utime(tmp_path / "figures", (1, 1))
    assert state_of(tmp_path, NODE)[0] == "running"
    os.utime(tmp_path / "figures" / "a.png", (1, 1))
    assert state_of(tmp_path, NODE)[0] == "lost"


@pytest.mark.matrix("machine gone", "a container of the same name", "not taken for a process of this one")
def test_a_container_of_the_same_name_is_another_machine_and_an_old_record_goes_by_its_host(tmp_path: Path):
    assert not is_here(this_process() | {"machine": "0ef3b48b pid:[4026532999]"})
    assert state_of(beaten(tmp_path, 0), this_process() | {"machine": "x", "pid": 2**22 + 1})[0] == "running"
    old = {name: value for name, value in this_process().items() if name != "machine"}
    assert is_here(old)
    assert state_of(tmp_path, old | {"pid": 2**22 + 1}) == ("died", None)
    assert state_of(tmp_path, old) == ("running", None)


@pytest.mark.matrix("killed", "a zombie that nobody waits for", "died")
def test_a_zombie_is_not_alive(tmp_path: Path):
    process = subprocess.Popen(["sleep", "60"])
    facts = this_process() | {"pid": process.pid, "began": record._began(process.pid)}
    assert state_of(tmp_path, facts)[0] == "running"
    process.kill()
    deadline = time.monotonic() + 20
    while record._began(process.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state_of(tmp_path, facts)[0] == "died"
    process.wait()


def test_a_heart_beats_until_it_is_stopped(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(record, "BEAT", 0.01)
    claim = Claim(tmp_path / "run")
    file, deadline = tmp_path / "run" / HEARTBEAT, time.monotonic() + 20
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    beaten(tmp_path / "run", 900)
    while file.stat().st_mtime < time.time() - 800 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.time() - file.stat().st_mtime < 800
    claim.release()
    assert not file.exists()


def test_a_run_that_a_full_disk_keeps_from_being_recorded_leaves_no_folder(tmp_path: Path):
    new, begun = tmp_path / "new", tmp_path / "begun"
    begun.mkdir()
    (begun / "best.safetensors").touch()
    for folder in (new, begun):
        with pytest.raises(OSError, match="no space"), Claim(folder):
            assert folder.is_dir()
            raise OSError("no space")
    assert (new.exists(), list(begun.iterdir())) == (False, [begun / "best.safetensors"])
