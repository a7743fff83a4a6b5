"""Who is hard for a model: by hand, and whether the kinds go together more often than by chance."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from handclip_lib.evaluation.tables import readable
from handclip_lib.evaluation.verification.error_rates import Pairs
from handclip_lib.evaluation.verification.menagerie import KINDS, kinds_beside_chance, menagerie


def of_people(mated: dict[str, float], non_mated: dict[tuple[str, str], float]) -> Pairs:
    """Two images a person, one mated pair, and one non-mated pair of two people."""
    names = sorted(mated)
    first = {name: 2 * i for i, name in enumerate(names)}
    own = np.array([[first[name], first[name] + 1] for name in names])
    across = np.array([[first[a], first[b] + 1] for a, b in non_mated])
    identities = np.repeat(names, 2)
    paths = np.array([f"{who}{i}" for i, who in enumerate(identities)], object)
    return Pairs(paths, identities, np.array([mated[name] for name in names]), own, np.array([*non_mated.values()]),
                 across)  # fmt: skip


def test_scores_and_errors_of_each_person_by_hand():
    pairs = of_people({"a": 0.9, "b": 0.4, "c": 0.7}, {("a", "b"): 0.8, ("a", "c"): 0.3, ("b", "c"): 0.6})
    found = menagerie(pairs, 0.6).set_index("identity")
    assert found.loc["a", ["mated_mean", "fnmr", "n_genuine", "n_impostor"]].tolist() == [0.9, 0, 1, 2]
    assert found.loc["a", ["non_mated_mean", "fmr"]].tolist() == pytest.approx([0.55, 0.5])
    assert found.loc["b", ["non_mated_mean", "fmr", "fnmr"]].tolist() == pytest.approx([0.7, 1, 1])
    assert found.loc["c", ["non_mated_mean", "fmr"]].tolist() == pytest.approx([0.45, 0.5])
    assert found.index[0] == "b"  # the hardest first
    assert (found["kind"] == "").all()  # three people have no quarters
    assert kinds_beside_chance(found.reset_index()).empty


def eight() -> Pairs:
    names = "abcdefgh"
    mated = dict(zip(names, [0.1, 0.2, 0.5, 0.5, 0.5, 0.5, 0.8, 0.9], strict=True))
    # how much each is taken for others: a most, b least, g most but one, h least but one
    pull = dict(zip(names, [4, -4, 0, 0, 0, 0, 3, -3], strict=True))
    across = {(x, y): pull[x] + pull[y] for i, x in enumerate(names) for y in names[i + 1 :]}
    return of_people(mated, across)


def test_the_four_kinds():
    found = menagerie(eight(), 0.6).set_index("identity")["kind"].to_dict()
    assert {name: found[name] for name in "abgh"} == {"a": "worm", "b": "phantom", "g": "chameleon", "h": "dove"}
    assert all(found[name] == "" for name in "cdef")


def test_a_person_without_a_mated_pair_is_left_out():
    pairs = eight()
    assert pairs.identities[pairs.genuine_images[0, 0]] == "a"
    others = replace(pairs, genuine=pairs.genuine[1:], genuine_images=pairs.genuine_images[1:])
    assert "a" not in menagerie(others, 0.6)["identity"].tolist()


def test_chance_is_that_of_all_orders():
    people = menagerie(eight(), 0.6)
    counts = kinds_beside_chance(people).set_index("kind")
    assert counts["people"].to_dict() == dict.fromkeys(KINDS, 1)
    assert counts["by_chance"].tolist() == [0.5] * 4  # 2 · 2 / 8
    assert "people by chance" in readable(kinds_beside_chance(people))
    mated, others = people["mated_mean"].to_numpy(), people["non_mated_mean"].to_numpy()
    low, high = mated <= np.quantile(mated, 0.25), others >= np.quantile(others, 0.75)
    worms = [(low & high[list(order)]).sum() for order in permutations(range(8))]
    assert counts.loc["worm", "p"] == pytest.approx(np.mean(np.array(worms) >= 1))
