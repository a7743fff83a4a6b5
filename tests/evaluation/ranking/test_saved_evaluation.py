import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.errors import EvaluationError, WriteError
from handclip_lib.evaluation.ranking.saved_evaluation import EMBEDDINGS, PER_QUERY, load_evaluation, save_evaluation


def test_every_query_comes_back_to_the_last_bit(tmp_path: Path, saved_runs):
    saved, results, _ = saved_runs.evaluated(tmp_path / "05_evaluation-tiny-0000")
    assert (saved.run, saved.models, saved.burst) == (
        "05_evaluation-tiny-0000",
        ("tiny", "trivial baseline: pixels"),
        0,
    )
    assert saved.n_gallery == {"aspect": 6, "all": 12}
    for result in results:
        rows = saved.queries(result.model, result.gallery)
        written = result.per_query.reset_index(drop=True)
        pd.testing.assert_frame_equal(rows[list(written.columns)], written, check_dtype=False, check_exact=True)
        assert rows["identity"].str.len().eq(3).all(), "identities stay text: 007 is no 7"
        summary = result.summary()
        assert rows["average_precision_trapezoid"].mean() == pytest.approx(summary["map_trapezoid"], abs=1e-12)
        assert rows["hit"].mean() == pytest.approx(summary["rank1"], abs=1e-12)


def test_embeddings_come_back_and_floors_are_left_out(tmp_path: Path, saved_runs):
    saved, _, features = saved_runs.evaluated(tmp_path / "run")
    paths = saved_runs.small_split().evaluated_paths()
    found = saved.features("tiny")
    assert list(found.paths) == paths
    np.testing.assert_array_equal(found.embeddings, features["tiny"].of(paths))
    with pytest.raises(EvaluationError, match=r"run kept no embeddings of 'trivial baseline: pixels'; it has tiny"):
        saved.features("trivial baseline: pixels")


def test_what_was_not_evaluated_is_named(tmp_path: Path, saved_runs):
    saved, results, features = saved_runs.evaluated(
        tmp_path / "run", split=saved_runs.small_split(aspects=("dorsal_r",))
    )
    with pytest.raises(EvaluationError, match="no gallery 'all'; choose from aspect"):
        saved.queries("tiny", "all")
    with pytest.raises(EvaluationError, match="evaluated no 'vitb16'; choose from tiny, trivial baseline: pixels"):
        saved.queries("vitb16", "aspect")
    with pytest.raises(EvaluationError, match="no features of trivial baseline: pixels"):
        save_evaluation(tmp_path / "run", results, {"tiny": features["tiny"]}, saved_runs.small_split())


def remove(folder: Path) -> None:
    (folder / EMBEDDINGS).unlink()


def cut_csv(folder: Path) -> None:
    text = (folder / PER_QUERY).read_text()
    (folder / PER_QUERY).write_text(text[: len(text) // 2].rpartition("\n")[0] + "\n")


def change_a_rank(folder: Path) -> None:
    text = (folder / PER_QUERY).read_text()
    (folder / PER_QUERY).write_text(text.replace(",1,1.0,", ",2,1.0,", 1))


def cut_embeddings(folder: Path) -> None:
    data = (folder / EMBEDDINGS).read_bytes()
    (folder / EMBEDDINGS).write_bytes(data[: len(data) // 2])


def change_an_embedding(folder: Path) -> None:
    data = bytearray((folder / EMBEDDINGS).read_bytes())
    data[-100] ^= 1
    (folder / EMBEDDINGS).write_bytes(data)


def another_file(folder: Path) -> None:
    (folder / EMBEDDINGS).write_bytes(b"not a safetensors file")


def other_split(folder: Path) -> None:
    (folder / "split.json").write_text(json.dumps({"checksum": "f" * 64}))


@pytest.mark.matrix("damaged file", "an evaluation that 06 reads", "refused with run and remedy")
@pytest.mark.parametrize(
    "harm", [remove, cut_csv, change_a_rank, cut_embeddings, change_an_embedding, another_file, other_split]
)
def test_damage_names_the_run_and_the_remedy(harm, tmp_path: Path, saved_runs):
    folder = tmp_path / "05_evaluation-tiny-1234"
    saved_runs.evaluated(folder)
    harm(folder)
    with pytest.raises(EvaluationError, match=r"run 05_evaluation-tiny-1234 .*; run it again with handclip run"):
        load_evaluation(folder)


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch, saved_runs):
    folder = tmp_path / "run"
    _, results, features = saved_runs.evaluated(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("handclip_lib.evaluation.ranking.saved_evaluation.safetensors.numpy.save_file", full)
    with pytest.raises(WriteError, match=r"embeddings.safetensors cannot be written .*No space left.*HANDCLIP_REPORTS"):
        save_evaluation(folder, results, features, saved_runs.small_split())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
