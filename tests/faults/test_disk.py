"""A disk that is full or read-only: a message with the remedy, and nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.cli import main
from handclip_lib.data.images import decode_images
from handclip_lib.errors import WriteError
from handclip_lib.evaluation.features import extract_features
from handclip_lib.launch import launcher
from handclip_lib.parameters.notebooks import Evaluation
from handclip_lib.runs.listing import removable, remove
from handclip_lib.runs.record import read_record, write_record
from handclip_lib.runs.run import RUN_FOLDER, Run

pytestmark = pytest.mark.fault


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 KiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 255, (120, 160, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.jpg")
    return tmp_path


def read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


@pytest.mark.matrix("full disk", "decoding images", "refused with the remedy; nothing half-written")
def test_a_full_disk_under_the_image_cache(small_disk: Path, photographs: Path):
    names = [f"{number}.jpg" for number in range(6)]
    with pytest.raises(WriteError, match="HANDCLIP_CACHE"):
        decode_images(photographs, names, 224, cache=small_disk / "images", progress=False)
    assert [path for path in (small_disk / "images").iterdir() if path.suffix != ".lock"] == []
    assert decode_images(photographs, names[:1], 64, cache=small_disk / "images", progress=False).failures == {}


@pytest.mark.matrix("full disk", "encoding", "refused with the remedy; nothing half-written")
def test_a_full_disk_under_the_features(small_disk: Path, photographs: Path):
    images = decode_images(photographs, ["0.jpg", "1.jpg"], 32, cache=photographs / "cache", progress=False)
    (small_disk / "filler").write_bytes(b"0" * 250_000)
    with pytest.raises(WriteError, match="HANDCLIP_CACHE"):
        extract_features(lambda x: np.ones((len(x), 4096)), images, encoder_key="x", cache=small_disk, progress=False)
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [small_disk / "filler"]


@pytest.mark.matrix("read-only", "start by hand", "refused with the remedy")
def test_a_read_only_folder_of_reports(small_disk: Path):
    read_only(small_disk)
    with pytest.raises(WriteError, match="HANDCLIP_REPORTS"):
        Run(small_disk / "runs" / "a", Evaluation())


@pytest.mark.matrix("read-only", "start", "exit 2 with the remedy, before a kernel")
def test_the_launcher_says_so_before_a_kernel_starts(small_disk: Path):
    read_only(small_disk)
    command = [sys.executable, "-m", "handclip_lib.cli", "run", "05"]
    environment = {**os.environ, "HANDCLIP_REPORTS": str(small_disk / "reports")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "HANDCLIP_REPORTS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.matrix("full disk", "report", "succeeded, and the command that makes the report")
def test_a_disk_that_fills_before_the_report(small_disk: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(small_disk))
    filler, words = small_disk / "filler", ["run", "01"]

    def notebook_that_fills_the_disk(_, task, timeout):
        folder = Path(task["environment"][RUN_FOLDER])
        write_record(folder, read_record(folder) | {"reached_the_end": True})
        free = os.statvfs(small_disk)
        filler.write_bytes(b"0" * (free.f_bavail * free.f_bsize - 8_192))  # room for the record, not for a report
        return 0, None

    monkeypatch.setattr(launcher.Papermill, "run", notebook_that_fills_the_disk)
    assert main(words) == 2
    (folder,) = (small_disk / "runs").glob("01_*")
    said = capsys.readouterr().err
    assert f"{folder.name} succeeded, but: " in said
    assert "report.html cannot be written (No space left on device); free space there" in said
    assert f"then: handclip report {folder.name}" in said
    assert read_record(folder)["status"] == "succeeded"
    left = {"run.json", "parameters.yml", "papermill.log"}
    assert {path.name for path in folder.iterdir()} == left, "nothing half-written is left"
    filler.unlink()
    assert main(words) == 0
    assert "succeeded before" in capsys.readouterr().out
    assert (folder / "report.html").is_file(), "the report is made up for without running again"


@pytest.mark.matrix("read-only", "clean, doctor", "said, and not counted as freed")
def test_what_cannot_be_removed_is_said_and_not_counted(small_disk: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(small_disk))
    monkeypatch.setenv("HANDCLIP_CACHE", str(small_disk / "cache"))
    long_ago = "2020-01-01T00:00:00+00:00"
    write_record(small_disk / "runs" / "old", {"id": "old", "status": "failed", "finished": long_ago})
    read_only(small_disk)
    freed, (stays,) = remove(removable())
    assert freed == 0
    assert "Read-only file system" in stays
    assert main(["clean", "--yes"]) == 2
    assert "Read-only file system" in capsys.readouterr().err
    assert main(["doctor"]) == 1
    assert f"reports            {small_disk} cannot be written: name another folder in HANDCLIP_REPORTS" in (
        capsys.readouterr().out
    )
