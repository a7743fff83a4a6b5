"""A threshold chosen on validation identities, frozen, and what it does to people it was not chosen on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval, identity_bootstrap
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_curve import (
    interval_columns,
    no_interval,
    percentile_interval,
    resampled,
)
from handclip_lib.evaluation.verification.error_rates import RULE_OF_THREE, OperatingPoint, verification
from handclip_lib.evaluation.verification.score_pairs import Pairs, compared_pairs, validation_pairs

SHOWN = ("model", "threshold", "fmr_validation", "fmr", "fnmr_validation", "fnmr")


@dataclass(frozen=True)
class ThresholdRates:
    """What one threshold does; shares in 0..1, NaN where there is no pair to count.

    Attributes:
        threshold: A score at or above it is accepted.
        fmr, fnmr: False match and non-match rate with their intervals over identities; the interval is NaN where
            fewer than two pairs of people (FMR) or two people (FNMR) are compared.
        n_genuine, n_impostor: Pairs.
        n_identities, n_identity_pairs: People, and pairs of two people, compared.
    """

    threshold: float
    fmr: Interval
    fnmr: Interval
    n_genuine: int
    n_impostor: int
    n_identities: int
    n_identity_pairs: int

    @property
    def supported(self) -> bool:
        """Whether there are enough people to claim an FMR as low as the one found (rule of three)."""
        return self.n_identity_pairs > 0 and float(self.fmr.estimate) >= RULE_OF_THREE / self.n_identity_pairs


def frozen_threshold(validation: Pairs, fmr: float) -> OperatingPoint:
    """The lowest threshold that keeps to an FMR on validation pairs.

    Args:
        validation: As `validation_pairs` gives them: no test identity is among them.
        fmr: False match rate to keep to, 0..1.

    Raises:
        EvaluationError: No threshold but rejecting everybody keeps to it.
    """
    found = _lowest(validation, fmr)
    if np.isinf(found.threshold):
        raise EvaluationError(
            f"no threshold keeps to fmr={fmr} on {len(validation.impostor):,} validation pairs without rejecting "
            "everybody: two people have the highest score of all. Ask for a higher fmr"
        )
    return found


def at_threshold(test: Pairs, threshold: float, *, bootstrap: int = 1000, seed: int = 0) -> ThresholdRates:
    """FMR and FNMR at a threshold that was chosen elsewhere, with intervals over identities.

    Identities are resampled as in `verification_of`, but the threshold stays.

    Args:
        test: The pairs to decide on.
        threshold: A score at or above it is accepted; finite.
        bootstrap: Resamples of the identities.
        seed: Seed of the resampling.

    Raises:
        EvaluationError: The threshold is not a finite number.
    """
    if not np.isfinite(threshold):
        raise EvaluationError(f"threshold={threshold}: a finite score is wanted")
    return ThresholdRates(
        threshold, _fmr(test, threshold, bootstrap, seed), _fnmr(test, threshold, bootstrap, seed),
        len(test.genuine), len(test.impostor), test.n_identities, test.n_identity_pairs,
    )  # fmt: skip


def frozen_table(
    features: Mapping[str, Features], split: Split, fmr: float = 0.01, *, bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A row a model: its threshold for an FMR on validation identities, and its errors on test identities there.

    Where no threshold keeps to it but rejecting everybody, as with few people happens, the threshold is infinity, every
    FMR 0 and every FNMR 1, without intervals: that one model cannot do it is a result, and the others have theirs.

    Returns:
        Columns model, target, threshold, fmr_validation, fnmr_validation; fmr and fnmr of the test identities with
        `_low` and `_high`; n_identities, `validation_supported` and `supported`.
    """
    rows: list[dict[str, Any]] = []
    for model, embeddings in features.items():
        chosen = _lowest(validation_pairs(embeddings, split), fmr)
        test = compared_pairs(embeddings, split)
        found = (
            _everybody_rejected(test)
            if np.isinf(chosen.threshold)
            else at_threshold(test, chosen.threshold, bootstrap=bootstrap, seed=seed)
        )
        rows.append(
            {"model": model, "target": fmr, "threshold": chosen.threshold, "fmr_validation": chosen.fmr,
             "fnmr_validation": chosen.fnmr, **interval_columns("fmr", found.fmr),
             **interval_columns("fnmr", found.fnmr), "n_identities": found.n_identities,
             "validation_supported": chosen.supported, "supported": found.supported}
        )  # fmt: skip
    return result_table(rows, SHOWN)


def _lowest(validation: Pairs, fmr: float) -> OperatingPoint:
    counts = validation.n_identities, validation.n_identity_pairs
    return verification(validation.genuine, validation.impostor, *counts).fnmr_at_fmr(fmr)


def _everybody_rejected(test: Pairs) -> ThresholdRates:
    n = test.n_identities
    rates = no_interval(0.0, n), no_interval(1.0, n)
    return ThresholdRates(np.inf, *rates, len(test.genuine), len(test.impostor), n, test.n_identity_pairs)


def _fmr(pairs: Pairs, threshold: float, samples: int, seed: int) -> Interval:
    n = pairs.n_identities
    accepted = pairs.impostor >= threshold
    estimate = float(accepted.mean()) if len(accepted) else float("nan")
    if pairs.n_identity_pairs < 2:
        return no_interval(estimate, n)
    code = pairs.impostor_identities @ [n, 1]
    passed, compared = (np.bincount(c, minlength=n * n).reshape(n, n) for c in (code[accepted], code))
    weight = resampled(n, samples, seed)
    with np.errstate(invalid="ignore"):  # a resample without two people that are compared: NaN, left out
        rates = ((weight @ passed) * weight).sum(1) / ((weight @ compared) * weight).sum(1)
    found = percentile_interval(np.array([estimate]), rates[:, None], n)
    return Interval(found.estimate[0], found.low[0], found.high[0], found.level, n)


def _fnmr(pairs: Pairs, threshold: float, samples: int, seed: int) -> Interval:
    rejected, identities = (pairs.genuine < threshold).astype(float), pairs.genuine_identities
    n = len(np.unique(identities))
    if n < 2:
        return no_interval(float(rejected.mean()) if len(rejected) else float("nan"), n)
    return identity_bootstrap(rejected, identities, samples, seed)
