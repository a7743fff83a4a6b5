import os
import subprocess
import time
from pathlib import Path

import pytest

from handclip_lib.runs import record
from handclip_lib.runs.record import HEARTBEAT, LOST_AFTER, Claim, is_here, state_of, this_process

NODE = {"host": "node7", "machine": "another boot", "pid": 1, "began": "1"}


def beaten(folder: Path, ago: float) -> Path:
    (folder / HEARTBEAT).touch()
    os.utime(folder / HEARTBEAT, (time.time() - ago,) * 2)
    return folder


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
