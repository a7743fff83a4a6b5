import numpy as np
import pandas as pd

from handclip_lib.plots.training import image_curves


def test_curves_show_the_terms_there_are_and_validation_in_percent():
    history = pd.DataFrame(
        {
            "epoch": range(4), "loss": [np.nan, 3, 2, 1], "identity": [np.nan, 2, 1, 0.5],
            "val_rank1": [0, 0.5, 1, 0.9],
            "gradient_norm": [np.nan, 1, 1, 1], "learning_rate": [np.nan, 1e-4, 1e-4, 1e-5],
        }
    )  # fmt: skip
    figure = image_curves(history, 2)
    figure.canvas.draw()
    loss, validation, *_ = figure.axes
    assert [line.get_label() for line in loss.lines[:-1]] == ["weighted sum", "identity"]
    np.testing.assert_allclose(validation.lines[0].get_ydata(), [0, 50, 100, 90])
    every = history.assign(**dict.fromkeys(["triplet", "supcon", "center", "image_to_text", "text_supcon"], 1.0))
    drawn = [line.get_label() for line in image_curves(every, 2).axes[0].lines[:-1]]
    assert len(drawn) == len(set(drawn)) == 7, "every term is drawn"
    assert "epoch 2, chosen" in validation.get_title()
