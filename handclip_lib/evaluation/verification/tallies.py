"""What a threshold accepts of all pairs, of those within a group of images, and of those across two: FMR and FNMR."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.intervals import RULE_OF_THREE, Interval, identity_interval, share_interval
from handclip_lib.evaluation.verification.error_rates import AnyPairs


@dataclass(frozen=True)
class Tally:
    """Some pairs at a threshold.

    Attributes:
        passed, compared: Impostor pairs that are accepted, and all, of each person whom some pair compares, float64
            (n_identities,): a pair counts for both people.
        rejected, owners: Of each genuine pair, whether it is rejected, bool, and the number of its person.
        n_identity_pairs: Distinct pairs of people of the impostor pairs.
    """

    passed: np.ndarray
    compared: np.ndarray
    rejected: np.ndarray
    owners: np.ndarray
    n_identity_pairs: int

    @property
    def n_identities(self) -> int:
        """People whom some pair compares."""
        return len(self.compared)

    @property
    def n_impostor(self) -> int:
        """Pairs of two people."""
        return int(self.compared.sum()) // 2

    def rates(self, threshold: float) -> tuple[Interval, Interval, bool]:
        """FMR and FNMR, and whether there are enough people for both: see `at_threshold`."""
        n = self.n_identities
        if np.isinf(threshold):
            fmr, fnmr = Interval.unknown(0.0, n), Interval.unknown(1.0, n)
        else:
            fmr, fnmr = self._fmr(), identity_interval(self.rejected, self.owners)
        carried = bool(fnmr.supported) or not len(self.rejected)  # across groups there are no mated pairs
        known = self.n_identity_pairs > 0
        return fmr, fnmr, known and float(fmr.estimate) >= RULE_OF_THREE / self.n_identity_pairs and carried

    def _fmr(self) -> Interval:
        """The independent units are pairs of people, as in the rule of three; each person is left out in turn."""
        n, accepted, pairs = self.n_identities, self.passed.sum() / 2, self.compared.sum() / 2
        if self.n_identity_pairs < 2:
            return Interval.unknown(accepted / pairs if pairs else np.nan, n)
        estimate = np.array([accepted / pairs])
        with np.errstate(invalid="ignore", divide="ignore"):  # the one person in every pair left out: nothing is left
            without = (accepted - self.passed) / (pairs - self.compared)
        variance = np.nansum((without - estimate) ** 2, keepdims=True) * (n - 1) / n
        units = self.n_identity_pairs
        return share_interval(self.passed[:, None], self.compared, estimate=estimate, variance=variance, units=units)[0]


class Tallies:
    """Tallies of groups of images, of one look at the pairs.

    Args:
        groups: By attribute the group of each image, text (n_images,).
    """

    def __init__(self, pairs: AnyPairs, threshold: float, groups: Mapping[str, np.ndarray]):
        if np.isnan(threshold):
            raise EvaluationError("threshold=nan: a score is wanted")
        self._pairs, self._groups, self._place = pairs, groups, dict[tuple[str, str], int]()
        labels = np.zeros((len(pairs.paths), len(groups)), np.int64)
        for column, (attribute, of_image) in enumerate(groups.items()):
            names, codes = np.unique(of_image, return_inverse=True)
            labels[:, column] = len(self._place) + codes.ravel()
            self._place |= {(attribute, str(name)): len(self._place) + i for i, name in enumerate(names)}
        self._accepted, self._compared = pairs.counts(threshold, labels, len(self._place))
        self._rejected, self._people = pairs.genuine < threshold, pairs.people

    def of(self, attribute: str, group: str, other: str | None = None) -> Tally:
        """Of the pairs within a group; or of the non-mated ones of an image of it and one of another, or the same."""
        first, second = (self._groups[attribute] == name for name in (group, other or group))
        n = self._pairs.n_identities
        used = self._people >= 0
        passed, compared = np.zeros(n), np.zeros(n)
        for images, partner in ((first, other or group), (second, group))[: 1 + (other not in (None, group))]:
            images, column = images & used, self._place[attribute, partner]
            for total, counts in ((passed, self._accepted), (compared, self._compared)):
                total += np.bincount(self._people[images], counts[images, column], n)
        one, two = self._pairs.genuine_images.T
        inside = first[one] & first[two] & (other is None)
        owners, some = self._pairs.genuine_identities[inside], compared > 0
        some[owners] = True
        pairs_of_people = self._pairs.identity_pairs(first, second)
        return Tally(passed[some], compared[some], self._rejected[inside], owners, pairs_of_people)


def tally(pairs: AnyPairs, threshold: float) -> Tally:
    """Of all pairs."""
    return Tallies(pairs, threshold, {"": np.full(len(pairs.paths), "everybody")}).of("", "everybody")


def at_threshold(pairs: AnyPairs, threshold: float) -> tuple[dict[str, float], bool]:
    """FMR and FNMR at a threshold that was chosen elsewhere, with intervals over identities.

    At an infinite one, which rejects everybody, the FMR is 0 and the FNMR 1, without intervals.

    Returns:
        Columns fmr and fnmr, shares in 0..1, NaN where there is no pair to count; each with `_low` and `_high`, NaN
        where fewer than two pairs of people (FMR) or two people (FNMR) are compared. And whether there are enough
        people for both: an FMR as low as the one found (rule of three over pairs of people), and `Interval.supported`.
    """
    fmr, fnmr, supported = tally(pairs, threshold).rates(threshold)
    return fmr.columns("fmr") | fnmr.columns("fnmr"), supported
