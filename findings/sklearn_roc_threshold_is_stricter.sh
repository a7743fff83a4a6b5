#!/usr/bin/env bash
# scikit-learn: the threshold that `roc_curve` gives for an FMR of 1 % is one of 0.03 %, the better the model the more.
#
# Expected: drop_intermediate leaves out points that lie on a line of the plot; a threshold read off it is the same.
# Found: where mated pairs are all above, the curve is flat, and whatever lies on the flat part is left out but its end.
# `thresholds[fpr <= 0.01][-1]` is then the far end: the hit rate on these pairs is the same, and the threshold is
# stricter than asked for. Carried to other people, whose mated scores are 1 lower here, it rejects more than it should.
# Give drop_intermediate=False for thresholds.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   mated 2 ahead, drop_intermediate=True: threshold 2.31, FMR 1.00%, FNMR 58.5%, of others 90.4%
#   mated 2 ahead, drop_intermediate=False: threshold 2.31, FMR 1.00%, FNMR 58.5%, of others 90.4%
#   mated 4 ahead, drop_intermediate=True: threshold 2.39, FMR 0.78%, FNMR 6.0%, of others 27.3%
#   mated 4 ahead, drop_intermediate=False: threshold 2.31, FMR 1.00%, FNMR 6.0%, of others 24.5%
#   mated 6 ahead, drop_intermediate=True: threshold 3.37, FMR 0.03%, FNMR 0.0%, of others 5.2%
#   mated 6 ahead, drop_intermediate=False: threshold 2.31, FMR 1.00%, FNMR 0.0%, of others 0.4%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from sklearn.metrics import roc_curve

rng = np.random.default_rng(0)
strangers = rng.normal(size=20_000)
found = {}
for ahead in (2, 4, 6):
    mated, others = ahead + rng.normal(size=200), ahead - 1 + rng.normal(size=20_000)
    labels = np.repeat([0, 1], [20_000, 200])
    for drop in (True, False):
        fmr, hits, thresholds = roc_curve(labels, np.r_[strangers, mated], drop_intermediate=drop)
        at = np.flatnonzero(fmr <= 0.01)[-1]
        found[ahead, drop] = fmr[at], hits[at], (others < thresholds[at]).mean()
        print(
            f"mated {ahead} ahead, drop_intermediate={drop}: threshold {thresholds[at]:.2f}, FMR {fmr[at]:.2%}, "
            f"FNMR {1 - hits[at]:.1%}, of others {found[ahead, drop][2]:.1%}"
        )
assert found[6, True][0] < 0.005 and found[6, False][0] == 0.01 and found[6, True][1] == found[6, False][1], "the same"
PY
