"""A threshold fixed on validation identities, and what it does to people it was not chosen on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.baselines import embed_with_baselines
from handclip_lib.evaluation.bootstrap import Interval, mean_interval, resampled
from handclip_lib.evaluation.features import Features, joined
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_curve import RULE_OF_THREE
from handclip_lib.evaluation.verification.error_rates import verification
from handclip_lib.evaluation.verification.score_pairs import Pairs, compared_pairs, validation_pairs
from handclip_lib.models.trained import Trained
from handclip_lib.parameters.notebooks import Evaluation

SHOWN = ("model", "threshold", "fmr_validation", "fmr", "fnmr_validation", "fnmr")


@dataclass(frozen=True)
class ThresholdRates:
    """What one threshold does to pairs.

    Attributes:
        fmr, fnmr: False match and non-match rate in 0..1, NaN where there is no pair to count, with their intervals
            over identities, NaN where fewer than two pairs of people (FMR) or two people (FNMR) are compared.
        supported: Whether there are enough people to claim an FMR as low as the one found (rule of three).
    """

    fmr: Interval
    fnmr: Interval
    supported: bool


def at_threshold(test: Pairs, threshold: float, *, bootstrap: int = 1000, seed: int = 0) -> ThresholdRates:
    """FMR and FNMR at a threshold that was chosen elsewhere, with intervals over identities.

    Identities are resampled as in `verification_of`, but the threshold stays. At an infinite one, which rejects
    everybody, the FMR is 0 and the FNMR 1, without intervals.
    """
    if np.isnan(threshold):
        raise EvaluationError("threshold=nan: a score is wanted")
    n, pairs = test.n_identities, test.n_identity_pairs
    if np.isinf(threshold):
        fmr, fnmr = Interval.unknown(0.0, n), Interval.unknown(1.0, n)
    else:
        fmr = _fmr(test, threshold, bootstrap, seed)
        fnmr = mean_interval(test.genuine < threshold, test.genuine_identities, bootstrap, seed)
    return ThresholdRates(fmr, fnmr, pairs > 0 and float(fmr.estimate) >= RULE_OF_THREE / pairs)


def operating_points(
    features: Mapping[str, Features], split: Split, fmr: float = 0.01, *, bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A row a model: its threshold for an FMR on validation identities, and its errors on test identities there.

    Where no threshold keeps to it but rejecting everybody, as with few people happens, the threshold is infinity:
    that one model cannot do it is a result, and the others have theirs.

    Returns:
        Columns model, target, threshold, fmr_validation, fnmr_validation; fmr and fnmr of the test identities with
        `_low` and `_high`; n_identities, `validation_supported` and `supported`.
    """
    rows = []
    for model, embeddings in features.items():
        known = validation_pairs(embeddings, split)
        chosen = verification(known.genuine, known.impostor, known.n_identities, known.n_identity_pairs).fnmr_at_fmr(
            fmr
        )
        test = compared_pairs(embeddings, split)
        found = at_threshold(test, chosen.threshold, bootstrap=bootstrap, seed=seed)
        rows.append(
            {"model": model, "target": fmr, "threshold": chosen.threshold, "fmr_validation": chosen.false_positive,
             "fnmr_validation": chosen.false_negative, **found.fmr.columns("fmr"), **found.fnmr.columns("fnmr"),
             "n_identities": test.n_identities, "validation_supported": chosen.supported,
             "supported": found.supported}
        )  # fmt: skip
    return result_table(rows, SHOWN)


def fixed_on_validation(
    model: Backbone | Trained, images: DecodedImages, features: Mapping[str, Features], split: Split, config: Evaluation
) -> pd.DataFrame:
    """`operating_points` of notebook 05; no row where fewer than two people validate.

    Args:
        images: Decoded images, those that trained and validated among them: they are embedded here.
        features: Of the evaluated images, the model's first.
    """
    if len(split.identities("val")) < 2:
        return result_table([], SHOWN, columns=["model", "threshold"])
    held = images.select(split.paths("train") + split.paths("val"))
    both = joined(features, embed_with_baselines(model, held, config.batch_size))
    return operating_points(both, split, config.target_fmr, bootstrap=config.bootstrap, seed=config.seed)


def usable_threshold(fixed: pd.DataFrame, otherwise: float) -> float:
    """The first model's threshold of `fixed_on_validation`; another where there is none or it rejects everybody."""
    found = float(fixed["threshold"].iloc[0]) if len(fixed) else np.inf
    return otherwise if np.isinf(found) else found


def _fmr(pairs: Pairs, threshold: float, samples: int, seed: int) -> Interval:
    n = pairs.n_identities
    accepted = pairs.impostor >= threshold
    estimate = float(accepted.mean()) if len(accepted) else float("nan")
    if pairs.n_identity_pairs < 2:
        return Interval.unknown(estimate, n)
    code = pairs.impostor_identities @ [n, 1]
    passed, compared = (np.bincount(c, minlength=n * n).reshape(n, n) for c in (code[accepted], code))
    with np.errstate(invalid="ignore"):  # a resample without two people that are compared: NaN, left out
        rates = [((w @ passed) * w).sum(1) / ((w @ compared) * w).sum(1) for w in resampled(n, samples, seed)]
    return Interval.of(estimate, np.concatenate(rates), n)
