import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from handclip_lib.data.images import DecodedImages
from handclip_lib.plots import training as plots

LITERAL = r"$x_1$ <b>"
rng = np.random.default_rng(0)


def drawn(figure: Figure) -> list[str]:
    figure.canvas.draw()
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]
    assert not [text.get_text() for text in texts if "$x" in text.get_text() and text.get_parse_math()]
    assert min(text.get_fontsize() for text in texts) >= 9
    return [text.get_text() for text in texts]


@pytest.fixture
def history() -> pd.DataFrame:
    epochs = np.arange(5)
    columns = ["loss", "image_to_text", "text_to_image", "prompt_norm", "prompt_variance", "gradient_norm"]
    frame = pd.DataFrame(dict.fromkeys(columns, epochs * 0.1 + 1))
    frame.loc[0, ["loss", "image_to_text", "text_to_image", "gradient_norm"]] = np.nan
    return frame.assign(epoch=epochs, **{"image_to_text@1": epochs / 4, "val_image_to_text@1": 1.0})


def test_learning_curves_show_hits_in_percent_and_mark_the_chosen_epoch(history):
    figure = plots.learning_curves(history, 3)
    texts = drawn(figure)
    hits = next(axis for axis in figure.axes if axis.get_title() == "hits by identity (dashed: epoch 3, chosen)")
    line = next(line for line in hits.lines if line.get_label() == "image→text@1")
    np.testing.assert_allclose(line.get_ydata(), [0, 25, 50, 75, 100])
    assert "image→text@5" not in texts, "what was not measured is not drawn"


@pytest.mark.parametrize("shape", [(3, 6, 2, 8), (3, 2, 8)])
def test_norms_are_lengths_of_tokens(shape):
    contexts = rng.normal(size=shape)
    figure = plots.prompt_norms([0, 2, 4], contexts)
    assert "token 2" in drawn(figure)
    lengths = np.linalg.norm(contexts, axis=-1).reshape(3, -1, 2)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), lengths[:, :, 1].mean(axis=1))


def test_the_similarity_is_the_cosine_in_the_given_order():
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


def test_image_text_matrices_say_how_many_are_nearest_to_their_own():
    labels = np.array([0, 0, 1])
    before, after = np.array([[0.0, 1], [1, 0], [1, 0]]), np.array([[1.0, 0], [1, 0], [0, 1]])
    texts = drawn(plots.image_text_matrices(before, after, labels))
    assert "before: 33 % nearest to their own" in texts
    assert "after: 100 % nearest to their own" in texts


def test_identity_hits_and_sheet():
    people = pd.DataFrame({"identity": list("abc"), "image_to_text@1": [0, 0.5, 1.0], "margin": [-0.2, 0.1, 0.3]})
    figure = plots.identity_hits(people)
    assert "some miss" in drawn(figure)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [-0.2, 0.1])
    pixels = [np.full((8, 8, 3), value, np.uint8) for value in (0, 200)]
    images = DecodedImages(("0", "1"), np.stack(pixels), {}, ("", ""))
    assert f"taken for {LITERAL}:" in drawn(plots.confused_hands([("a", "0", LITERAL, "1")], images))
    similarity = np.array([[0.3, 0.9, 0.2], [0.5, 0.7, 0.9], [0.4, 0.8, 0.1]])  # the second is nearest to x
    sheet = plots.identity_sheet(LITERAL, pixels, similarity, ["y", LITERAL, "x"], LITERAL)
    texts = drawn(sheet)
    assert f"{LITERAL} (own)" in texts
    assert {"own 0.90", "own 0.70\nnearest x 0.90"} <= set(texts)
    np.testing.assert_allclose([bar.get_width() for bar in sheet.axes[-1].patches], [0.8, 0.4, 0.4])
