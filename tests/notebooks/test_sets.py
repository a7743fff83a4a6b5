"""Notebooks 01 and 05 on drawn hands laid out as each set that is read by its name, and as people lay out their own."""

import json
import uuid
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from handclip_lib.drawn.dataset import draw_image
from tests.in_process import run_notebook

PEOPLE = range(8)
SIDES = {"l": "Left", "r": "Right"}


def put(file: Path, who: int, aspect: str, n: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_image(who, aspect, n)[::2, ::2]).save(file)


def tongji(root: Path) -> None:
    for who, session, n in product(PEOPLE, (1, 2), range(10)):
        put(root / f"session{session}" / f"{10 * who + n + 1:05d}.bmp", who, "palmar_r", 10 * session + n)


def iitd(root: Path) -> None:
    for who, side, n in product(PEOPLE, "lr", range(3)):
        put(root / "Segmented" / SIDES[side] / f"{who + 1:03d}_{n + 1}.bmp", who, f"palmar_{side}", n)


def casia(root: Path) -> None:
    for who, side, n in product(PEOPLE, "lr", range(3)):
        put(root / f"{who:04d}" / f"{who:04d}_m_{side}_{n + 1:02d}.jpg", who, f"palmar_{side}", n)


def hagrid(root: Path) -> None:
    facts = {}
    for who, n in product(PEOPLE, range(4)):
        key = str(uuid.UUID(int=10 * who + n))
        put(root / ("call", "fist")[n % 2] / f"{key}.jpg", who, "palmar_r", n)
        facts[key] = {"user_id": f"user {who}", "leading_hand": "right"}
    (root / "train.json").write_text(json.dumps(facts))


def csv(root: Path) -> None:
    lines = ["path,identity,aspect,session,hospital"]
    for who, n in product(PEOPLE, range(4)):
        put(root / f"{who}{n}.png", who, "dorsal_r", n)
        lines.append(f"{who}{n}.png,p{who},dorsal_r,s{n // 2},{'north' if who % 2 else 'south'}")
    (root / "manifest.csv").write_text("\n".join(lines))


def folder(root: Path) -> None:
    for who, session, n in product(PEOPLE, (1, 2), (1, 2)):
        put(root / f"p{who}" / f"session{session}" / f"IMG_{n:04d}.jpg", who, "dorsal_r", 4 * session + n)


SETS: dict[str, tuple] = {
    "tongji": (tongji, {"protocol": "cross_session"}), "iitd": (iitd, {"aspect": "all"}),
    "casia": (casia, {"aspect": "palmar_l"}), "hagrid": (hagrid, {}), "csv": (csv, {}),
    "folder": (folder, {"protocol": "cross_session"}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_first_and_the_evaluation_notebook_run_on_it(name, tmp_path):
    lay, options = SETS[name]
    lay(tmp_path / "data")
    data = {"dataset": name, "data_root": str(tmp_path / "data"), "draws": 2} | options
    run_notebook("01_data_exploration", tmp_path, resolution=48, samples=4, **data)
    done = run_notebook("05_evaluation", tmp_path, **data, studies="enrolment" if name in ("tongji", "csv") else "none")
    aspect = {"iitd": "all", "casia": "palmar_l", "csv": "dorsal_r"}.get(name, "unspecified")
    assert done.folder.name.startswith(f"05_evaluation-tiny-{name}-{aspect}-")
    assert done.record["parameters"]["aspect"] == done.record["split"]["aspect"] == aspect
    effect = pd.read_csv(done.folder / "sessions.csv")
    assert len(set(effect["queries"])) == (2 if name in ("tongji", "csv", "folder") else 0)
    if name == "csv":
        assert "hospital" in set(pd.read_csv(done.folder / "groups.csv")["attribute"])
