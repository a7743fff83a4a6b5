"""Anybody's scores by the protocol: a run's own scores give its own figures, and what is not there is said."""

from pathlib import Path

import numpy as np
import pytest

from handclip_lib.cli import main
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.exchange.score_files import read_scores, write_scores
from handclip_lib.evaluation.exchange.scoring import evaluate_files, identification_of, pairs_of
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.verification.error_rates import compared_pairs, verification_of

HEAD = "probe,probe_subject,reference,reference_subject,score\n"


@pytest.fixture
def case(tmp_path: Path, saved_runs):
    split = saved_runs.small_split()
    features = saved_runs.features_of(split, 1.0)
    write_scores(tmp_path / "scores.csv", features, split)
    return split, features, tmp_path / "scores.csv"


def test_the_scores_of_a_run_give_its_figures(case):
    split, features, file = case
    found = evaluate_files([file])
    expected = verification_of(features, split).summary()
    row = found.tables["verification"].iloc[0]
    for name in ("n_genuine", "n_impostor", "n_identities", "n_identity_pairs"):
        assert row[name] == expected[name]
    for name in ("eer", "eer_low", "eer_high", "auc", "d_prime", "lowest_supported_fmr"):
        assert row[name] == pytest.approx(expected[name], abs=1e-5)
    ranked, of_run = found.tables["identification"].iloc[0], evaluate_split(features, split).summary()
    for name in ("rank1", "rank1_low", "rank1_high", "rank1_chance", "rank5", "map", "minp", "n_query", "n_gallery"):
        assert ranked[name] == pytest.approx(of_run[name], abs=1e-9)
    assert not found.remarks


def test_a_pair_of_several_draws_counts_once(case):
    split, features, file = case
    found, expected = pairs_of(read_scores(file), "scores"), compared_pairs(features, split)
    ours, theirs = (
        {frozenset(pair) for pair in pairs.paths[images].tolist()}
        for pairs, images in ((found, found.impostor_images), (expected, expected.impostor_images))
    )
    assert ours == theirs
    assert len(found.impostor) == len(theirs)


def test_ranks_need_every_probe_compared_with_every_reference(tmp_path):
    text = "x,a,r,a,0.9\nx,a,s,b,0.1\ny,b,r,a,0.2\n"
    (tmp_path / "scores").write_text(HEAD + text)
    said = identification_of(read_scores(tmp_path / "scores"), "name")
    assert said == "'y' was compared with 1 of 2 references: ranks need every probe compared with every reference"
    (tmp_path / "whole").write_text(HEAD + text + "y,b,s,b,0.2\n")
    ranked = identification_of(read_scores(tmp_path / "whole"), "name")
    assert ranked.draws[0].first_match_rank.tolist() == [1, 2]  # y is tied, and a tie never helps


def test_a_probe_without_a_match_is_counted_and_in_no_mean(tmp_path):
    text = "x,a,r,a,0.9\nx,a,s,b,0.1\ny,b,r,a,0.2\ny,b,s,b,0.3\nz,c,r,a,0.2\nz,c,s,b,0.3\n"
    (tmp_path / "scores").write_text(HEAD + text)
    row = evaluate_files([tmp_path / "scores"]).tables["identification"].iloc[0]
    assert (row["rank1"], row["n_unmatched"], row["n_query"], row["n_identities"]) == (1, 1, 2, 2)


@pytest.mark.parametrize(("line", "kind"), [("x,a,y,a,0.9\n", "two people"), ("x,a,y,b,0.9\n", "one person")])
def test_error_rates_need_both_kinds_of_pairs(tmp_path, line, kind):
    (tmp_path / "scores").write_text(HEAD + line)
    with pytest.raises(EvaluationError, match=f"no comparison is of {kind}"):
        evaluate_files([tmp_path / "scores"])


def test_hter_at_a_threshold_that_other_people_fixed(tmp_path):
    rng = np.random.default_rng(0)
    for name, people in (("validation", "abcdef"), ("test", "uvwxyz")):
        lines = [
            f"{p}{i},{p},{q}r,{q},{rng.normal() + 2 * (p == q)}\n" for p in people for i in range(3) for q in people
        ]
        (tmp_path / name).write_text(HEAD + "".join(lines))
    found = evaluate_files([tmp_path / "test"], validation=tmp_path / "validation", fmr=0.1)
    row = found.tables["operating_point"].iloc[0]
    known, test = (pairs_of(read_scores(tmp_path / name), name) for name in ("validation", "test"))
    every = sorted([*known.genuine, *known.impostor])
    threshold = next(t for t in every if np.mean(known.impostor >= t) <= 0.1)
    assert row["threshold"] == threshold
    rates = np.mean(test.impostor >= threshold), np.mean(test.genuine < threshold)
    assert row["hter"] == pytest.approx(sum(rates) / 2)
    assert not found.remarks
    again = evaluate_files([tmp_path / "test"], validation=tmp_path / "test").remarks
    assert "people are in the file of validation too, such as 'u' (6 of them)" in again[0]


def test_scores_the_wrong_way_round_are_told(case, tmp_path):
    _, _, file = case
    assert "for distances say --distances" in evaluate_files([file], distances=True).remarks[-1]


def test_from_a_run_to_files_and_back_by_the_command(tmp_path, saved_runs, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    run = tmp_path / "runs" / "05_evaluation-tiny-0000"
    saved_runs.evaluated(run)
    record = {
        "id": run.name,
        "notebook": "05_evaluation",
        "status": "succeeded",
        "started": "2026-11-20T10:00:00+00:00",
    }
    monkeypatch.setattr("handclip_lib.file_commands.find_run", lambda runs, name, *notebooks: runs / record["id"])
    scores, embeddings = tmp_path / "s.csv", tmp_path / "e.npz"
    assert main(["export", "latest", "--scores", str(scores), "--embeddings", str(embeddings), "--draw", "all"]) == 0
    assert "3 draws by tiny" in capsys.readouterr().out
    with np.load(embeddings) as kept:
        assert {len(kept[name]) for name in ("paths", "identities", "embeddings")} == {len(kept["paths"])}
        assert all(len(who) == 3 for who in kept["identities"].tolist()), "007 is no 7"
    assert main(["score", str(scores), "--out", str(tmp_path / "out")]) == 0
    assert "Rank-1" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "verification.csv", "verification_targets.csv", "identification.csv", "det.png", "roc.png", "cmc.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["export", "latest"], "nothing to write"),
        (["export", "latest", "--scores", "s.csv", "--draw", "one"], "--draw 'one'"),
        (["score", "absent.csv"], "cannot be read (No such file or directory); name a file of scores"),
        (["score", "s.csv", "--fmr", "0.1"], "--fmr 0.1 is of the threshold that --validation FILE fixes"),
        (["score", "s.csv", "--out", __file__], "test_scoring.py is a file; name a folder"),
    ],
)
def test_the_command_says_what_is_missing(given, said, capsys):
    assert main(given) == 2
    assert said in capsys.readouterr().err
