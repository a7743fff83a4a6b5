import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.training.validation import training_images

COLUMNS = ["path", "identity", "aspect", "capture", "role", "gallery_in"]
ROWS = [("a", "7", "train"), ("b", "7", "val"), ("c", "12", "train"), ("d", "12", "val"), ("t", "3", "test")]


def split_of(rows) -> Split:
    frame = pd.DataFrame([(*row[:2], "dorsal_r", 1, row[2], "") for row in rows], columns=COLUMNS)
    return Split.build({"protocol": "proportional", "draws": 1}, frame)


@pytest.fixture
def images() -> DecodedImages:
    pixels = np.zeros((5, 2, 2, 3), np.uint8) + np.array([10, 30, 40, 45, 99], np.uint8)[:, None, None, None]
    return DecodedImages(("a", "b", "c", "d", "t"), pixels, {}, tuple("abcdt"))


def test_val_images_are_queries_against_train_images_and_nobody_who_is_tested_is_there(images):
    found = training_images(images, split_of(ROWS))
    assert found.identities == ("7", "12")
    assert found.labels.tolist() == found.val_labels.tolist() == [0, 1]
    assert found.pixels[:, 0, 0, 0].tolist() == [10, 40]
    assert found.val_pixels[:, 0, 0, 0].tolist() == [30, 45]

    def encode(pixels):  # an angle by brightness: 30 is nearer to 40 (its rival) than to 10, 45 is nearest to 40
        angle = pixels[:, 0, 0, 0] / 100
        return np.stack([np.cos(angle), np.sin(angle)], axis=1) * 7

    assert found.validate(encode) == {"val_rank1": 0.5, "val_map": 0.75}


def test_on_test_the_first_draw_s_queries_are_ranked_against_its_gallery():
    rows = [*ROWS[:4], ("t", "3", "test"), ("u", "3", "test"), ("v", "5", "test"), ("w", "5", "test")]
    frame = pd.DataFrame([(*row[:2], "dorsal_r", 1, row[2], "") for row in rows], columns=COLUMNS)
    frame.loc[frame["path"].isin(["t", "v"]), "gallery_in"] = "0"
    frame.loc[frame["path"].isin(["u", "w"]), "gallery_in"] = "1"
    split = Split.build({"protocol": "proportional", "draws": 2}, frame)
    brightness = np.array([10, 30, 40, 45, 50, 55, 60, 57], np.uint8)
    pixels = np.zeros((8, 2, 2, 3), np.uint8) + brightness[:, None, None, None]
    images = DecodedImages(tuple("abcdtuvw"), pixels, {}, tuple("abcdtuvw"))

    def encode(pixels):  # an angle by brightness: u (55) lies between t (50) and v (60); w (57) is nearest to v
        angle = pixels[:, 0, 0, 0].astype(float) / 100
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    found = training_images(images, split, "test")
    queries, query_ids, held, held_ids = found.compared
    assert (queries[:, 0, 0, 0].tolist(), query_ids.tolist()) == ([55, 57], ["3", "5"])
    assert (held[:, 0, 0, 0].tolist(), held_ids.tolist()) == ([50, 60], ["3", "5"])
    measured = found.validate(lambda pixels: encode(pixels + np.uint8(1) * (pixels == 55)))  # 56: nearer to 60
    assert measured == {"val_rank1": 0.5, "val_map": 0.75}
    assert found.val_labels.tolist() == [0, 1], "the confusion is still that of the validation images"


def test_a_split_that_trains_nobody_or_validates_nothing_is_refused(images):
    for rows, words in ((ROWS[4:], "0 identities train"), ([ROWS[0], ROWS[2]], "2 identities train.*0 with a valid")):
        with pytest.raises(EvaluationError, match=words):
            training_images(images, split_of(rows))
