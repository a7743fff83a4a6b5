"""Groups of people at one threshold: false matches across groups, and two figures that sum up how far groups differ."""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.table import UNKNOWN, as_groups, in_order
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_rates import AnyPairs
from handclip_lib.evaluation.verification.pairs import Counts
from handclip_lib.evaluation.verification.tallies import Tallies
from handclip_lib.evaluation.verification.thresholds import ATTRIBUTES, SMALL

AT_ONCE = 64  # deals
Rates = Sequence[float] | np.ndarray
CROSS_SHOWN = ("attribute", "group", "other", "fmr", "n_identities", "n_identity_pairs", "n_impostor")
EQUITY_SHOWN = (
    "attribute", "groups", "left_out_groups", "fmr_difference", "fnmr_difference", "fdr", "garbe", "garbe_chance", "p",
    "n_identities", "n_genuine",
)  # fmt: skip


def cross_group_fmr(
    pairs: AnyPairs, images: pd.DataFrame, threshold: float, attributes: Sequence[str] = ATTRIBUTES
) -> pd.DataFrame:
    """FMR of the non-mated pairs of each two groups of an attribute, and within each.

    People take each other's place most easily within a group: the FMR of all pairs is lower than what a door sees that
    is used by one group. A pair counts whichever of its images is the query, so the matrix is symmetric.

    Args:
        images: Rows with `path` and the attributes, at least of the images of the pairs. Images whose attribute is not
            recorded are left out, and attributes of which fewer than two groups are known.

    Returns:
        A row an attribute and two groups: attribute, group, other, fmr with interval, n_identities, n_identity_pairs,
        n_impostor, small (fewer than 5 people), supported (see `at_threshold`).

    Source: ISO/IEC 19795-10:2024; Howard, Sirotin & Vemury, "The effect of broad and specific demographic homogeneity
        on the imposter distributions and false match rates", BTAS 2019.
    """
    rows: list[dict[str, Any]] = []
    labels = images.set_index("path").reindex(index=list(pairs.paths), columns=list(attributes))
    compared, of_images, asked = pairs.compared_with_all > 0, dict[str, np.ndarray](), dict[str, list[str]]()
    for attribute in attributes:
        of_image = as_groups(labels[attribute]).to_numpy(str)
        groups = in_order(attribute, set(of_image[compared].tolist()) - {UNKNOWN})
        if len(groups) > 1:
            asked[attribute], of_images[attribute] = groups, of_image
    tallies = Tallies(pairs, threshold, of_images)
    for attribute, groups in asked.items():
        for group, other in combinations_with_replacement(groups, 2):
            some = tallies.of(attribute, group, other)
            fmr, _, supported = some.rates(threshold)
            rows.append(
                {"attribute": attribute, "group": group, "other": other, **fmr.columns("fmr"),
                 "n_identities": some.n_identities, "n_identity_pairs": some.n_identity_pairs,
                 "n_impostor": some.n_impostor, "small": some.n_identities < SMALL, "supported": supported}
            )  # fmt: skip
    return result_table(rows, CROSS_SHOWN, columns=None if rows else [*CROSS_SHOWN, "supported"])


def gini(rates: Rates) -> float:
    """Gini coefficient of n rates of 0 or more, times n / (n - 1), so that it spans 0..1; NaN where all are 0.

    Sum of |x_i - x_j| over all i and j, divided by 2 n² times the mean of x.
    """
    x = np.asarray(rates, np.float64)
    n, mean = len(x), x.mean()
    if n < 2 or mean == 0:
        return float("nan")
    return float(n / (n - 1) * np.abs(x[:, None] - x).sum() / (2 * n**2 * mean))


def garbe(fmr: Rates, fnmr: Rates, alpha: float = 0.5) -> float:
    """Gini aggregation rate for biometric equitability: alpha · Gini of the FMRs + (1 - alpha) · Gini of the FNMRs.

    0: all groups have the same rates; 1: one group has all errors. NaN where no group has an error of either kind.

    Source: Howard et al., "Evaluating proposed fairness models for face recognition algorithms", ICPR workshops 2022.
    """
    return alpha * gini(fmr) + (1 - alpha) * gini(fnmr)


def fairness_discrepancy_rate(fmr: Rates, fnmr: Rates, alpha: float = 0.5) -> float:
    """1 - (alpha · largest difference of two groups' FMR + (1 - alpha) · that of their FNMR): 1 is no difference.

    It falls with the errors themselves: at a strict threshold every FMR is small, and so are their differences.

    Source: de Freitas Pereira & Marcel, "Fairness in biometrics: a figure of merit to assess biometric verification
        systems", IEEE T-BIOM 2022.
    """
    return float(1 - alpha * np.ptp(fmr) - (1 - alpha) * np.ptp(fnmr))


def equity(
    groups: pd.DataFrame, pairs: AnyPairs, images: pd.DataFrame, threshold: float, *, shuffles: int = 999, seed: int = 0
) -> pd.DataFrame:
    """FDR and GARBE, alpha 0.5, of each attribute of a table of `group_figures`.

    GARBE is above 0 for any groups, the more so the fewer people they have: `garbe_chance` is its median where the same
    people are dealt to groups of the same sizes at random, and p the share of such deals (the one that was found among
    them) with a GARBE as high. Both are NaN where a person is in two groups, as nail polish makes happen.

    Groups are left out, and named, that are small, unknown, or lack one of the rates: a group of two people has rates
    of 0 or 1 by luck, and either figure looks at extremes. No row for an attribute with fewer than two others.

    Args:
        pairs, images, threshold: What the table was made of.

    Returns:
        A row an attribute: attribute, groups and left_out_groups (text), fmr_difference and fnmr_difference (the
        largest, 0..1), fdr, garbe, the fewest n_identities, n_genuine and n_impostor of a group, and `supported`:
        whether every group has people enough for its FMR.
    """
    rows: list[dict[str, Any]] = []
    between: Counts | None = None
    by_path = images.set_index("path").reindex(index=list(pairs.paths))
    for attribute, of_attribute in groups[groups["attribute"] != ""].groupby("attribute", sort=False):
        kept = of_attribute["fmr"].notna() & of_attribute["fnmr"].notna() & ~of_attribute["small"].astype(bool)
        kept &= of_attribute["group"] != UNKNOWN
        some, fewest = of_attribute[kept], of_attribute.loc[kept, ["n_identities", "n_genuine", "n_impostor"]].min()
        if len(some) < 2:
            continue
        rates = some["fmr"].to_numpy(), some["fnmr"].to_numpy()
        of_image = as_groups(by_path[attribute]).to_numpy(str)
        between = between or pairs.between_people(threshold)
        dealt = _dealt_garbe(pairs, between, of_image, some["group"].tolist(), threshold, shuffles, seed)
        found = garbe(*rates)
        p = (1 + int((dealt >= found - 1e-12).sum())) / (1 + len(dealt)) if len(dealt) and found == found else np.nan
        rows.append(
            {"attribute": attribute, "groups": ", ".join(some["group"]),
             "left_out_groups": ", ".join(of_attribute.loc[~kept, "group"]), "fmr_difference": float(np.ptp(rates[0])),
             "fnmr_difference": float(np.ptp(rates[1])), "fdr": fairness_discrepancy_rate(*rates),
             "garbe": found, "garbe_chance": float(np.median(dealt)) if len(dealt) else np.nan,
             "p": p, **{str(name): int(n) for name, n in fewest.items()},
             "supported": bool(some["supported"].all())}
        )  # fmt: skip
    return result_table(rows, EQUITY_SHOWN, columns=None if rows else [*EQUITY_SHOWN, "supported"])


def _dealt_garbe(
    pairs: AnyPairs, between: Counts, of_image: np.ndarray, groups: Sequence[str], threshold: float, shuffles: int,
    seed: int,
) -> np.ndarray:  # fmt: skip
    """GARBE where the people of some groups are dealt to groups of the same sizes, float64 (at most shuffles,).

    `between` are the pairs of each two people, of `between_people`.

    Deals without any error, or without a pair in a group, are left out; all are where a person is in two groups.
    """
    n, own, used = pairs.n_identities, pairs.genuine_identities, pairs.people >= 0
    group_of = dict[int, str]()
    for person, group in set(zip(pairs.people[used].tolist(), of_image[used].tolist(), strict=True)):
        if group_of.setdefault(person, group) != group:
            return np.empty(0)
    people = np.array([person for person in sorted(group_of) if group_of[person] in groups])
    member = np.array([[group_of[person] == group for group in groups] for person in people.tolist()], float)
    everyone = np.zeros((n, 1), between[0].dtype)
    everyone[people] = 1
    of_all = [matrix @ everyone for matrix in between]
    of_people = [np.bincount(some, minlength=n) for some in (own[pairs.genuine < threshold], own)]
    rng, dealt = np.random.default_rng(seed), []
    for start in range(0, shuffles, AT_ONCE):
        deals = [rng.permutation(member) for _ in range(min(AT_ONCE, shuffles - start))]
        hands = np.zeros((n, len(deals), len(groups)), everyone.dtype)
        hands[people] = np.stack(deals, axis=1)
        matches = []
        for matrix, total in zip(between, of_all, strict=True):
            # the last group's share is what the others leave of everybody's
            with_others = (matrix @ hands[:, :, :-1].reshape(n, -1)).reshape(n, len(deals), -1)
            shares = np.concatenate([with_others, total[:, None] - with_others.sum(2, keepdims=True)], axis=2)
            matches.append(np.einsum("pdg,pdg->dg", shares, hands, dtype=np.float64))
        non_matches = [np.einsum("p,pdg->dg", counts, hands, dtype=np.float64) for counts in of_people]
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = [few / all_of for few, all_of in (matches, non_matches)]
        dealt += [garbe(*both) for both in zip(*rates, strict=True)]
    found = np.array(dealt)
    return found[~np.isnan(found)]
