#!/usr/bin/env bash
# scipy: `bootstrap((scores, labels), auc)` gives an AUC of 92 % the interval of a coin.
#
# Expected: scores and labels of one length are resampled together, or the call asks which is meant.
# Found: `paired=False` is the default: scores and labels are drawn anew apart from each other, so each score gets
# somebody's label and the interval lies round 50 %, far from the value it is of, unsaid. With `paired=True` it is
# right for independent pairs (biometric pairs share people: resample those).
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   AUC 0.918
#   paired=False: 95 % interval 0.446 to 0.555
#   paired=True: 95 % interval 0.891 to 0.941
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

rng = np.random.default_rng(0)
labels = np.repeat([0, 1], 200)
scores = rng.normal(size=400) + 2 * labels
value = roc_auc_score(labels, scores)
print(f"AUC {value:.3f}")
inside = {}
for paired in (False, True):
    settings = {"paired": paired, "vectorized": False, "n_resamples": 300, "method": "percentile", "rng": 0}
    low, high = bootstrap((scores, labels), lambda s, y: roc_auc_score(y, s), **settings).confidence_interval
    inside[paired] = low <= value <= high
    print(f"paired={paired}: 95 % interval {low:.3f} to {high:.3f}")
assert inside == {False: False, True: True}, "unpaired resampling now holds the value"
PY
