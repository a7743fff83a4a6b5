"""Score files read by the readers of bob.bio.base, bob.measure and pyeer themselves, where they are installed."""

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from handclip_lib.evaluation.exchange.score_files import write_scores
from handclip_lib.evaluation.exchange.scoring import evaluate_files

pytestmark = pytest.mark.slow


def bobs_reader(*where: str):
    """bob's module of score files by itself: the package around it (8.1.1) does not import under numpy 2."""
    found = find_spec("bob")
    places = [Path(root, *where, "load.py") for root in (found.submodule_search_locations if found else ())]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        pytest.skip(f"bob.{'.'.join(where)} is not installed")
    spec = spec_from_file_location("bobs_reader", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("form", "name"), [("bob", "scores.csv"), ("four-column", "scores.txt")])
def test_bob_reads_the_same_scores(tmp_path, saved_runs, form, name):
    pytest.importorskip("dask.dataframe", exc_type=ImportError)
    load = bobs_reader("bio", "base", "score")
    split = saved_runs.small_split()
    write_scores(tmp_path / name, saved_runs.features_of(split, 1.0), split, form, 0)
    negatives, positives = (np.sort(np.asarray(side, float)) for side in load.split(str(tmp_path / name)))
    found = evaluate_files([tmp_path / name])
    pairs = found.verified[0].pairs
    np.testing.assert_array_equal(negatives, np.sort(pairs.impostor))
    np.testing.assert_array_equal(positives, np.sort(pairs.genuine))
    of_probe = load.cmc(str(tmp_path / name))
    first = np.mean([max(mated) > max(others) for others, mated in of_probe])
    assert found.tables["identification"]["rank1"][0] == pytest.approx(first)


def test_bob_measure_reads_the_same_scores(tmp_path, saved_runs):
    load = bobs_reader("measure")
    split = saved_runs.small_split()
    for form, name in (("two-column", "scores.txt"), ("csv", "scores.csv")):
        write_scores(tmp_path / name, saved_runs.features_of(split, 1.0), split, form, 0)
    negatives, positives = (np.sort(side) for side in load.split(str(tmp_path / "scores.txt")))
    pairs = evaluate_files([tmp_path / "scores.csv"]).verified[0].pairs
    np.testing.assert_array_equal(negatives, np.sort(pairs.impostor))
    np.testing.assert_array_equal(positives, np.sort(pairs.genuine))


def test_pyeer_finds_the_same_rates(tmp_path, saved_runs):
    pyeer = pytest.importorskip("pyeer.eer_info")
    split = saved_runs.small_split()
    for form, name in (("two-column", "scores.txt"), ("csv", "scores.csv")):
        write_scores(tmp_path / name, saved_runs.features_of(split, 1.0), split, form, 0)
    sides: tuple[list[float], list[float]] = ([], [])
    read = vars(pyeer)["__get_score"]  # of a line of its file of mated, or of non-mated scores
    for line in (tmp_path / "scores.txt").read_text().splitlines():
        sides[line.startswith("-1 ")].append(read(line))
    theirs = pyeer.get_eer_stats(*sides)
    ours = evaluate_files([tmp_path / "scores.csv"]).tables["verification"].iloc[0]
    assert ours["auc"] == pytest.approx(theirs.auc, abs=1e-9)
    assert ours["d_prime"] == pytest.approx(theirs.decidability, abs=1e-9)
    assert theirs.eer_low - 1e-9 <= ours["eer"] <= theirs.eer_high + 1e-9
