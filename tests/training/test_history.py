import pytest

from handclip_lib.errors import TrainingError
from handclip_lib.training.state import History


def filled(select_by: str, values: list[float]) -> tuple[History, list[bool]]:
    history = History(select_by)
    better = [history.add({"epoch": 0} | ({} if select_by == "loss" else {select_by: values[0]}))]
    better += [history.add({"epoch": epoch, select_by: value}) for epoch, value in enumerate(values[1:], 1)]
    return history, better


def test_the_highest_measure_is_the_best_and_of_equals_the_earliest():
    history, better = filled("rank1", [0.5, 0.7, 0.7, 0.6, 0.9])
    assert better == [True, True, False, False, True]
    assert (history.best_epoch, history.epoch) == (4, 4)
    assert filled("rank1", [0.9, 0.7, 0.8])[0].best_epoch == 0, "training may make it worse"


def test_the_lowest_loss_is_the_best_and_the_start_has_none():
    history, better = filled("loss", [0, 3.0, 2.0, 2.5])
    assert better == [True, True, True, False]
    assert history.best_epoch == 2


def test_patience_counts_from_the_best():
    history, _ = filled("rank1", [0.5, 0.7, 0.6, 0.6])
    assert [history.stops(patience) for patience in (0, 1, 2, 3)] == [False, True, True, False]


def test_a_measure_that_is_not_there_is_refused():
    history = History("rank1")
    history.add({"epoch": 0})
    with pytest.raises(TrainingError, match="select_by='rank1' is not measured; choose from epoch, loss"):
        history.add({"epoch": 1, "loss": 2.0})
