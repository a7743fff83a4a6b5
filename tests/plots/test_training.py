import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.ranking.confusion import confusion
from handclip_lib.plots import training as plots
from handclip_lib.plots.training import confusion_matrix, drift_bars, generalisation_curves, image_curves


def test_curves_show_the_terms_there_are_and_validation_in_percent():
    history = pd.DataFrame(
        {
            "epoch": range(4), "loss": [np.nan, 3, 2, 1], "identity": [np.nan, 2, 1, 0.5],
            "val_rank1": [0, 0.5, 1, 0.9],
            "gradient_norm": [np.nan, 1, 1, 1], "learning_rate": [np.nan, 1e-4, 1e-4, 1e-5],
        }
    )  # fmt: skip
    figure = image_curves(history, 2, {"identity": 1.0})
    figure.canvas.draw()
    loss, validation, *_ = figure.axes
    assert [line.get_label() for line in loss.lines[:-1]] == ["weighted sum"]
    np.testing.assert_allclose(validation.lines[0].get_ydata(), [0, 50, 100, 90])
    names = ["identity", "triplet", "supcon", "center", "image_to_text", "text_supcon"]
    every = image_curves(history.assign(**dict.fromkeys(names, 1.0)), 2, dict.fromkeys(names, 1.0))
    drawn = [patch.get_label() for patch in every.axes[0].collections]
    assert len(drawn) == len(set(drawn)) == 6, "every term is drawn"
    assert "epoch 2, chosen" in validation.get_title()


def test_trained_people_and_strangers_stand_on_one_axis_with_the_frozen_model_and_the_gap():
    curve = pd.DataFrame({"epoch": range(3), "trained_rank1": [0.8, 0.9, 1.0], "strangers_rank1": [0.7, 0.75, 0.6]})
    curve = curve.assign(strangers_rank1_low=0.5, strangers_rank1_high=0.9)
    (axis,) = generalisation_curves(curve, 1).axes
    assert axis.get_title() == "rank-1 (dashed: epoch 1, kept); gap 15.0 points, 10.0 before training"
    lines = {line.get_label(): line for line in axis.lines}
    np.testing.assert_allclose(lines["strangers: 75.0 % at epoch 1"].get_ydata(), [70, 75, 60])
    np.testing.assert_allclose(lines["trained people: 90.0 % at epoch 1"].get_ydata(), [80, 90, 100])
    assert set(lines["strangers, frozen model: 70.0 %"].get_ydata()) == {70.0}
    (axis,) = generalisation_curves(curve[["epoch", "trained_rank1"]], 2).axes
    assert axis.get_title() == "rank-1 (dashed: epoch 2, kept)", "where nobody is held out there is no gap"


def test_stacked_terms_reach_the_weighted_sum():
    history = pd.DataFrame(
        {"epoch": range(3), "loss": [np.nan, 4.0, 2.5], "identity": [np.nan, 2.0, 1.0], "triplet": [np.nan, 3.0, 2.0]}
    )  # 4 = 0.5·2 + 1·3; 2.5 = 0.5·1 + 1·2
    loss = image_curves(history, 1, {"identity": 0.5, "triplet": 1.0, "supcon": 0.0}).axes[0]
    assert [patch.get_label() for patch in loss.collections] == ["0.5 × identity", "1 × triplet"]
    top = loss.collections[-1].get_paths()[0].vertices
    assert {y for x, y in top if x == 1} >= {4.0}
    assert {y for x, y in top if x == 2} >= {2.5}
    image_curves(history[:1], 0, {"identity": 1.0})


def test_drift_and_confusion_name_what_they_show():
    drift = pd.DataFrame({"part": ["input", "block 1", "output"], "parameters": [3, 4, 5], "drift": [0, 0.1, 0.023]})
    axis = drift_bars(drift).axes[0]
    assert [bar.get_width() for bar in axis.patches] == [0, 10, 2.3]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["input", "block 1", "output"]
    found = confusion(np.eye(3)[[0, 1, 1]], np.arange(3), ["$a", "b", "c"])
    axis = confusion_matrix(found, ["$a", "b", "c"]).axes[0]
    assert "66.7 %" in axis.get_title()
    np.testing.assert_array_equal(axis.images[0].get_array()[2], [0, 100, 0])


LITERAL = r"$x_1$ <b>"
rng = np.random.default_rng(0)


@pytest.fixture
def history() -> pd.DataFrame:
    epochs = np.arange(5)
    columns = ["loss", "image_to_text", "text_to_image", "prompt_norm", "prompt_variance", "gradient_norm"]
    frame = pd.DataFrame(dict.fromkeys(columns, epochs * 0.1 + 1))
    frame.loc[0, ["loss", "image_to_text", "text_to_image", "gradient_norm"]] = np.nan
    return frame.assign(epoch=epochs, **{"image_to_text@1": epochs / 4, "val_image_to_text@1": 1.0})


def test_learning_curves_show_hits_in_percent_and_mark_the_chosen_epoch(history, drawn):
    figure = plots.learning_curves(history, 3)
    texts = drawn(figure)
    hits = next(axis for axis in figure.axes if axis.get_title() == "hits by identity (dashed: epoch 3, chosen)")
    line = next(line for line in hits.lines if line.get_label() == "image→text@1")
    np.testing.assert_allclose(line.get_ydata(), [0, 25, 50, 75, 100])
    assert "image→text@5" not in texts, "what was not measured is not drawn"


@pytest.mark.parametrize("shape", [(3, 6, 2, 8), (3, 2, 8)])
def test_norms_are_lengths_of_tokens(shape, drawn):
    contexts = rng.normal(size=shape)
    figure = plots.prompt_norms([0, 2, 4], contexts)
    assert "token 2" in drawn(figure)
    lengths = np.linalg.norm(contexts, axis=-1).reshape(3, -1, 2)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), lengths[:, :, 1].mean(axis=1))


def test_the_similarity_is_the_cosine_in_the_given_order(drawn):
    text = rng.normal(size=(4, 8))
    order = plots.cluster_order(text)
    assert sorted(order) == [0, 1, 2, 3]
    figure = plots.prompt_similarity(text, [LITERAL, "b", "c", "d"], order, "epoch 3")
    unit = text / np.linalg.norm(text, axis=1, keepdims=True)
    shown = figure.axes[0].collections[0].get_array().reshape(4, 4)
    np.testing.assert_allclose(shown, (unit @ unit.T)[np.ix_(order, order)], rtol=1e-6)
    assert LITERAL in drawn(figure)
    assert figure.axes[0].get_title().startswith("epoch 3: mean cosine")


def test_similar_texts_are_neighbours():
    a, b = rng.normal(size=(2, 16))
    text = np.array([a, b, a + 0.1 * rng.normal(size=16), b + 0.1 * rng.normal(size=16)])
    order = plots.cluster_order(text).tolist()
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1
    assert plots.cluster_order(text[:2]).tolist() == [0, 1]


def test_image_text_matrices_say_how_many_are_nearest_to_their_own(drawn):
    labels = np.array([0, 0, 1])
    before, after = np.array([[0.0, 1], [1, 0], [1, 0]]), np.array([[1.0, 0], [1, 0], [0, 1]])
    texts = drawn(plots.image_text_matrices(before, after, labels))
    assert "before: 33 % nearest to their own" in texts
    assert "after: 100 % nearest to their own" in texts


def test_identity_hits_and_sheet(drawn):
    people = pd.DataFrame({"identity": list("abc"), "image_to_text@1": [0, 0.5, 1.0], "margin": [-0.2, 0.1, 0.3]})
    figure = plots.identity_hits(people)
    assert "some miss" in drawn(figure)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [-0.2, 0.1])
    pixels = [np.full((8, 8, 3), value, np.uint8) for value in (0, 200)]
    images = DecodedImages(("0", "1"), np.stack(pixels), {}, ("", ""))
    assert f"taken for {LITERAL}" in drawn(plots.confused_hands([("a", "0", LITERAL, "1")], images))
    assert drawn(plots.confused_hands([], images)) == ["every image is nearest to the text of its own identity"]
    similarity = np.array([[0.3, 0.9, 0.2], [0.5, 0.7, 0.9], [0.4, 0.8, 0.1]])  # the second is nearest to x
    sheet = plots.identity_sheet(LITERAL, pixels, similarity, ["y", LITERAL, "x"], LITERAL)
    texts = drawn(sheet)
    assert f"{LITERAL} (own)" in texts
    assert {"own 0.90", "own 0.70\nnearest x 0.90"} <= set(texts)
    np.testing.assert_allclose([bar.get_width() for bar in sheet.axes[-1].patches], [0.8, 0.4, 0.4])
