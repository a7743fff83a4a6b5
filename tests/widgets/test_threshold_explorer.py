from pathlib import Path

import numpy as np
import pytest

from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.verification.error_rates import VerificationResult, verify_models
from handclip_lib.widgets.browsers import threshold_explorer


@pytest.fixture(scope="module")
def results() -> list[VerificationResult]:
    rows = [{"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r"} for i in range(12) for n in range(4)]
    split = make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", draws=3)
    rng = np.random.default_rng(0)
    models = {
        name: Features.normalised(split.images["path"], rng.normal(size=(len(split.images), 4)))
        for name in ("model", "floor")
    }
    return verify_models(models, split, bootstrap=5)


def line_and_title(panel) -> tuple[float, str]:
    (axis,) = panel.figure.axes
    (line,) = axis.get_lines()
    return line.get_xdata()[0], panel.figure.get_suptitle()


def expected(result: VerificationResult, threshold: float) -> tuple[str, str]:
    accepted = int(np.sum(result.pairs.impostor >= threshold))
    rejected = int(np.sum(result.pairs.genuine < threshold))
    n_impostor, n_genuine = len(result.pairs.impostor), len(result.pairs.genuine)
    return (
        f"FMR {100 * accepted / n_impostor:.3g} %: {accepted:,} of {n_impostor:,} non-mated pairs accepted",
        f"FNMR {100 * rejected / n_genuine:.3g} %: {rejected:,} of {n_genuine:,} mated pairs rejected",
    )


def test_starts_at_the_eer_threshold_and_says_what_it_does(results):
    panel = threshold_explorer(results)
    line, title = line_and_title(panel)
    assert line == pytest.approx(results[0].curve.eer_threshold)
    assert all(words in title for words in expected(results[0], line))
    assert "threshold: " in panel.alt and "image/png" in panel._repr_mimebundle_()[0]


@pytest.mark.parametrize("threshold", [-0.5, 0.37])
def test_the_line_and_the_counts_follow_the_slider(results, threshold):
    panel = threshold_explorer(results)
    panel.controls["threshold"].value = threshold
    line, title = line_and_title(panel)
    assert line == threshold
    assert all(words in title for words in expected(results[0], threshold))
    panel.controls["model"].value = "floor"
    assert all(words in line_and_title(panel)[1] for words in expected(results[1], threshold))


def test_the_slider_reaches_from_all_accepted_to_none_and_doubts_few_people(results):
    panel = threshold_explorer(results)
    slider = panel.controls["threshold"]
    slider.value = slider.max
    n_impostor = len(results[0].pairs.impostor)
    title = line_and_title(panel)[1]
    assert f"FMR 0 %: 0 of {n_impostor:,}" in title
    assert "(6 people, too few for a claim)" in title
    slider.value = slider.min
    title = line_and_title(panel)[1]
    assert f"FMR 100 %: {n_impostor:,} of {n_impostor:,}" in title
    assert "(6 people)" in title
