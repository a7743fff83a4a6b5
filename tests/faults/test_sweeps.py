"""Sweeps that are hit: a worker is killed, the sweep is stopped; and one in real jobs of Slurm."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[2]
TINY = "drawn_subjects: 8\ndrawn_images: 3\ndraws: 2\nresolution: 32\n"  # the same hands, drawn once
SWEEP = [sys.executable, "-m", "handclip_lib.cli", "sweep", "01"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Address of a Dask scheduler on loopback, and its two workers, processes that know nothing of the reports."""
    file = tmp_path / "scheduler.json"
    environment = {name: value for name, value in os.environ.items() if name != "HANDCLIP_REPORTS"}
    options: dict[str, Any] = {"env": environment, "cwd": ROOT, "stderr": subprocess.DEVNULL}
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    processes = [subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *words], **options)]
    words = ["--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    words += ["--local-directory", str(tmp_path)]
    for _ in range(2):
        processes.append(subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", *words], **options))
    _until(file.exists, "the scheduler did not start")
    yield json.loads(file.read_text())["address"], processes[1:]
    for process in reversed(processes):
        process.kill()
        process.wait()


@pytest.mark.matrix("killed", "sweep: a Dask worker", "its run is begun again, no other is")
def test_a_killed_worker_s_run_is_run_by_the_other(reports: Path, cluster, tmp_path: Path):
    address, workers = cluster
    (tmp_path / "sweep.yml").write_text(TINY + "grid: {samples: [2, 3, 4]}\n")
    command = [*SWEEP, "-f", str(tmp_path / "sweep.yml"), "--scheduler", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sweep:
        _until(lambda: len(_begun(reports)) == 2, "two runs did not start")
        workers[0].send_signal(signal.SIGKILL)
        out, _ = sweep.communicate(timeout=240)
    assert (sweep.returncode, out.count("interrupted"), out.count("failed")) == (0, 0, 0), out
    assert [row["status"] for row in _summary(reports)] == ["succeeded"] * 3
    assert [record["status"] for record in _records(reports)] == ["succeeded"] * 3
    assert sorted(_begun(reports).values()) == [1, 1, 2]  # the lost one twice, and no other
    _until(lambda: not _processes_of(reports), "processes are left")


@pytest.mark.matrix("signal", "sweep", "interrupted and not run, exit 143; no process is left")
def test_sigterm_interrupts_what_runs_and_says_what_did_not(reports: Path, tmp_path: Path):
    (tmp_path / "long.yml").write_text("drawn_subjects: 3000\ngrid: {seed: [0, 1, 2]}\n")
    command = [*SWEEP, "-f", str(tmp_path / "long.yml"), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as sweep:
        _until(lambda: len(_kernels(reports)) == 2, "two runs did not start")
        sweep.send_signal(signal.SIGTERM)
        assert sweep.wait(90) == 143
    assert [row["status"] for row in _summary(reports)] == ["interrupted", "interrupted", "not run"]
    assert [(r["status"], r["error"]) for r in _records(reports)] == [("interrupted", "stopped by SIGTERM")] * 2
    _until(lambda: not _processes_of(reports), "processes are left")  # those that draw end with their kernel


@pytest.mark.matrix("killed", "sweep", "no process is left; goes on from there")
def test_a_killed_sweep_leaves_no_run_behind_and_goes_on_from_there(reports: Path, tmp_path: Path):
    (tmp_path / "sweep.yml").write_text(TINY + "grid: {samples: [2, 3, 4]}\n")
    command = [*SWEEP, "-f", str(tmp_path / "sweep.yml"), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as sweep:
        _until(lambda: [r["status"] for r in _records(reports)].count("succeeded") == 1, "no run succeeded")
        _until(lambda: len(_begun(reports)) == 2, "the second run did not start")
        sweep.kill()
    _until(lambda: not _processes_of(reports), "processes are left")
    assert sorted(record["status"] for record in _records(reports)) == ["interrupted", "succeeded"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 points, 1 of them done")
    assert [record["status"] for record in _records(reports)] == ["succeeded"] * 3


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch) -> Iterator[None]:
    """Slurm: that of this machine, or one of one node and without accounting that lives as long as the test."""
    if not shutil.which("sbatch"):
        pytest.skip("Slurm is not here: apt-get install slurm-wlm munge")
    if subprocess.run(["sinfo"], capture_output=True).returncode == 0:
        yield
        return
    if os.geteuid() != 0 or not shutil.which("munged"):
        pytest.skip("no Slurm answers here, and only root can start one")
    host = os.uname().nodename.split(".")[0]
    (tmp_path / "state").mkdir()
    (tmp_path / "slurm.conf").write_text(
        f"ClusterName=handclip\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n"
        f"StateSaveLocation={tmp_path}/state\nSlurmdSpoolDir={tmp_path}/state\nSlurmctldPidFile={tmp_path}/c.pid\n"
        f"SlurmdPidFile={tmp_path}/d.pid\nSlurmctldLogFile={tmp_path}/c.log\nSlurmdLogFile={tmp_path}/d.log\n"
        "SlurmctldPort=16917\nSlurmdPort=16918\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nReturnToService=2\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()}\n"
        "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    munge = Path("/run/munge")
    munge.mkdir(exist_ok=True)
    shutil.chown(munge, "munge")
    commands = [["munged", "--foreground", "--force"]] if not (munge / "munge.socket.2").exists() else []
    users: list[Any] = ["munge"] if commands else []
    commands += [["slurmctld", "-D"], ["slurmd", "-D"]]
    users += [None, None]
    daemons = []
    for command, user in zip(commands, users, strict=True):
        daemons.append(subprocess.Popen(command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(1)
    try:
        idle = ["sinfo", "--noheader", "--format=%t"]
        _until(lambda: "idle" in subprocess.run(idle, capture_output=True, text=True).stdout, "Slurm did not start")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


@pytest.mark.slow
@pytest.mark.matrix("killed", "sweep: a job of Slurm", "run again")
def test_slurm_runs_a_sweep_and_a_killed_job_is_run_again(slurm, reports: Path, tmp_path: Path):
    pytest.importorskip("submitit", reason="pip install 'handclip[slurm]'")
    (tmp_path / "sweep.yml").write_text(TINY + "grid: {samples: [2, 3, 4]}\n")
    command = [*SWEEP, "-f", str(tmp_path / "sweep.yml"), "--slurm", "-s", "time", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sweep:
        _until(lambda: _begun(reports), "no run started")
        begun = [k for k in _kernels(reports) if Path(k.environ()["HANDCLIP_RUN"]).name in _begun(reports)]
        above = begun[0].parents()  # of a job whose run has begun: another may not be as far
        next(p for p in above if "submitit.core._submit" in _command(p) and "srun" not in _command(p)[0]).kill()
        out, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, out
    assert [row["status"] for row in _summary(reports)] == ["succeeded"] * 3
    assert [record["status"] for record in _records(reports)] == ["succeeded"] * 3
    assert sorted(_begun(reports).values()) == [1, 1, 2]


@pytest.mark.slow
@pytest.mark.matrix("signal", "sweep in Slurm", "jobs cancelled, runs interrupted, exit 143")
def test_sigterm_cancels_the_jobs_of_slurm(slurm, reports: Path, tmp_path: Path):
    pytest.importorskip("submitit", reason="pip install 'handclip[slurm]'")
    (tmp_path / "long.yml").write_text("drawn_subjects: 3000\ngrid: {seed: [0, 1, 2]}\n")
    command = [*SWEEP, "-f", str(tmp_path / "long.yml"), "--slurm", "-s", "time", "5"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as sweep:
        _until(lambda: len(_kernels(reports)) >= 1, "no run started")
        sweep.send_signal(signal.SIGTERM)
        assert sweep.wait(120) == 143
    assert {record["status"] for record in _records(reports)} == {"interrupted"}
    assert subprocess.run(["squeue", "--me", "--noheader"], capture_output=True, text=True).stdout == ""
    assert _processes_of(reports) == []


def _until(true: Callable[[], object], otherwise: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


def _records(reports: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((reports / "runs").glob("*/run.json"))]


def _summary(reports: Path) -> list[dict[str, str]]:
    (file,) = (reports / "sweeps").glob("*/summary.csv")
    return list(csv.DictReader(file.open()))


def _begun(reports: Path) -> Counter[str]:
    """How often each run was begun."""
    logs = (log.read_text().splitlines() for log in (reports / "runs").glob("*/papermill.log"))
    return Counter(line.split("/")[-2] for log in logs for line in log if line.startswith("Output Notebook:"))


def _processes_of(reports: Path) -> list[psutil.Process]:
    """Every process that was given this folder of reports, but this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HANDCLIP_REPORTS") == str(reports) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _kernels(reports: Path) -> list[psutil.Process]:
    return [
        process for process in _processes_of(reports) if "handclip_lib.launch.kernel" in " ".join(_command(process))
    ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
