import numpy as np
import pandas as pd

from handclip_lib.evaluation.ranking.confusion import confusion
from handclip_lib.plots.training import confusion_matrix, drift_bars, image_curves


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
