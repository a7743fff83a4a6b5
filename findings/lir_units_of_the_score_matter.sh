#!/usr/bin/env bash
# lir: the likelihood ratios of one set of cosines are useless or good, by whether the cosines are written 0.88 or 88.
#
# Expected: a logistic calibration maps scores to likelihood ratios; a factor on all scores goes into its slope.
# Found: LogitCalibrator fits a regularised regression, which holds slopes small. CLIP's cosines lie in a narrow band
# and need a slope near 100: as they are, the cost Cllr on new pairs is several times that of the same cosines times 100
# (1 is no information); Cllr_min, which knows the order alone, is one for both. No warning.
# Versions: lir 1.3.1, scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#     50 mated pairs, cosine x   1: Cllr 0.71, Cllr_min 0.17, largest likelihood ratio 10^0.6
#     50 mated pairs, cosine x 100: Cllr 0.21, Cllr_min 0.17, largest likelihood ratio 10^8.3
#    200 mated pairs, cosine x   1: Cllr 0.48, Cllr_min 0.17, largest likelihood ratio 10^1.3
#    200 mated pairs, cosine x 100: Cllr 0.19, Cllr_min 0.17, largest likelihood ratio 10^5.7
#   2000 mated pairs, cosine x   1: Cllr 0.25, Cllr_min 0.17, largest likelihood ratio 10^3.2
#   2000 mated pairs, cosine x 100: Cllr 0.19, Cllr_min 0.17, largest likelihood ratio 10^6.6
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile lir==1.3.1 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from lir.algorithms.logistic_regression import LogitCalibrator
from lir.data.models import LLRData
from lir.metrics import cllr, cllr_min

rng = np.random.default_rng(0)


def pairs(mated):
    scores = np.r_[rng.normal(0.88, 0.03, mated), rng.normal(0.78, 0.03, 10 * mated)]
    return scores, np.repeat([1, 0], [mated, 10 * mated])


cost = {}
new, new_label = pairs(500)
for mated in (50, 200, 2000):
    scores, label = pairs(mated)
    for unit in (1, 100):
        llrs = LogitCalibrator().fit(scores * unit, label).transform(new * unit)
        judged = LLRData(features=llrs.reshape(-1, 1), labels=new_label)
        cost[mated, unit] = cllr(judged)
        print(
            f"{mated:4} mated pairs, cosine x {unit:3}: Cllr {cllr(judged):.2f}, Cllr_min {cllr_min(judged):.2f}, "
            f"largest likelihood ratio 10^{llrs.max():.1f}"
        )
assert cost[50, 1] > 0.5 and cost[50, 100] < 0.25, "the calibration no longer depends on the unit"
PY
