import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageFilter

from handclip_lib.data.open import open_images
from handclip_lib.drawn.dataset import draw_image
from handclip_lib.evaluation.tables import readable
from handclip_lib.evaluation.verification.acquisition import OF_NOBODY, failure_to_acquire
from handclip_lib.parameters.parts import Data

PEOPLE = ("ann", "bo", "cy", "di", "ed", "flo")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Three people train, three are tested; one file of each sort of failure, and a person with nothing but one."""
    root = tmp_path_factory.mktemp("drawn")
    for number, who in enumerate(PEOPLE):
        (root / who).mkdir()
        for shot in range(4):
            Image.fromarray(draw_image(number, "dorsal_r", shot)).save(root / who / f"{shot}.png")
    return root


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "root"))


def measured(root: Path, quality: str = "keep") -> pd.DataFrame:
    config = Data(dataset="folder", data_root=str(root), draws=2, quality=quality)
    table, images, split = open_images(config, 32, progress=False)
    return failure_to_acquire(table, images, split).set_index("role")


def roles_of(root: Path) -> dict[str, str]:
    config = Data(dataset="folder", data_root=str(root), draws=2)
    images = open_images(config, 32, progress=False)[2].images
    return dict(zip(images["identity"], images["role"].replace({"val": "train"}), strict=True))


def test_failures_are_counted_where_the_photograph_would_have_been_used(root: Path):
    roles = roles_of(root)
    trains, tested = (next(who for who in PEOPLE if roles[who] == role) for role in ("train", "test"))
    (root / trains / "0.png").write_bytes(b"")
    (root / tested / "0.png").write_bytes((root / tested / "1.png").read_bytes()[:9000])
    Image.new("RGB", (240, 180)).save(root / tested / "1.png")
    with Image.open(root / tested / "2.png") as image:
        image.filter(ImageFilter.GaussianBlur(4)).save(root / tested / "2.png")
    (root / "gus").mkdir()
    (root / "gus" / "0.jpg").write_bytes(b"nobody else")
    (root / "gus" / "0.cr2").write_bytes(b"no attempt: its kind is not read")
    found = measured(root)
    columns = ["n_photographs", "unreadable", "too small", "blank", "unfocused"]
    assert found.loc["train", columns].tolist() == [12, 1, 0, 0, 0]
    assert found.loc["test", columns].tolist() == [12, 1, 0, 1, 1]
    assert found.loc[OF_NOBODY, columns].tolist() == [1, 1, 0, 0, 0]
    assert found.loc["all", columns].tolist() == [25, 3, 0, 1, 1]
    assert found.loc["test", ["fta", "fta_if_dropped"]].tolist() == [1 / 12, 3 / 12]
    dropped = measured(root, "drop")
    assert dropped.loc["test", ["n_photographs", "unreadable", "blank", "unfocused"]].tolist() == [12, 1, 1, 1]
    assert dropped.loc["test", ["fta", "fta_if_dropped"]].tolist() == [3 / 12, 3 / 12]


def test_shares_are_shown_in_percent_and_a_clean_data_set_has_none(root: Path):
    found = measured(root)
    assert found.loc["all", ["n_photographs", "fta", "fta_if_dropped"]].tolist() == [24, 0, 0]
    assert list(readable(found.reset_index()))[-2:] == ["FTA, %", "FTA if all were dropped, %"]
