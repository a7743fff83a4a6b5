from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.folds import Folds, choose_folds
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.training.validation import training_images

COLUMNS = ["path", "identity", "aspect", "capture", "role", "gallery_in"]
ROWS = [("a", "7", "train"), ("b", "7", "val"), ("c", "12", "train"), ("d", "12", "val"), ("t", "3", "test")]


def split_of(rows) -> Split:
    frame = pd.DataFrame([(*row[:2], "dorsal_r", 1, row[2], "") for row in rows], columns=COLUMNS)
    return Split.build({"protocol": "proportional", "draws": 1, "seed": 0}, frame)


@pytest.fixture
def images() -> DecodedImages:
    pixels = np.zeros((5, 2, 2, 3), np.uint8) + np.array([10, 30, 40, 45, 99], np.uint8)[:, None, None, None]
    return DecodedImages(("a", "b", "c", "d", "t"), pixels, {}, tuple("abcdt"))


def by_brightness(pixels):
    angle = pixels[:, 0, 0, 0] / 100
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * 7


def test_val_images_are_queries_against_train_images_and_nobody_who_is_tested_is_there(images):
    found = training_images(images, split_of(ROWS))
    assert found.identities == ("7", "12")
    assert found.labels.tolist() == found.val_labels.tolist() == [0, 1]
    assert found.pixels[:, 0, 0, 0].tolist() == [10, 40]
    assert found.val_pixels[:, 0, 0, 0].tolist() == [30, 45]
    measured = found.validate(by_brightness)  # 30 is nearer to 40 (its rival) than to 10, 45 is nearest to 40
    assert (measured["val_rank1"], measured["val_map"]) == (0.5, 0.75)
    assert measured["val_rank1_low"] < 0.5 < measured["val_rank1_high"]
    assert len(measured) == 4


def test_on_test_the_first_draw_s_queries_are_ranked_against_its_gallery():
    rows = [*ROWS[:4], ("t", "3", "test"), ("u", "3", "test"), ("v", "5", "test"), ("w", "5", "test")]
    frame = pd.DataFrame([(*row[:2], "dorsal_r", 1, row[2], "") for row in rows], columns=COLUMNS)
    frame.loc[frame["path"].isin(["t", "v"]), "gallery_in"] = "0"
    frame.loc[frame["path"].isin(["u", "w"]), "gallery_in"] = "1"
    split = Split.build({"protocol": "proportional", "draws": 2, "seed": 0}, frame)
    brightness = np.array([10, 30, 40, 45, 50, 56, 60, 57], np.uint8)  # u (56) is nearer to v (60) than to t (50)
    pixels = np.zeros((8, 2, 2, 3), np.uint8) + brightness[:, None, None, None]
    images = DecodedImages(tuple("abcdtuvw"), pixels, {}, tuple("abcdtuvw"))
    found = training_images(images, split, Folds("test"))
    (draw,) = found.searches["val"].draws
    assert (draw.query_paths.tolist(), draw.gallery_paths.tolist()) == (["u", "w"], ["t", "v"])
    measured = found.validate(by_brightness)
    assert (measured["val_rank1"], measured["val_map"]) == (0.5, 0.75)
    assert (measured["trained_rank1"], measured["trained_map"]) == (0.5, 0.75), "b and d against a and c"
    assert found.val_labels.tolist() == [0, 1], "the confusion is still that of the validation images"


def test_a_split_that_trains_nobody_or_validates_nothing_is_refused(images):
    for rows, words in (
        (ROWS[4:], "identities that train in this split .*: 0;"),
        ([ROWS[0], ROWS[2]], "2 identities train.*0 with a valid"),
    ):
        with pytest.raises(EvaluationError, match=words):
            training_images(images, split_of(rows))


@pytest.fixture(scope="module")
def many() -> tuple[DecodedImages, Split]:
    """Sixty people, of whom each photograph has a colour of its own."""
    rows = [{"path": f"{n}_{k}.jpg", "identity": f"p{n}", "aspect": "dorsal_r"} for n in range(60) for k in range(4)]
    split = make_split(HandTable.build("folder", Path("/photographs"), rows, {}), draws=5, seed=3)
    paths = tuple(split.images["path"])
    pixels = np.random.default_rng(0).integers(0, 256, (len(paths), 2, 2, 3), np.uint8)
    return DecodedImages(paths, pixels, {}, paths), split


def test_people_held_out_are_searched_as_the_test_is_and_trained_ones_beside_them(many):
    """Against one loop over draws and queries, on embeddings that are the pixels."""
    images, split = many
    folds = choose_folds(split)
    found = training_images(images, split, folds)
    trains = split.identities("train") - set(folds.held_out[0])
    assert set(found.identities) == trains
    measured = found.validate(lambda pixels: pixels.reshape(len(pixels), -1).astype(np.float32))
    role, person = (split.images.set_index("path")[name] for name in ("role", "identity"))

    def vector(path: str) -> np.ndarray:
        flat = images.pixels[images.paths.index(path)].ravel().astype(np.float64)
        return flat / np.linalg.norm(flat)

    for name, search in found.searches.items():
        assert len(search.draws) == 5
        hits = []
        for draw in search.draws:
            assert len(set(draw.gallery_ids)) == len(draw.gallery_ids) == 6
            assert (draw.query_ids == person[draw.query_paths]).all()
            if name == "trained":
                assert set(draw.gallery_ids) <= trains
                assert (role[draw.query_paths] == "val").all()
                assert (role[draw.gallery_paths] == "train").all()
                assert len(draw.query_ids) == 6
            else:
                assert set(draw.gallery_ids) == set(folds.held_out[0])
                assert len(draw.query_ids) == 6 * 3
            for path in draw.query_paths:
                nearest = max(draw.gallery_paths, key=lambda held: float(vector(held) @ vector(path)))
                hits.append(person[nearest] == person[path])
        assert measured[f"{name}_rank1"] == pytest.approx(np.mean(hits))
        assert measured[f"{name}_rank1_low"] <= np.mean(hits) <= measured[f"{name}_rank1_high"]
    assert len({frozenset(draw.gallery_ids) for draw in found.searches["trained"].draws}) > 1, "others in each draw"


def test_a_training_of_all_after_folds_holds_nobody_out_and_measures_no_strangers(many):
    images, split = many
    found = training_images(images, split, choose_folds(split, folds=3))
    assert set(found.identities) == split.identities("train")
    assert list(found.searches) == ["trained"]
