#!/usr/bin/env bash
# scikit-learn's det_curve and numpy.interp: "FNMR at FMR 1 %" is a confident wrong figure, where roc_curve's is right.
#
# Expected: `np.interp(0.01, fpr, fnr)` reads FNMR off det_curve as `np.interp(0.01, fpr, tpr)` reads TPR off roc_curve.
# Found: roc_curve's false positive rate rises, det_curve's falls, and interp takes any order without a word: what it
# gives is one end of the curve, the same for every rate asked, with all warnings turned into errors.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   FNMR at FMR 0.1%: counted 76.0%, roc_curve 76.0%, det_curve 86.5%, det_curve turned round 76.0%
#   FNMR at FMR 1.0%: counted 30.5%, roc_curve 30.5%, det_curve 86.5%, det_curve turned round 30.5%
#   FNMR at FMR 5.0%: counted 4.0%, roc_curve 4.0%, det_curve 86.5%, det_curve turned round 4.0%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from sklearn.metrics import det_curve, roc_curve

rng = np.random.default_rng(0)
mated, other = rng.normal(0.8, 0.1, 200), rng.normal(0.3, 0.2, 2000)
label, score = np.r_[np.ones(200), np.zeros(2000)], np.r_[mated, other]
fmr, fnmr, _ = det_curve(label, score)
fpr, tpr, _ = roc_curve(label, score)
seen = {}
for rate in (0.001, 0.01, 0.05):
    threshold = np.sort(other)[::-1][round(rate * 2000)]
    seen[rate] = np.interp(rate, fmr, fnmr), 1 - np.interp(rate, fpr, tpr), np.interp(rate, fmr[::-1], fnmr[::-1])
    counted = (mated <= threshold).mean()
    print(
        f"FNMR at FMR {rate:4.1%}: counted {counted:.1%}, roc_curve {seen[rate][1]:.1%}, "
        f"det_curve {seen[rate][0]:.1%}, det_curve turned round {seen[rate][2]:.1%}"
    )
    assert abs(seen[rate][1] - counted) < 0.02 and abs(seen[rate][2] - counted) < 0.02, "roc_curve is off too"
assert abs(seen[0.01][0] - seen[0.01][1]) > 0.3, "det_curve's order has changed"
PY
