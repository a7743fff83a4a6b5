"""A disk that is full or read-only: a message with the remedy, and nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.config import Evaluation
from handclip_lib.data.images import decode_images
from handclip_lib.errors import DataError, EvaluationError, RunError
from handclip_lib.evaluation.features import extract_features
from handclip_lib.workbench.runs import Run

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


def test_a_full_disk_under_the_image_cache(small_disk: Path, photographs: Path):
    names = [f"{number}.jpg" for number in range(6)]
    with pytest.raises(DataError, match="HANDCLIP_CACHE"):
        decode_images(photographs, names, 224, cache=small_disk / "images", progress=False)
    assert [path for path in (small_disk / "images").iterdir() if path.suffix != ".lock"] == []
    assert decode_images(photographs, names[:1], 64, cache=small_disk / "images", progress=False).failures == {}


def test_a_full_disk_under_the_features(small_disk: Path, photographs: Path):
    images = decode_images(photographs, ["0.jpg", "1.jpg"], 32, cache=photographs / "cache", progress=False)
    (small_disk / "filler").write_bytes(b"0" * 250_000)
    with pytest.raises(EvaluationError, match="HANDCLIP_CACHE"):
        extract_features(lambda x: np.ones((len(x), 4096)), images, encoder_key="x", cache=small_disk, progress=False)
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [small_disk / "filler"]


def test_a_read_only_folder_of_reports(small_disk: Path):
    read_only(small_disk)
    with pytest.raises(RunError, match="HANDCLIP_REPORTS"):
        Run(small_disk / "runs" / "a", Evaluation())


def test_the_launcher_says_so_before_a_kernel_starts(small_disk: Path):
    read_only(small_disk)
    command = [sys.executable, "-m", "handclip_lib.workbench.cli", "run", "05"]
    environment = {**os.environ, "HANDCLIP_REPORTS": str(small_disk / "reports")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "HANDCLIP_REPORTS" in done.stderr
    assert "Traceback" not in done.stderr
