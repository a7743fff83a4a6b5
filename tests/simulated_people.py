"""People whose true rank-1, mAP or difference is known: what intervals and tests are held against."""

import numpy as np
from scipy.special import ndtr

from handclip_lib.evaluation.verification.error_rates import Pairs

COUNTS = ("even", "Zipf", "11k")
# Queries of the 71 test people of 11k Hands, dorsal right, in one draw: 46 photographs at most, as HandInfo.csv has it.
OF_11K = np.repeat(
    [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 22, 23, 24, 26, 27, 30, 31, 37, 45],
    [1, 2, 7, 3, 3, 7, 4, 4, 6, 5, 2, 3, 3, 3, 1, 2, 3, 2, 2, 2, 1, 1, 2, 1, 1, 1],
)
# A mean, and how alike the queries of one person are (the correlation within a person); "goats": one person in ten
# misses five times as often as people on average do.
MIDDLE = ((0.6, 0.05), (0.6, 0.3), (0.85, 0.05), (0.85, 0.2))
CEILING = (
    (0.95, 0.05),
    (0.95, 0.15),
    (0.95, 0.4),
    (0.97, 0.1),
    (0.97, "goats"),
    (0.99, 0.05),
    (0.99, 0.15),
    (0.99, 0.3),
)
DRAWS = 10


def queries_of(counts: str, n: int) -> np.ndarray:
    """Queries a draw of each of n people, int (n,): alike, as 1/i, or as those of 11k Hands are."""
    if counts == "even":
        return np.full(n, 10)
    if counts == "Zipf":
        shares = 1 / np.arange(1, n + 1)
        return np.maximum(1, np.round(10 * n * shares / shares.sum())).astype(int)
    return OF_11K[np.round(np.linspace(0, len(OF_11K) - 1, n)).astype(int)]


def people_of(mean: float, alike: float | str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The probability of a hit of each person, 0..1."""
    if alike == "goats":
        miss = 1 - mean
        return np.where(rng.random(size) < 0.1, 1 - 5 * miss, 1 - miss * 5 / 9)
    return rng.beta(mean * (1 - alike) / alike, (1 - mean) * (1 - alike) / alike, size)


def sums_of(people: np.ndarray, queries: np.ndarray, measure: str, rng: np.random.Generator) -> np.ndarray:
    """Sums over ten draws of each person, (data sets, people): photographs are hard or easy for all draws.

    `measure` is "rank-1" (hits) or "mAP" (a miss has an average precision too: of .3, its photograph's mean).
    """
    sums = np.empty(people.shape)
    for person, n in enumerate(queries):
        chance = np.repeat(people[:, person, None], n, axis=1)
        sure = (chance <= 0) | (chance >= 1)
        inner = (
            np.clip(3 * np.where(sure, 0.5, chance), 1e-9, None),
            np.clip(3 * np.where(sure, 0.5, 1 - chance), 1e-9, None),
        )
        photograph = np.where(sure, chance, rng.beta(*inner))
        if measure == "rank-1":
            sums[:, person] = rng.binomial(DRAWS, photograph).sum(1)
        else:
            sums[:, person] = DRAWS * (0.3 + 0.7 * photograph).sum(1)
    return sums


def simulated(
    n: int, counts: str, measure: str, mean: float, alike: float | str, data_sets: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Sums of people, (data_sets, n), their numbers of queries, (n,), and the true mean."""
    rng = np.random.default_rng([n, COUNTS.index(counts), int(1000 * mean), measure == "mAP"])
    queries = queries_of(counts, n)
    sums = sums_of(people_of(mean, alike, (data_sets, n), rng), queries, measure, rng)
    return sums, DRAWS * queries.astype(float), mean if measure == "rank-1" else 0.3 + 0.7 * mean


def two_alike(
    n: int, counts: str, measure: str, mean: float, shared: bool, data_sets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of differences of two equally good models, (data_sets, n), and numbers of queries, (n,).

    People are equally hard for both (`shared`), or for each model others are.
    """
    rng = np.random.default_rng([n, COUNTS.index(counts), int(1000 * mean), measure == "mAP", shared])
    queries = queries_of(counts, n)
    first = people_of(mean, 0.2, (data_sets, n), rng)
    second = first if shared else people_of(mean, 0.2, (data_sets, n), rng)
    sums = [sums_of(people, queries, measure, rng) for people in (first, second)]
    return sums[0] - sums[1], DRAWS * queries.astype(float)


def pairs_of_people(
    n: int, counts: str, mean: float, alike: float, goats: float, dependent: float, rng: np.random.Generator
) -> Pairs:
    """Every pair of about four photographs of each of n people, scores of variance 1, mated ones `mean` higher.

    A share of the variance, `alike`, is the persons' own (and, of two, the pair's), the rest is of photographs and of
    pairs of them; `dependent` is the correlation of a person's mated and non-mated effects. One person in ten is lower
    by `goats` in mated pairs.
    """
    images = np.full(n, 4)
    if counts != "even":
        images = np.maximum(2, np.round(4 * queries_of(counts, n) / queries_of(counts, n).mean())).astype(int)
    who = np.repeat(np.arange(n), images)
    both = np.stack(np.triu_indices(len(who), 1), 1).astype(np.int32)
    same = who[both[:, 0]] == who[both[:, 1]]
    with_others, with_oneself, photograph = rng.normal(size=n), rng.normal(size=n), rng.normal(size=len(who))
    with_oneself = dependent * with_others + np.sqrt(1 - dependent**2) * with_oneself
    two, first, second = np.triu(rng.normal(size=(n, n)), 1), *who[both].T
    noise = np.sqrt((1 - alike) / 4) * photograph[both].sum(1) + np.sqrt((1 - alike) / 2) * rng.normal(size=len(both))
    mated = mean - goats * (rng.random(n) < 0.1) + np.sqrt(alike) * with_oneself
    between = np.sqrt(alike / 3) * (with_others[first] + with_others[second] + (two + two.T)[first, second])
    score = noise + np.where(same, mated[first], between)
    names = np.char.add("p", who.astype(str))
    return Pairs(np.arange(len(who)).astype(object), names, score[same], both[same], score[~same], both[~same])


def true_rates(threshold: float, mean: float, goats: float) -> tuple[float, float, float]:
    """AUC, and FMR and FNMR at a threshold, of the population of `pairs_of_people`."""

    def of_all(of_a_mean) -> float:
        return float(0.9 * of_a_mean(mean) + 0.1 * of_a_mean(mean - goats))

    return of_all(lambda m: ndtr(m / np.sqrt(2))), float(ndtr(-threshold)), of_all(lambda m: ndtr(threshold - m))
