import numpy as np
import pytest

from handclip_lib.analysis.comparison import Entry, compare_pair, entries_of
from handclip_lib.errors import EvaluationError
from handclip_lib.plots.comparison import MOST_QUERIES
from handclip_lib.widgets.browsers import run_comparer


@pytest.fixture
def entries(tmp_path, saved_runs) -> list[Entry]:
    loud, _, _ = saved_runs.evaluated(tmp_path / "05_evaluation-tiny-aaaa", 1.5, 2)
    quiet, _, _ = saved_runs.evaluated(tmp_path / "03_image_finetune-tiny-bbbb", 0.6, 1)
    return entries_of([loud, quiet], loud.run)


def texts(panel) -> str:
    return "\n".join(
        text.get_text() for axis in panel.figure.axes for text in (axis.title, axis._left_title, *axis.texts)
    )


def test_starts_with_the_second_against_the_first(entries):
    panel = run_comparer(entries, samples=200)
    assert panel.values == {"run": "tiny (03-bbbb)", "against": "tiny (05-aaaa)"}
    lines = panel.figure.axes[0].get_lines()
    for line, entry in zip(lines, (entries[1], entries[0]), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * entry.cmc("aspect", 200).estimate)
    found = compare_pair(entries[1], entries[0], samples=200)["rank1"]
    low, high = 100 * found.low, 100 * found.high
    assert f"{100 * found.estimate:+z.1f} [{low:z.1f}, {high:z.1f}], p = {found.p_value:.3g}" in texts(panel)
    assert "image/png" in panel._repr_mimebundle_()[0]


def test_lists_photographs_that_only_one_gets_right(entries):
    panel = run_comparer(entries, samples=200)
    ours = entries[1].queries("aspect").set_index(["draw", "path"])
    theirs = entries[0].queries("aspect").set_index(["draw", "path"])
    won = ours[(ours["hit"] == 1) & (theirs["hit"] == 0)].reset_index()
    assert f"only tiny (03-bbbb):\n{len(won)} queries of {won['path'].nunique()} photographs" in texts(panel)
    counts = won.groupby("path").size().sort_values(ascending=False, kind="stable")
    path = counts.index[counts == counts.max()][0]
    worst = theirs.loc[[(draw, path) for draw in won.loc[won["path"] == path, "draw"]], "first_match_rank"].max()
    draws = "draw" if counts[path] == 1 else "draws"
    identity = won.loc[won["path"] == path, "identity"].iloc[0]
    assert f"{path} ({identity}): {counts[path]} {draws}, rank of the other ≤ {worst}" in texts(panel)
    assert texts(panel).count("rank of the other") <= 2 * MOST_QUERIES


def test_another_choice_is_another_figure_and_a_run_against_itself_is_refused(entries):
    panel = run_comparer(entries, samples=200)
    panel.controls["against"].value = "trivial baseline: pixels"
    assert "less trivial baseline: pixels" in texts(panel)
    panel.controls["against"].value = "tiny (03-bbbb)"
    said = panel._repr_mimebundle_()[0]["text/plain"]
    assert said == "EvaluationError: tiny (03-bbbb) is chosen twice; choose another run to set it against"


def test_one_entry_and_equal_labels_are_refused(entries):
    with pytest.raises(EvaluationError, match="1 entries, 1 labels"):
        run_comparer(entries[:1])
    with pytest.raises(EvaluationError, match="2 entries, 1 labels"):
        run_comparer([entries[0], entries[0]])


def test_a_run_on_another_split_says_so_in_the_panel(entries, tmp_path, saved_runs):
    other, _, _ = saved_runs.evaluated(tmp_path / "05_evaluation-tiny-cccc", split=saved_runs.small_split(seed=1))
    panel = run_comparer([*entries, Entry("other", other, "tiny")], samples=200)
    panel.controls["run"].value = "other"
    assert "cannot be compared" in panel._repr_mimebundle_()[0]["text/plain"]
