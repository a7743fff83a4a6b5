import numpy as np
import pandas as pd
import pytest

from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.studies.prompts import PROMPTS, VIEW_PROMPTS, zero_shot, zero_shot_table

ASPECTS = list(PROMPTS)
AXES = {prompt: np.eye(6)[number] for number, prompts in enumerate(PROMPTS.values()) for prompt in prompts}
for view, prompts in VIEW_PROMPTS.items():
    axis = sum(np.eye(6)[number] for number, aspect in enumerate(ASPECTS) if aspect.startswith(view))
    AXES |= dict.fromkeys(prompts, axis)


def encode_text(texts) -> np.ndarray:
    """Each aspect's prompts lie around an axis of its own, a view's between those of its aspects, at any length."""
    rng = np.random.default_rng(len(texts))
    return np.stack([AXES[text] * (3 + number) for number, text in enumerate(texts)]) + rng.normal(
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


def test_each_image_gets_the_aspect_whose_prompts_are_nearest():
    features, _ = images_of(ASPECTS)
    assert zero_shot(features.embeddings, encode_text, PROMPTS).tolist() == ASPECTS


def test_the_table_counts_view_side_and_both_apart():
    told = ["dorsal_r", "dorsal_r", "palmar_r", "palmar_l", "dorsal_l"]
    features, images = images_of(told)
    images["aspect"] = ["dorsal_r", "dorsal_l", "dorsal_r", "palmar_l", "dorsal_l"]
    images["identity"] = ["1", "1", "2", "3", "3"]
    table = zero_shot_table(features, images, encode_text, bootstrap=100).set_index("question")
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
    assert set(zero_shot_table(features, images, encode_text, bootstrap=100)["n_images"]) == {2}


@pytest.mark.parametrize("reader", [None, encode_text])
def test_without_words_or_aspects_the_table_is_empty(reader):
    features, images = images_of(["dorsal_r", "palmar_r"])
    images["aspect"], images["identity"] = [None, None] if reader else ["dorsal_r", "palmar_r"], ["1", "2"]
    table = zero_shot_table(features, images, reader)
    assert table.empty
    assert list(table.columns) == ["question", "accuracy", "accuracy_low", "accuracy_high", "majority", "n_images"]
