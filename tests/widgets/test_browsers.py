import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handclip_lib.analysis.comparison import Entry, compare_pair, entries_of
from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.confusion import RankedQueries
from handclip_lib.evaluation.verification.error_rates import VerificationResult, verify_models
from handclip_lib.plots.comparison import MOST_QUERIES
from handclip_lib.widgets.browsers import dataset_browser, matching, retrieval_browser, run_comparer, threshold_explorer

HOSTILE = ["<script>alert(1)</script>", "../../x", "$x^$", r"\frac{"]


def _titles(panel) -> list[str]:
    return [axes.get_title() for axes in panel.figure.axes if axes.images]


def _table(root: Path, identities: list[str], nail_polish: list[bool | None] | None = None) -> HandTable:
    rows = []
    for number, identity in enumerate(identities):
        path = f"Hand_{number:07d}.jpg"
        Image.new("RGB", (40, 30), (10 * number, 90, 120)).save(root / path)
        aspect = ("dorsal_r", "palmar_r")[number % 2]
        polish = nail_polish[number] if nail_polish else None
        row = {"path": path, "identity": identity, "side": "right", "view": aspect[:-2], "aspect": aspect}
        rows.append({**row, "gender": "male", "nail_polish": polish})
    return HandTable.build("11k", root, rows, {})


def _browser(table: HandTable, cache: Path | None = None, **options):
    images = decode_images(table.root, table.images["path"], 32, cache=cache or table.root / "cache", progress=False)
    return dataset_browser(table, images, **options)


def test_shows_photographs_with_identity_and_aspect(tmp_path: Path):
    panel = _browser(_table(tmp_path, ["7", "8"]))
    assert _titles(panel) == ["7\ndorsal_r", "8\npalmar_r"]
    data, _ = panel._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_offers_only_what_the_data_set_records_and_distinguishes(tmp_path: Path):
    with_polish = _browser(_table(tmp_path, ["7", "10", "8"], [True, False, None]))
    assert list(with_polish.values) == ["aspect", "subject", "nail_polish", "sample"]  # all are male
    subjects = [label for label, _ in with_polish.controls["subject"].options]
    assert subjects == ["all", "7", "8", "10"]


def test_a_subject_and_an_attribute_narrow_the_choice(tmp_path: Path):
    panel = _browser(_table(tmp_path, ["7", "7", "8", "8"], [True, False, False, None]))
    panel.controls["subject"].value = "7"
    assert _titles(panel) == ["7\ndorsal_r", "7\npalmar_r"]
    panel.controls["nail_polish"].value = True
    assert _titles(panel) == ["7\ndorsal_r"]


def test_a_choice_nothing_fits_says_so(tmp_path: Path):
    panel = _browser(_table(tmp_path, ["7", "8"]))
    panel.controls["subject"].value = "8"
    panel.controls["aspect"].value = "dorsal_r"
    text = panel._repr_mimebundle_()[0]["text/plain"]
    assert text == "DataError: no photograph has aspect='dorsal_r', subject='8'; set one of them to all"


def test_a_sample_is_of_the_size_asked_for_and_repeats(tmp_path: Path):
    table = _table(tmp_path, [str(number) for number in range(20)])
    first, again = _browser(table, count=6, seed=3), _browser(table, count=6, seed=3)
    assert len(_titles(first)) == 6
    assert _titles(first) == _titles(again)
    first.controls["sample"].value = 2
    assert _titles(first) != _titles(again)


@pytest.mark.parametrize("identity", HOSTILE)
def test_an_identity_is_text_not_mathematics_or_markup(tmp_path: Path, identity: str):
    panel = _browser(_table(tmp_path, [identity, "8"]))
    assert _titles(panel)[0].startswith(identity)
    panel.controls["subject"].value = identity
    assert "image/png" in panel._repr_mimebundle_()[0]
    assert "<script" not in panel._picture.value


def test_matching_never_lets_a_missing_value_through(tmp_path: Path):
    images = _table(tmp_path, ["7", "8", "9"], [True, None, False]).images
    assert matching(images, {"nail_polish": True})["identity"].tolist() == ["7"]
    assert matching(images, {"nail_polish": False})["identity"].tolist() == ["9"]
    assert len(matching(images, {"nail_polish": "all"})) == 3


def test_real_photographs(hands11k_sample: Path, tmp_path: Path):
    from handclip_lib.data.labels import read_hands11k

    panel = _browser(read_hands11k(hands11k_sample), tmp_path)
    panel.controls["aspect"].value = "palmar_r"
    assert len(_titles(panel)) == 12
    assert all(title.endswith("palmar_r") for title in _titles(panel))


# Three people; the gallery holds a0, b0, c0. Angles in degrees place the embeddings on a circle.
ANGLES = {"a0": 0, "a1": 5, "a2": 100, "b0": 90, "b1": 80, "c0": 180, "c1": 70}
# a1 → a0 (right); a2 → b0 (10° away), c0 (80°), a0 (100°): rank 3;
# b1 → b0 (right); c1 → b0 (20°), a0 (70°), c0 (110°): rank 3


@pytest.fixture
def split() -> Split:
    rows = [
        {"path": f"{name}.jpg", "identity": name[0], "aspect": "dorsal_r", "capture": number, "role": "test",
         "gallery_in": "0" if name[1] == "0" else ("1" if name[1] == "1" else "")}
        for number, name in enumerate(ANGLES)
    ]  # fmt: skip
    rows.append({**rows[0], "path": "other.jpg", "identity": "a", "aspect": "palmar_r", "role": "other"})
    meta = {"dataset": "folder", "aspect": "dorsal_r", "draws": 2, "unqueryable": []}
    return Split.build(meta, pd.DataFrame(rows))


@pytest.fixture
def features() -> Features:
    angles = np.deg2rad([*ANGLES.values(), 99])
    paths = [*(f"{name}.jpg" for name in ANGLES), "other.jpg"]
    return Features.normalised(paths, np.stack([np.cos(angles), np.sin(angles)], 1))


@pytest.fixture
def images(features: Features) -> DecodedImages:
    pixels = np.arange(len(features.paths), dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    return DecodedImages(features.paths, pixels, {}, features.paths)


def test_queries_are_ordered_as_asked(features: Features, split: Split):
    ranking = RankedQueries(features, split.draw(0))
    names = np.array([path[:2] for path in ranking.draw.query_paths])
    assert names[ranking.order("all")].tolist() == ["a1", "a2", "b1", "c1"]
    assert sorted(names[ranking.order("random")]) == ["a1", "a2", "b1", "c1"]
    assert names[ranking.order("worst")].tolist() == ["a2", "c1", "a1", "b1"]
    # lead of the wrong image: c1 cos 20° - cos 110° = 1.28, a2 cos 10° - cos 100° = 1.16
    assert names[ranking.order("wrong")].tolist() == ["c1", "a2"]


def test_shows_the_ranked_gallery_and_the_first_match_beyond_it(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=2)
    titles = _titles(panel)
    assert "a" in titles[0]
    assert titles[1:] == ["1. b\n0.985", "2. c\n0.174", "3. a\n-0.174"]
    shown = [int(np.asarray(axes.images[0].get_array()).flat[0]) for axes in panel.figure.axes if axes.images]
    assert shown == [2, 3, 5, 0]  # a2; b0, c0, a0


def test_frames_are_green_for_the_same_person_and_red_for_another(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=2)
    colours = []
    for axes in panel.figure.axes:
        if axes.images:
            red, green, _, _ = axes.spines["left"].get_edgecolor()
            colours.append("red" if red > green else "green" if green > red else "none")
    assert colours[1:] == ["red", "red", "green"]


def test_gallery_all_counts_another_aspect_as_someone_else(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=1)
    panel.controls["gallery"].value = "all"
    assert _titles(panel)[1].startswith("1. palmar_r/\na\n")
    assert any(title.startswith("4. a\n") for title in _titles(panel))


def test_the_number_of_queries_follows_the_choice(features, split, images):
    panel = retrieval_browser(features, split, images)
    panel.controls["queries"].value = "all"
    number = panel.controls["query"]
    assert number.max == 4
    number.value = 4
    panel.controls["queries"].value = "wrong"
    assert (number.max, number.value) == (2, 2)
    assert "image/png" in panel._repr_mimebundle_()[0]
    panel.controls["queries"].value = "all"
    assert number.max == 4


def test_a_choice_without_queries_says_so(features, split, images):
    corner = {"a": (1.0, 0.0, 0.0), "b": (0.0, 1.0, 0.0), "c": (0.0, 0.0, 1.0), "o": (1.0, 0.0, 0.0)}
    same = Features.normalised(features.paths, np.array([corner[path[0]] for path in features.paths]))
    panel = retrieval_browser(same, split, images)
    panel.controls["queries"].value = "wrong"
    text = panel._repr_mimebundle_()[0]["text/plain"]
    assert text == "LookupError: no query is wrong in draw 0, gallery 'aspect'; choose other queries"


def test_equal_scores_put_someone_else_first(split: Split):
    flat = Features.normalised([*(f"{name}.jpg" for name in ANGLES), "other.jpg"], np.ones((8, 2)))
    ranking = RankedQueries(flat, split.draw(0))
    columns, ranks = ranking.best(0, 1)
    assert ranking.row(0)[1][columns].tolist() == [False, True]
    assert ranks.tolist() == [1, 3]


def test_another_draw_shows_its_own_gallery(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=3)
    panel.controls["queries"].value = "all"
    panel.controls["draw"].value = 1
    assert sorted(title.split()[1] for title in _titles(panel)[1:]) == ["a", "b", "c"]
    assert panel.values["draw"] == 1


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
        np.testing.assert_allclose(line.get_ydata(), 100 * entry.cmc("aspect").estimate)
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
    assert f"{path} ({identity}): {counts[path]} {draws}, other's rank ≤ {worst}" in texts(panel)
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


@pytest.fixture(scope="module")
def results() -> list[VerificationResult]:
    rows = [{"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r"} for i in range(12) for n in range(4)]
    split = make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", draws=3)
    rng = np.random.default_rng(0)
    models = {
        name: Features.normalised(split.images["path"], rng.normal(size=(len(split.images), 4)))
        for name in ("model", "floor")
    }
    return verify_models(models, split)


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
