"""Runs that are stopped, killed or started twice, for real: what is said of them, and that they go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from handclip_lib.launch.plan import find_checkpoint
from handclip_lib.runs.record import read_record

pytestmark = pytest.mark.fault
EPOCHS = 400  # more than the grace of a stopped run lets end
FEW = 12  # of one that is killed at once, and then trains to its end
SMALL = {"drawn_subjects": 12, "drawn_images": 4, "draws": 2, "n_identities": 4, "views": 1}


class Command:
    """`handclip run 03` on a few drawn hands, in a process of its own."""

    def __init__(self, reports: Path, *words: str, epochs: int = EPOCHS):
        values = SMALL | {"epochs": epochs}
        given = [word for name, value in values.items() for word in ("-p", name, str(value))]
        self.reports = reports
        self.process = subprocess.Popen(
            [sys.executable, "-m", "handclip_lib.cli", "run", "03", *given, *words],
            env={**os.environ, "HANDCLIP_REPORTS": str(reports)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def ended(self) -> tuple[int, str]:
        """Exit code, and what it said."""
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out + err

    def trained(self, epochs: int) -> Path:
        """The run's folder, once it has trained for so many epochs."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            for folder in (self.reports / "runs").glob("03_*"):
                checkpoint = find_checkpoint(folder)
                if checkpoint and checkpoint.epoch >= epochs:
                    return folder
            time.sleep(0.05)
        raise AssertionError(f"it did not train {epochs} epochs: {self.ended()}")

    def kernel(self) -> psutil.Process:
        """The process that computes."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in below if "handclip_lib.launch.kernel" in " ".join(child.cmdline()))

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=60)


def epoch_of(folder: Path, epochs: int = EPOCHS) -> int:
    checkpoint = find_checkpoint(folder)
    assert checkpoint is not None
    assert checkpoint.epoch < epochs, "it came to its end before it was stopped"
    return checkpoint.epoch


def seconds_of(folder: Path) -> list[float]:
    """Seconds of each epoch trained: no two trainings have the same."""
    import safetensors

    with safetensors.safe_open(folder / "image.safetensors", "np") as opened:
        return [row["seconds"] for row in json.loads(opened.metadata()["handclip"])["history"][1:]]


@pytest.mark.matrix("signal", "training", "interrupted, exit 143, no kernel left; goes on from its last epoch")
@pytest.mark.matrix("two at once", "training", "the second is refused, exit 2")
@pytest.mark.matrix("killed", "training: the launcher", "died; its kernel ends; goes on from its last epoch")
def test_a_training_that_sigterm_stops_goes_on_is_not_started_twice_and_ends_with_its_launcher(tmp_path: Path):
    with Command(tmp_path) as first:
        folder = first.trained(1)
        below = psutil.Process(first.process.pid).children(recursive=True)
        first.process.send_signal(signal.SIGTERM)
        code, said = first.ended()
    assert code == 143, said
    assert psutil.wait_procs(below, timeout=10)[1] == [], "no kernel is left"
    assert (folder / "report.html").is_file()
    record = read_record(folder)
    assert (record["status"], record["error"]) == ("interrupted", "stopped by SIGTERM")
    done = epoch_of(folder)
    assert f"goes on from image.safetensors, epoch {done} of {EPOCHS}" in said
    with Command(tmp_path, "--resume") as second:
        second.trained(done + 1)
        code, said = Command(tmp_path).ended()
        assert code == 2
        assert f"{folder.name} is being run by another process" in said
        code, said = Command(tmp_path, "--dry-run").ended()
        assert (code, "running now" in said) == (0, True)
        below = psutil.Process(second.process.pid).children(recursive=True)
        second.process.kill()
        _, said = second.ended()
    assert f"resumes {folder.name} from image.safetensors, epoch {done} of {EPOCHS}" in said
    _, alive = psutil.wait_procs(below, timeout=40)
    assert alive == [], "two would train in one folder if it were run again"
    assert read_record(folder)["status"] == "died"
    assert epoch_of(folder) > done


@pytest.mark.matrix("killed", "training: the kernel", "died, exit 137, with a report; only what is left is trained")
def test_a_kernel_that_is_killed_is_told_and_the_rerun_trains_only_what_is_left(tmp_path: Path):
    with Command(tmp_path, epochs=FEW) as first:
        folder = first.trained(2)
        first.kernel().kill()
        code, said = first.ended()
    assert code == 137, said
    record = read_record(folder)
    assert record["status"] == "died"
    assert "the kernel was killed (out of memory?); lower batch_size" in record["error"]
    assert "killed (out of memory?)" in (folder / "report.html").read_text()
    done, seconds = epoch_of(folder, FEW), seconds_of(folder)
    with Command(tmp_path, epochs=FEW) as again:
        code, said = again.ended()
    assert code == 0, said
    assert read_record(folder)["status"] == "succeeded"
    assert len(seconds_of(folder)) == FEW
    assert seconds_of(folder)[:done] == seconds, "the epochs before the kill were not trained again"
    assert Command(tmp_path, "--resume", epochs=FEW).ended()[0] == 2


@pytest.mark.matrix("time-out", "training", "interrupted, exit 124, with a report")
def test_a_time_out_leaves_a_run_that_can_go_on(tmp_path: Path):
    with Command(tmp_path, "--timeout", "5") as command:
        code, said = command.ended()
    assert code == 124, said
    (folder,) = (tmp_path / "runs").glob("03_*")
    record = read_record(folder)
    assert (record["status"], record["error"]) == ("interrupted", "stopped by a time-out after 5 s")
    assert (folder / "report.html").is_file()
