"""FMR and FNMR over every threshold of pairs that are too many to list: counted in bins, and exact where it matters.

One pass over all pairs counts their scores in bins. Around the thresholds that are asked for, which a sample of the
images foretells, the scores themselves are kept with whose they are: so the error rates there, and those without each
group of people, are those of the listed pairs to the bit. Where the sample foretold wrongly, a wider pass follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handclip_lib.evaluation.error_curve import NOTHING, ErrorCurve, Remaining, Weights, split_by
from handclip_lib.evaluation.features import check_memory
from handclip_lib.evaluation.intervals import RULE_OF_THREE, Interval, left_out_together, share_interval
from handclip_lib.evaluation.verification.streamed import NONE, StreamedPairs

SCALE = 2**14  # bins of a cosine of 1: their edges are exact in float32
BINS = 4 * SCALE  # from -2, the place of what is not compared, to 2
SAMPLED = 32  # one in so many images foretells the thresholds …
BATCHES, FEWEST = 16, 64  # … in so many parts, which say how sure that is, of so many images at least
SURE = 6.0  # standard errors
APART = 5.0  # times the mean rate that a group of people may have
PARTS = 64  # of what is kept around a threshold
KEPT_BYTES = 40  # of a score that is kept, while it is sorted


@dataclass(frozen=True)
class Sweep:
    """What `verification_of_pairs` needs.

    Attributes:
        curve: Exact; its thresholds are the edges of bins but where the asked ones lie, where they are all scores.
        weights: Without each group of `left_out_together`.
        auc: Within half a bin's share of both kinds of pairs, see `sweep`; with its interval over people.
    """

    curve: ErrorCurve
    weights: list[Weights]
    auc: Interval
    d_prime: float


def sweep(pairs: StreamedPairs, targets: Sequence[float]) -> Sweep:
    """The curve of all pairs, exact at its EER and at the lowest threshold for each target FMR.

    AUC and d′ are of the bins: a mated and a non-mated score in one bin are a tie. AUC is off by at most half the share
    of such pairs, below 1e-4 where scores spread by a tenth, and d′ by at most 2^-15 (1 + d′) over that spread.
    In the interval of AUC, that mated scores win over non-mated ones of the same person is taken to be as likely as of
    others, but for the people with most pairs: it is a share of 1 / people of all.
    """
    group = left_out_together(pairs.n_identities)[pairs.people]
    whole = _Whole.of(pairs, group)
    guide, width = _guide(pairs), 1.0
    while True:
        cuts, kept = _around(guide, whole, targets, width)
        found = _pass(pairs, whole, group, cuts, kept)
        needed = _needed(found, whole, targets)
        if (kept | ~needed).all():
            break
        width *= 4
    curve, weights = _exact(found, whole, needed)
    return Sweep(curve, weights, _auc(pairs, found, whole), _d_prime(pairs.genuine, found.count))


def bins(scores: np.ndarray) -> np.ndarray:
    """The bin of each score, int64."""
    return np.floor(scores * np.float32(SCALE)).astype(np.int64) + 2 * SCALE


def _edge(number: np.ndarray) -> np.ndarray:
    return (number - 2 * SCALE) / SCALE


def _below(count: np.ndarray) -> np.ndarray:
    """How many lie below each bin, and below the end of the last."""
    return np.concatenate([[0], np.cumsum(count)])


@dataclass(frozen=True)
class _Whole:
    """What is known before any product.

    Attributes:
        mated: Scores, rising.
        mated_groups, mated_gone: Group of each of them, and the places of each group's, a list.
        touched: Of each group, impostor pairs with somebody of it.
    """

    n: int
    n_identity_pairs: int
    mated: np.ndarray
    mated_count: np.ndarray
    mated_gone: list[np.ndarray]
    touched: np.ndarray

    @classmethod
    def of(cls, pairs: StreamedPairs, group: np.ndarray) -> "_Whole":
        order = np.argsort(pairs.genuine, kind="stable")
        mated, groups = pairs.genuine[order], int(group.max()) + 1
        gone = split_by(group[pairs.genuine_images[order, :1]], groups)
        touched = np.bincount(group, pairs.compared_with_all, groups).astype(np.int64) - pairs.within(group, groups)
        count = np.bincount(bins(mated), minlength=BINS)
        return cls(pairs.n_impostor, pairs.n_identity_pairs, mated, count, gone, touched)


def _guide(pairs: StreamedPairs) -> np.ndarray:
    """Scores of some images with all in bins, in batches: int64 (batches, BINS)."""
    n = len(pairs.paths)
    chosen = np.random.default_rng(0).permutation(n)[: max(n // SAMPLED, BATCHES * FEWEST)]
    counts = np.zeros((BATCHES, BINS), np.int64)
    for start in range(0, len(chosen), FEWEST):
        found = bins(pairs.of_rows(np.sort(chosen[start : start + FEWEST])))
        counts[start // FEWEST % BATCHES] += np.bincount(found.ravel(), minlength=BINS)
    counts[:, 0] = 0
    return counts[counts.any(1)]


def _around(guide: np.ndarray, whole: _Whole, targets: Sequence[float], width: float) -> tuple[np.ndarray, np.ndarray]:
    """Bins that cut the scores into parts, int64 (m,), and which parts are to be kept, bool (m + 1,)."""
    of_all = 1 - _below(guide.sum(0)) / guide.sum()
    of_batches = np.array([1 - _below(batch) / batch.sum() for batch in guide])
    error = of_batches.std(0) / np.sqrt(max(len(guide) - 1, 1)) + 1 / guide.sum()
    largest, of_mated = (whole.touched.max() / whole.n, max(map(len, whole.mated_gone)) / len(whole.mated))
    differ, mated_differ = (share / max(1 - share, 1e-9) for share in (largest, of_mated))
    excess = _below(whole.mated_count) / len(whole.mated) - of_all
    cuts, spans = [], []
    for target in (None, *targets):
        rising = excess if target is None else target - of_all
        at = min(int(np.searchsorted(rising, 0)), BINS)
        margin = SURE * error[at] + APART * of_all[at] * differ + (0 if target is not None else mated_differ)
        first = int(np.searchsorted(rising, -width * margin, "right")) - 1
        last = int(np.searchsorted(rising, width * margin)) + 1
        first, last = max(first, 1), min(last, BINS)
        spans.append((first, last))
        cuts.append(np.unique(np.linspace(first, last, PARTS + 1).astype(np.int64)))
    cut = np.unique(np.concatenate(cuts))
    kept = np.zeros(len(cut) + 1, bool)
    for first, last in spans:
        kept[1:-1] |= (cut[:-1] >= first) & (cut[1:] <= last)
    counts = np.diff(_below(guide.sum(0))[np.concatenate([[0], cut, [BINS]])])
    expected = int(counts[kept].sum() / guide.sum() * whole.n)
    check_memory(f"{expected:,} scores near the thresholds", KEPT_BYTES * expected, "verify fewer people")
    return cut, kept


@dataclass(frozen=True)
class _Pass:
    """What one pass over all pairs finds.

    Attributes:
        cuts, ends: Bins at which parts begin, and how many scores are below each part's ends.
        count: Impostor scores of each bin.
        gone: Of each group and end of a part, impostor pairs with somebody of it below, int64 (groups, m + 2).
        scores, groups, part: Of the scores that are kept: float32 (k,), uint16 (k, 2), and their part.
        lost: Of each image, the sum over its impostor pairs of the share of mated scores above.
    """

    cuts: np.ndarray
    count: np.ndarray
    gone: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    part: np.ndarray
    lost: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        return _below(self.count)[np.concatenate([[0], self.cuts, [BINS]])]


def _pass(pairs: StreamedPairs, whole: _Whole, group: np.ndarray, cuts: np.ndarray, kept: np.ndarray) -> _Pass:
    groups, parts = len(whole.mated_gone), len(cuts) + 1
    part_of = np.searchsorted(cuts, np.arange(BINS), "right")
    share = (1 - (_below(whole.mated_count)[:-1] + whole.mated_count / 2) / len(whole.mated)).astype(np.float32)
    share[0] = 0  # of what is not compared
    lowest = int(cuts[0])
    group = group.astype(np.uint16)

    def work(row: int, column: int, scores: np.ndarray) -> tuple:
        number = bins(scores)
        count = np.bincount(number.ravel(), minlength=BINS)
        lost = share[number]
        flat = np.flatnonzero(number >= lowest)
        part = part_of[number.ravel()[flat]]
        first, second = np.divmod(flat, scores.shape[1])
        first, second = group[row + first], group[column + second]
        touched = np.bincount(first * np.int64(parts) + part, minlength=groups * parts)
        other = np.flatnonzero(first != second)
        touched += np.bincount(second[other] * np.int64(parts) + part[other], minlength=groups * parts)
        near = kept[part]
        listed = scores.ravel()[flat[near]], np.stack([first[near], second[near]], 1), part[near]
        return row, column, count, lost.sum(1), lost.sum(0), touched, listed

    total, touched, lost = np.zeros(BINS, np.int64), np.zeros(groups * parts, np.int64), np.zeros(len(group))
    scores, whose, where = [], [], []
    for row, column, count, of_rows, of_columns, touches, listed in pairs.each_block(work):
        total += count
        touched += touches
        lost[row : row + len(of_rows)] += of_rows
        lost[column : column + len(of_columns)] += of_columns
        scores.append(listed[0])
        whose.append(listed[1])
        where.append(listed[2].astype(np.uint16))
    total[0] = 0
    above = np.cumsum(touched.reshape(groups, parts)[:, ::-1], 1)[:, ::-1]  # of each part, and of those above it
    gone = np.zeros((groups, parts + 1), np.int64)
    gone[:, 1:-1] = whole.touched[:, None] - above[:, 1:]
    gone[:, -1] = whole.touched
    return _Pass(cuts, total, gone, np.concatenate(scores), np.concatenate(whose), np.concatenate(where), lost)


def _needed(found: _Pass, whole: _Whole, targets: Sequence[float]) -> np.ndarray:
    """Parts in which a threshold lies that is asked for, of all or without a group, and where the next score is."""
    curve = _curve(whole, found.count, np.flatnonzero(found.count + whole.mated_count))
    place = bins(curve.thresholds[:-1].astype(np.float32))
    part = np.append(np.searchsorted(found.cuts, place, "right"), len(found.cuts))
    needed = np.zeros(len(found.cuts) + 1, bool)
    everybody = [curve.once, *_weights(found, whole, np.zeros(len(needed), bool), [NOTHING] * len(found.gone))]
    for weights in everybody:
        if weights[0].total and weights[1].total:
            for at in {curve.equal(weights)[1], *(curve.at_most(target, weights) for target in targets)}:
                lower = part[max(at - 1, 0)]
                needed[lower] = True
                beyond = np.flatnonzero(part[:-1] > lower)
                if len(beyond):
                    needed[part[beyond[0]]] = True
    return needed


def _curve(whole: _Whole, count: np.ndarray, numbers: np.ndarray) -> ErrorCurve:
    """Over the edges of some bins."""
    below, mated = _below(count), _below(whole.mated_count)
    some = np.append(numbers, BINS)
    thresholds = np.append(_edge(numbers), np.inf)
    supported = RULE_OF_THREE / whole.n_identity_pairs
    return ErrorCurve(thresholds, mated[some], below[some], NOTHING, NOTHING, supported)


def _weights(found: _Pass, whole: _Whole, listed: np.ndarray, places: Sequence[np.ndarray]) -> list[Weights]:
    ends, lists, n_mated = found.ends.tolist(), listed.tolist(), len(whole.mated)
    return [
        (Remaining(n_mated, mated), Remaining(whole.n, own, (ends, gone.tolist(), lists)))
        for mated, own, gone in zip(whole.mated_gone, places, found.gone, strict=True)
    ]


def _exact(found: _Pass, whole: _Whole, needed: np.ndarray) -> tuple[ErrorCurve, list[Weights]]:
    """The curve with every score of the parts that are needed, and its weights without each group."""
    kept = np.flatnonzero(needed[found.part])
    kept = kept[np.argsort(found.scores[kept], kind="stable")]
    scores, part = found.scores[kept], found.part[kept]
    begins = np.searchsorted(part, np.arange(len(needed)))  # of each part among the kept scores
    rank = found.ends[part] + np.arange(len(kept)) - begins[part]
    mated_part = np.searchsorted(found.cuts, bins(whole.mated), "right")
    occupied = np.flatnonzero(found.count + whole.mated_count)
    occupied = occupied[~needed[np.searchsorted(found.cuts, occupied, "right")]]
    fine = np.unique(np.concatenate([scores, whole.mated[needed[mated_part]]])).astype(np.float64)
    of_fine = np.searchsorted(found.cuts, bins(fine.astype(np.float32)), "right")
    below_fine = found.ends[of_fine] + np.searchsorted(scores, fine) - begins[of_fine]
    edges = _curve(whole, found.count, occupied)
    thresholds = np.concatenate([edges.thresholds, fine])
    order = np.argsort(thresholds)
    mated_below = np.concatenate([edges.mated_below, np.searchsorted(whole.mated, fine)])[order]
    non_mated_below = np.concatenate([edges.non_mated_below, below_fine])[order]
    curve = ErrorCurve(thresholds[order], mated_below, non_mated_below, NOTHING, NOTHING, edges.lowest_supported)
    places = [rank[rows] for rows in split_by(found.groups[kept], len(found.gone))]
    return curve, _weights(found, whole, needed, places)


def _auc(pairs: StreamedPairs, found: _Pass, whole: _Whole) -> Interval:
    n, n_mated, used = pairs.n_identities, len(whole.mated), pairs.people >= 0
    owner, mated = pairs.genuine_identities, bins(pairs.genuine)
    won = np.bincount(owner, _below(found.count)[mated] + found.count[mated] / 2, n)
    lost = n_mated * np.bincount(pairs.people[used], found.lost[used], n)
    of_mated = np.bincount(owner, minlength=n).astype(np.float64)
    compared = np.bincount(pairs.people[used], pairs.compared_with_all[used], n)
    estimate = np.array([won.sum() / (n_mated * whole.n)])
    gone = won + lost - _wins_over_own(pairs, of_mated, compared, float(estimate[0]))
    with np.errstate(invalid="ignore", divide="ignore"):
        without = (won.sum() - gone) / ((n_mated - of_mated) * (whole.n - compared))
    variance = np.nansum((without - estimate) ** 2, keepdims=True) * (n - 1) / n
    return share_interval((won / whole.n)[:, None], of_mated, estimate=estimate, variance=variance)[0]


def _wins_over_own(pairs: StreamedPairs, of_mated: np.ndarray, compared: np.ndarray, auc: float) -> np.ndarray:
    """How often mated scores of each person win over non-mated ones of the same, of the people with most of them."""
    won, images = of_mated * compared * auc, np.bincount(pairs.people[pairs.people >= 0])
    most = np.argsort(-won)
    before = np.cumsum(images[most]) - images[most]
    for person in most[before < max(len(pairs.paths) // BATCHES**2, BATCHES * FEWEST)].tolist():
        own, rows = np.sort(pairs.genuine[pairs.genuine_identities == person]), np.flatnonzero(pairs.people == person)
        won[person] = 0
        for start in range(0, len(rows), FEWEST):
            scores = pairs.of_rows(rows[start : start + FEWEST])
            scores = scores[scores > NONE]
            below = np.searchsorted(own, scores) + np.searchsorted(own, scores, "right")
            won[person] += len(own) * len(scores) - below.sum() / 2
    return won


def _d_prime(mated: np.ndarray, count: np.ndarray) -> float:
    middle, mated = _edge(np.arange(BINS) + 0.5), mated.astype(np.float64)
    mean = (count * middle).sum() / count.sum()
    variance = (count * (middle - mean) ** 2).sum() / count.sum()
    spread = np.sqrt((mated.var() + variance) / 2)
    return float((mated.mean() - mean) / spread) if spread > 0 else float("nan")
