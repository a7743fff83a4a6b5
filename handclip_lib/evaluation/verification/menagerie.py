"""Which people a model finds hard: each one's own scores and those with others, and whether the kinds go together."""

from fractions import Fraction
from math import comb

import numpy as np
import pandas as pd

from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_rates import AnyPairs

FEWEST = 8  # people: two in each quarter
KINDS = {
    "worm": ("low", "high"), "phantom": ("low", "low"), "chameleon": ("high", "high"), "dove": ("high", "low"),
}  # fmt: skip
"""The quarters, lowest or highest, that the mean mated and the mean non-mated score of a person of a kind lie in."""
PEOPLE_SHOWN = ("kind", "identity", "mated_mean", "non_mated_mean", "fnmr", "fmr", "n_genuine", "n_impostor")


def menagerie(pairs: AnyPairs, threshold: float) -> pd.DataFrame:
    """A row a person, the hardest first: their mean scores, their errors at a threshold, and their kind.

    With a symmetric score, as the cosine is, Doddington's lambs and wolves are the same people: those with high
    non-mated scores (worms, chameleons). Goats have low mated ones (worms, phantoms); all others are sheep. A quarter
    of the people is low, and one high, by definition: that kinds exist is what `kinds_beside_chance` asks.

    Returns:
        Columns identity, mated_mean, non_mated_mean, n_genuine, n_impostor (pairs with the person on either side),
        fnmr and fmr (of those pairs, 0..1) and kind, a key of `KINDS`, or "" for anybody else, and for all where fewer
        than 8 people have both kinds of pairs; others are left out. Few pairs a person make no claim on that person.

    Source: Doddington et al., "Sheep, goats, lambs and wolves", ICSLP 1998; Yager & Dunstone, "The biometric
        menagerie", IEEE PAMI 2010.
    """
    n, own, used = pairs.n_identities, pairs.genuine_identities, pairs.people >= 0
    accepted, compared = pairs.counts(threshold, np.zeros((len(pairs.paths), 1), np.int64), 1)
    errors, counts = (np.bincount(pairs.people[used], images[used, 0], n) for images in (accepted, compared))
    sides = [
        (np.bincount(own, minlength=n), np.bincount(own, pairs.genuine.astype(np.float64), n),
         np.bincount(own, pairs.genuine < threshold, n)),
        (counts.astype(np.int64), pairs.impostor_sums(), errors),
    ]  # fmt: skip
    both = (sides[0][0] > 0) & (sides[1][0] > 0)
    frame = {"identity": np.unique(pairs.identities[used])[both]}
    for side, (mean, rate, number) in zip(
        sides, (("mated_mean", "fnmr", "n_genuine"), ("non_mated_mean", "fmr", "n_impostor")), strict=True
    ):
        count, total, wrong = (part[both] for part in side)
        frame |= {mean: total / count, rate: wrong / count, number: count}
    frame["kind"] = _kinds(frame["mated_mean"], frame["non_mated_mean"])
    table = result_table(frame, PEOPLE_SHOWN)
    table = table.sort_values(["fnmr", "fmr", "identity"], ascending=[False, False, True], ignore_index=True)
    return table[[*PEOPLE_SHOWN]]


def kinds_beside_chance(people: pd.DataFrame) -> pd.DataFrame:
    """How many people are of each kind, and how many would be if high and low went together by chance alone.

    `p` is the chance of as many or more, one-sided, of the hypergeometric distribution: of all ways to hand the mean
    non-mated scores out to the people. Four kinds are asked about, and p allows for none of the others.
    """
    rows, n = [], len(people)
    for kind, ends in KINDS.items() if n >= FEWEST else ():
        quarters = [_end(people[column].to_numpy(), end) for column, end in zip(MEANS, ends, strict=True)]
        first, second = (int(quarter.sum()) for quarter in quarters)
        found = int((people["kind"] == kind).sum())
        rows.append((kind, *ends, found, first * second / n, _chance(found, n, first, second), n))
    return result_table(rows, columns=["kind", "mated", "non_mated", "people", "by_chance", "p", "n_identities"])


MEANS = ("mated_mean", "non_mated_mean")


def _chance(found: int, n: int, first: int, second: int) -> float:
    """The chance that `found` or more of `first` people are among `second` that are drawn of all n; exact.

    In whole numbers, for importing scipy's distributions takes a second.
    """
    least = max(found, first + second - n, 0)
    ways = comb(first, least) * comb(n - first, second - least) if least <= min(first, second) else 0
    total = 0
    for both in range(least, min(first, second) + 1):
        total += ways
        ways = ways * (first - both) * (second - both) // ((both + 1) * (n - first - second + both + 1))
    return float(Fraction(total, comb(n, second)))


def _kinds(mated: np.ndarray, non_mated: np.ndarray) -> np.ndarray:
    kinds = np.full(len(mated), "", object)
    for kind, (own, others) in KINDS.items() if len(mated) >= FEWEST else ():
        kinds[_end(mated, own) & _end(non_mated, others)] = kind
    return kinds


def _end(values: np.ndarray, end: str) -> np.ndarray:
    """True in the lowest or the highest quarter, ties at its edge too; of values too alike to part, nowhere."""
    low, high = np.quantile(values, [0.25, 0.75])
    return (values <= low if end == "low" else values >= high) & (low < high)
