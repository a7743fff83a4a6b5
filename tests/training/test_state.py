import pytest
import safetensors.torch
import torch

from handclip_lib.errors import TrainingError, WriteError
from handclip_lib.training.state import History, load_checkpoint, save_checkpoint


def test_what_was_saved_is_read_to_the_bit(tmp_path):
    tensors = {"a": torch.randn(3, 4).T, "step": torch.tensor(7.0)}
    facts = {"history": [{"epoch": 0, "loss": 0.1 + 0.2}], "name": "ü"}
    save_checkpoint(tmp_path / "x.safetensors", tensors, facts)
    read, known = load_checkpoint(tmp_path / "x.safetensors")
    assert known == facts
    assert all(torch.equal(read[name], value) for name, value in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.matrix("damaged file", "resume: a checkpoint", "refused with the remedy")
def test_damage_and_absence_are_named_with_a_remedy(tmp_path):
    file = tmp_path / "x.safetensors"
    with pytest.raises(TrainingError, match="delete it and train again"):
        load_checkpoint(file)
    save_checkpoint(file, {"a": torch.zeros(100)}, {})
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(TrainingError, match="is no checkpoint"):
        load_checkpoint(file)


@pytest.mark.parametrize("place", [10, 5_000, -1])
def test_a_changed_byte_and_a_hole_are_no_checkpoint(tmp_path, place):
    file = tmp_path / "x.safetensors"
    for damage in (1, 4096):
        save_checkpoint(file, {"a": torch.full((4000,), torch.pi)}, {})
        with file.open("r+b") as opened:
            opened.seek(place if place >= 0 else file.stat().st_size - damage)
            opened.write(bytes(damage))
        with pytest.raises(TrainingError, match=r"x\.safetensors is no checkpoint.*delete it and train again"):
            load_checkpoint(file)


def test_a_checkpoint_without_a_checksum_is_not_resumed(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors", {"handclip": "{}"})
    with pytest.raises(TrainingError, match=r"no checksum, so damage could not be told.*delete it and train again"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot be written.*free space, then run again: it resumes"):
        save_checkpoint(tmp_path / "file" / "x.safetensors", {"a": torch.zeros(1)}, {})


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
