"""False matches across groups, GARBE, FDR: by hand, and against loops."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from handclip_lib.evaluation.verification.differentials import (
    cross_group_fmr,
    equity,
    fairness_discrepancy_rate,
    garbe,
    gini,
)
from handclip_lib.evaluation.verification.error_rates import Pairs


def some_pairs(people=12, images=3, seed=0) -> Pairs:
    """Every pair of the images of some people, with random scores."""
    rng = np.random.default_rng(seed)
    identities = np.repeat([f"p{i:02d}" for i in range(people)], images)
    paths = np.array([f"{who}_{i}.jpg" for i, who in enumerate(identities)], object)
    image = np.stack(np.triu_indices(len(paths), 1), 1).astype(np.int32)
    same = identities[image[:, 0]] == identities[image[:, 1]]
    score = rng.normal(size=len(image)).astype(np.float32) + same
    return Pairs(paths, identities, score[same], image[same], score[~same], image[~same])


def attributes_of(pairs: Pairs) -> pd.DataFrame:
    """Two genders by turns; ages of three bands and unknown; one skin colour."""
    person = np.array([int(who[1:]) for who in pairs.identities])
    ages = np.array([19, 25, 35, -1])[person % 4]
    return pd.DataFrame(
        {"path": pairs.paths, "gender": np.where(person % 2 == 0, "female", "male"),
         "age": pd.array(ages, "Int64"), "skin_color": "fair"}
    ).assign(age=lambda t: t["age"].where(t["age"] >= 0))  # fmt: skip


def test_false_matches_across_groups_are_those_of_a_loop():
    pairs = some_pairs()
    images = attributes_of(pairs)
    found = cross_group_fmr(pairs, images, 1.0, ("gender", "age", "skin_color"))
    band = {19: "<20", 25: "20-29", 35: "30-39"}
    group_of = {
        "gender": dict(zip(images["path"], images["gender"], strict=True)),
        "age": {path: band.get(age) for path, age in zip(images["path"], images["age"].fillna(-1), strict=True)},
    }
    assert set(found["attribute"]) == {"gender", "age"}  # one skin colour is no comparison
    assert len(found) == 3 + 6
    for _, row in found.iterrows():
        accepted, people = [], set()
        for score, (a, b) in zip(pairs.impostor, pairs.impostor_images, strict=True):
            both = [group_of[row["attribute"]][pairs.paths[i]] for i in (a, b)]
            if sorted(map(str, both)) == sorted([row["group"], row["other"]]):
                accepted.append(score >= 1.0)
                people |= {pairs.identities[a], pairs.identities[b]}
        assert row["fmr"] == pytest.approx(np.mean(accepted))
        assert (row["n_impostor"], row["n_identities"]) == (len(accepted), len(people))
        assert row["fmr_low"] <= row["fmr"] <= row["fmr_high"]
    age = found[(found["attribute"] == "age") & (found["group"] == "<20")]
    assert age["other"].tolist() == ["<20", "20-29", "30-39"]
    assert age["small"].tolist() == [True, False, False]
    assert age["supported"].tolist() == (age["fmr"] >= 3 / age["n_identity_pairs"]).tolist()


def test_groups_that_never_meet_have_no_rate():
    pairs = some_pairs(4, 2)
    images = pd.DataFrame({"path": pairs.paths, "gender": np.where(pairs.identities == "p00", "female", "male")})
    alone = cross_group_fmr(pairs, images, 0.0, ("gender",)).iloc[0]
    assert (alone["group"], alone["other"], alone["n_impostor"], alone["supported"]) == ("female", "female", 0, False)
    assert np.isnan(alone["fmr"])


def test_nothing_is_known_of_any_group():
    pairs = some_pairs(4, 2)
    assert cross_group_fmr(pairs, pd.DataFrame({"path": pairs.paths}), 0.0).empty


def test_gini_by_hand():
    # |0.1 - 0.3| twice = 0.4; 2 n² mean = 2 · 4 · 0.2 = 1.6; n / (n - 1) = 2
    assert gini([0.1, 0.3]) == pytest.approx(2 * 0.4 / 1.6)
    assert gini([0.2, 0.2, 0.2]) == 0
    assert gini([0, 0, 0, 0.7]) == pytest.approx(1)  # one group has all errors
    assert np.isnan(gini([0, 0]))


def test_garbe_by_hand():
    # three groups: sum over i and j of |FMR_i - FMR_j| = 2 (1 + 3 + 2) = 12 hundredths, of 2 · 9 · 2.333 = 42
    fmr, fnmr = [0.01, 0.02, 0.04], [0.1, 0.1, 0.1]
    assert gini(fmr) == pytest.approx(1.5 * 12 / 42)
    assert garbe(fmr, fnmr) == pytest.approx(0.5 * 1.5 * 12 / 42)
    assert garbe(fmr, fnmr, alpha=0.25) == pytest.approx(0.25 * 1.5 * 12 / 42)


def test_fdr_by_hand():
    # the farthest apart: 0.04 - 0.01 and 0.3 - 0.1
    assert fairness_discrepancy_rate([0.01, 0.02, 0.04], [0.1, 0.3, 0.2]) == pytest.approx(1 - (0.03 + 0.2) / 2)
    assert fairness_discrepancy_rate([0.1, 0.1], [0.2, 0.2]) == 1
    assert fairness_discrepancy_rate([0, 1], [0, 1]) == 0


def sorted_gini(rates) -> float:
    """Gini by ranks, Σ (2 i - n - 1) x_i / (n Σ x), as economists compute it; then by n / (n - 1)."""
    x, n = sorted(rates), len(rates)
    plain = sum((2 * i - n - 1) * value for i, value in enumerate(x, 1)) / (n * sum(x))
    return plain * n / (n - 1)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_garbe_and_fdr_by_their_other_definitions(n):
    # FDR by the distance of each group to the best, GARBE by ranks: neither looks at pairs of groups
    fmr, fnmr = np.random.default_rng(n).random((2, n)) / 10
    assert garbe(fmr, fnmr, 0.3) == pytest.approx(0.3 * sorted_gini(fmr) + 0.7 * sorted_gini(fnmr))
    farthest = [max(rates - min(rates)) for rates in (fmr, fnmr)]
    assert fairness_discrepancy_rate(fmr, fnmr, 0.3) == pytest.approx(1 - 0.3 * farthest[0] - 0.7 * farthest[1])


def groups(**changes) -> pd.DataFrame:
    rows = {
        "attribute": ["", "age", "age", "age", "age", "gender"],
        "group": ["", "<20", "20-29", "40+", "unknown", "male"],
        "fmr": [0.02, 0.01, 0.03, 0.5, 0.4, 0.1], "fnmr": [0.2, 0.1, 0.2, 1.0, 0.9, 0.1],
        "n_identities": [70, 20, 30, 2, 9, 40], "n_genuine": [700, 200, 300, 9, 90, 400],
        "n_impostor": [9000, 900, 950, 4, 80, 999], "small": [False, False, False, True, False, False],
        "supported": [True, True, True, False, True, True],
    }  # fmt: skip
    return pd.DataFrame(rows | changes)


PAIRS = some_pairs()
NOBODY = PAIRS, attributes_of(PAIRS), 1.0


def test_small_and_unknown_groups_are_left_out_and_named():
    (row,) = equity(groups(), *NOBODY).to_dict("records")  # gender has one group: nothing to compare
    assert (row["attribute"], row["groups"], row["left_out_groups"]) == ("age", "<20, 20-29", "40+, unknown")
    assert row["garbe"] == pytest.approx(garbe([0.01, 0.03], [0.1, 0.2]))
    assert row["fdr"] == pytest.approx(1 - (0.02 + 0.1) / 2)
    assert (row["n_identities"], row["n_genuine"], row["n_impostor"]) == (20, 200, 900)
    assert row["supported"] is True


def test_a_figure_of_groups_that_carry_no_claim_is_none():
    assert not equity(groups(supported=[True, False, True, False, True, True]), *NOBODY)["supported"].any()
    assert np.isnan(equity(groups(fmr=[0.0] * 6), *NOBODY)["garbe"]).all()
    assert equity(groups(small=[True] * 6), *NOBODY).empty


def test_chance_is_that_of_every_way_to_deal_people_to_groups():
    pairs = some_pairs(6, 3, seed=3)
    images = pd.DataFrame({"path": pairs.paths, "gender": np.where(pairs.identities < "p03", "f", "m")})

    def rates(members: np.ndarray) -> tuple[float, float]:
        impostor, genuine = (members[images].all(1) for images in (pairs.impostor_images, pairs.genuine_images))
        return np.mean(pairs.impostor[impostor] >= 0.5), np.mean(pairs.genuine[genuine] < 0.5)

    every = []
    for women in combinations(sorted(set(pairs.identities)), 3):
        chosen = np.isin(pairs.identities, women)
        every.append(garbe(*zip(rates(chosen), rates(~chosen), strict=True)))
    table = groups(
        attribute=["", *["gender"] * 2, *["x"] * 3], group=["", "f", "m", "", "", ""],
        fmr=[0.0] * 6, fnmr=[0.0] * 6,
    ).assign(small=False)  # fmt: skip
    table.loc[1:2, ["fmr", "fnmr"]] = [rates(pairs.identities < "p03"), rates(pairs.identities >= "p03")]
    row = equity(table.iloc[:3], pairs, images, 0.5, shuffles=4000).iloc[0]
    assert row["garbe"] == pytest.approx(every[0])
    assert row["p"] == pytest.approx(np.mean(np.array(every) >= every[0] - 1e-12), abs=0.03)
    assert row["garbe_chance"] == pytest.approx(np.median(every), abs=0.03)


def test_nobody_can_be_dealt_who_is_in_two_groups():
    pairs = some_pairs(6, 3)
    images = pd.DataFrame({"path": pairs.paths, "age": pd.array([19, 25, 25] * 6, "Int64")})
    table = groups(n_identities=[6] * 6)
    row = equity(table[table["attribute"] == "age"], pairs, images, 0.5).iloc[0]
    assert np.isnan([row["garbe_chance"], row["p"]]).all()
    assert not np.isnan(row["garbe"])
