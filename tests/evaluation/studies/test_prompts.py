import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.studies.prompts import (
    PROMPTS,
    VIEW_PROMPTS,
    compare_prompts,
    prompt_task,
    written_prompts,
    zero_shot_table,
)


def split_of(**roles: dict[str, list[str]]) -> Split:
    rows = [
        (path, identity, "dorsal_r", number, role, "")
        for role, people in roles.items()
        for identity, paths in people.items()
        for number, path in enumerate(paths)
    ]
    columns = ["path", "identity", "aspect", "capture", "role", "gallery_in"]
    return Split.build({"protocol": "proportional", "draws": 1}, pd.DataFrame(rows, columns=columns))


def features_of(paths: list[str], vectors: np.ndarray) -> Features:
    return Features.normalised(paths, vectors)


@pytest.fixture
def task():
    # Two images of "7", two of "12", one of "anna"; texts are the axes. The second of "7" is nearest to 12's text.
    split = split_of(
        train={"7": ["a.jpg", "b.jpg"], "12": ["c.jpg", "d.jpg"], "anna": ["e.jpg"]}, val={"7": ["v.jpg"]},
        test={"20": ["t.jpg"]},
    )  # fmt: skip
    vectors = np.array([[2, 1, 0], [1, 3, 0], [0, 2, 0], [1, 2, 0], [0, 1, 5], [4, 0, 1]], np.float32)
    return prompt_task(features_of(["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "v.jpg"], vectors), split)


AXES = np.eye(3, dtype=np.float32)


def test_a_task_holds_training_and_validation_images_and_nobody_who_is_tested(task):
    assert task.identities == ("7", "12", "anna"), "in the order of identities"
    assert task.paths == ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")
    assert task.labels.tolist() == [0, 0, 1, 1, 2]
    assert task.val_paths == ("v.jpg",)
    np.testing.assert_allclose(task.images[0], [2, 1, 0], rtol=1e-6)  # as the model gave it
    assert task.sorted_labels.tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_allclose(task.similarity(AXES)[0], np.array([2, 1, 0]) / np.sqrt(5), rtol=1e-6)


def test_hits_are_by_identity_and_worked_out_by_hand(task):
    # image→text: a hits, b misses (12 is nearer), c, d, e hit: 4 of 5.
    # text→image: 7's nearest is a (0.89 before b 0.32): hit; 12's is c: hit; anna's is e: hit.
    found = task.accuracy(3 * AXES)
    assert found["image_to_text@1"] == pytest.approx(0.8)
    assert found["image_to_text@5"] == 1
    assert found["text_to_image@1"] == 1
    assert found["val_image_to_text@1"] == 1


def test_the_conclusion_is_of_validation_images_or_where_there_are_none_of_training_images(task):
    before, after = -AXES, AXES
    said = task.conclusion(before, after)
    hits = [100 * task.accuracy(text)["val_image_to_text@1"] for text in (after, before)]
    own = "images are nearest to the text of their own identity, one of 3; before learning"
    assert said == f"{hits[0]:.1f} % of the validation {own} {hits[1]:.1f} %"
    none = replace(task, val_paths=(), val_labels=np.empty(0, np.int64))
    hits = [100 * task.accuracy(text)["image_to_text@1"] for text in (after, before)]
    assert none.conclusion(before, after) == f"{hits[0]:.1f} % of the training {own} {hits[1]:.1f} %"


def test_a_tie_is_no_hit(task):
    with pytest.warns(UserWarning, match="tied"):
        assert task.accuracy(np.ones((3, 3), np.float32))["image_to_text@1"] == 0


def test_by_identity_names_who_is_confused_with_whom(task):
    people = task.by_identity(AXES).set_index("identity")
    assert people.index[0] == "7"
    assert people.loc["7", "image_to_text@1"] == 0.5
    assert people.loc["7", "confused_with"] == "12"
    assert people.loc["12", "confused_with"] == ""
    a, b = (2 - 1) / np.sqrt(5), (1 - 3) / np.sqrt(10)
    assert people.loc["7", "margin"] == pytest.approx((a + b) / 2, rel=1e-5)
    assert people["images"].to_dict() == {"7": 2, "12": 2, "anna": 1}


def test_confused_pairs_are_the_clearest_mistakes(task):
    assert task.confused_pairs(AXES) == [("7", "b.jpg", "12", "c.jpg")]
    assert task.confused_pairs(AXES[[1, 0, 2]], most=1) == [("12", "c.jpg", "7", "b.jpg")]


def test_written_prompts_say_what_the_metadata_say_and_no_more():
    images = pd.DataFrame(
        {
            "identity": ["1", "1", "2", "3"],
            "side": ["right", "left", "left", ""],
            "view": ["dorsal", "dorsal", "palmar", ""],
            "skin_color": ["dark", "fair", None, float("nan")],
        }
    )
    assert written_prompts(images, ["3", "1", "2"]) == [
        "A photo of a hand.", "A photo of a right dorsal hand with dark skin.", "A photo of a left palmar hand.",
    ]  # fmt: skip
    assert set(PROMPTS) == {"dorsal_r", "palmar_r", "dorsal_l", "palmar_l"}


def test_equal_sentences_are_told_apart_by_nobody(task):
    def encode(texts):
        return np.array([[1.0, 0, 0] if "fair" in text else [0, 1, 1] for text in texts])

    with warnings.catch_warnings():  # equal sentences tie: no embedding has collapsed
        warnings.simplefilter("error")
        frame = compare_prompts(task, ["fair", "dark", "dark"], encode, {"learnt": AXES})
    with pytest.warns(UserWarning, match="tied"):
        compare_prompts(task, ["fair", "dark", "dark"], encode, {"learnt": np.ones((3, 3))})
    rows = frame.set_index(["prompts", "images"])
    assert rows.loc[("written from metadata", "train"), "texts"] == 2
    # a alone is nearest to "fair"; c, d, e are nearest to "dark", which two share: a tie, and no hit by identity.
    assert rows.loc[("written from metadata", "train"), "image_to_text@1"] == pytest.approx(0.2)
    assert rows.loc[("written from metadata", "train"), "image_to_text@1_by_text"] == pytest.approx(0.8)
    assert rows.loc[("learnt", "val"), "image_to_text@1"] == 1
    assert frame["chance"].unique() == pytest.approx(1 / 3)


def test_a_split_that_trains_nobody_is_refused():
    split = split_of(train={}, val={}, test={"1": ["a.jpg", "b.jpg"], "2": ["c.jpg"]})
    with pytest.raises(EvaluationError, match=r"identities that train in this split \(protocol .*\): 0; at least two"):
        prompt_task(features_of(["a.jpg"], AXES[:1]), split)


def test_features_remember_their_lengths():
    found = features_of(["a", "b"], np.array([[3.0, 4.0], [0.0, 2.0]]))
    np.testing.assert_allclose(found.raw.embeddings, [[3, 4], [0, 2]], rtol=1e-6)
    with pytest.raises(EvaluationError, match="lengths of these embeddings are unknown"):
        _ = Features(("a",), np.ones((1, 2), np.float32)).raw


ASPECTS = list(PROMPTS)
DIRECTIONS = {prompt: np.eye(6)[number] for number, prompts in enumerate(PROMPTS.values()) for prompt in prompts}
for view, prompts in VIEW_PROMPTS.items():
    axis = sum(np.eye(6)[number] for number, aspect in enumerate(ASPECTS) if aspect.startswith(view))
    DIRECTIONS |= dict.fromkeys(prompts, axis)


def encode_text(texts) -> np.ndarray:
    """Each aspect's prompts lie around an axis of its own, a view's between those of its aspects, at any length."""
    rng = np.random.default_rng(len(texts))
    return np.stack([DIRECTIONS[text] * (3 + number) for number, text in enumerate(texts)]) + rng.normal(
        0, 0.01, (len(texts), 6)
    )


def images_of(aspects: list[str]) -> tuple[Features, pd.DataFrame]:
    paths = [f"{number}.jpg" for number in range(len(aspects))]
    embeddings = np.eye(6)[[ASPECTS.index(aspect) for aspect in aspects]]
    return Features.normalised(paths, embeddings), pd.DataFrame({"path": paths})


def test_prompts_name_the_aspect_they_stand_for():
    for aspect, prompts in PROMPTS.items():
        side = "right" if aspect[-1] == "r" else "left"
        words = ("palm" if "palmar" in aspect else "back", aspect[:-2])
        assert all(side in prompt and any(word in prompt for word in words) for prompt in prompts)


def test_the_table_counts_view_side_and_both_apart():
    told = ["dorsal_r", "dorsal_r", "palmar_r", "palmar_l", "dorsal_l"]
    features, images = images_of(told)
    images["aspect"] = ["dorsal_r", "dorsal_l", "dorsal_r", "palmar_l", "dorsal_l"]
    images["identity"] = ["1", "1", "2", "3", "3"]
    table = zero_shot_table(features, images, encode_text).set_index("question")
    assert table["accuracy"].to_dict() == pytest.approx(
        {"view (dorsal or palmar)": 4 / 5, "side (right or left)": 4 / 5, "both": 3 / 5}
    )
    assert table["majority"].tolist() == pytest.approx([4 / 5, 3 / 5, 2 / 5])
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["accuracy_high"]).all()
    assert set(table["n_images"]) == {5}


def test_images_without_aspect_or_embedding_do_not_count():
    features, images = images_of(["dorsal_r", "palmar_r", "palmar_l"])
    images["aspect"], images["identity"] = ["dorsal_r", None, "palmar_l"], ["1", "2", "3"]
    images.loc[3] = ["absent.jpg", "dorsal_l", "4"]
    assert set(zero_shot_table(features, images, encode_text)["n_images"]) == {2}


@pytest.mark.parametrize("reader", [None, encode_text])
def test_without_words_or_aspects_the_table_is_empty(reader):
    features, images = images_of(["dorsal_r", "palmar_r"])
    images["aspect"], images["identity"] = [None, None] if reader else ["dorsal_r", "palmar_r"], ["1", "2"]
    table = zero_shot_table(features, images, reader)
    assert table.empty
    assert list(table.columns) == ["question", "accuracy", "accuracy_low", "accuracy_high", "majority", "n_images"]
