"""NaN and infinity mean nothing: they are refused where arrays enter, in one sentence."""

from typing import Any

import numpy as np

from handclip_lib.errors import EvaluationError, HandClipError


def require_finite(
    values: Any, what: str, remedy: str = "check the weights, and use float32", error: type[HandClipError] | None = None
) -> None:
    """Refuse an array, or a tensor on the CPU, with NaN or infinity in it.

    Raises:
        HandClipError: `error`, or `EvaluationError`; it says what the values are and how many are bad, with the remedy.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fc":
        return
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        nan = int(np.count_nonzero(np.isnan(values)))
        message = f"{what}: {bad} of {values.size} values are not finite ({nan} NaN, {bad - nan} infinite); {remedy}"
        raise (error or EvaluationError)(message)
