#!/usr/bin/env bash
# fairlearn: a group in which nobody was compared with a stranger has a false match rate of 0, the best of all.
#
# Expected: the rate of a group without non-mated pairs is NaN or warned of, as scikit-learn's recall is.
# Found: `false_positive_rate` gives 0.0, and MetricFrame takes it for the group that is never confused: the smallest
# rate, and the end from which the difference to the worst group is counted. The same for a group without mated pairs
# and `false_negative_rate`. No warning. Count the pairs beside the rate (`fairlearn.metrics.count`), and leave such
# groups out.
# Versions: fairlearn 0.15.0, scikit-learn 1.9.1, pandas 3.1.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   group A: 307 non-mated pairs, FMR 0.127, FNMR 0.140
#   group B: 303 non-mated pairs, FMR 0.195, FNMR 0.124
#   group C:   0 non-mated pairs, FMR 0.000, FNMR 0.150
#   difference of FMR: 0.195; of the two groups that have one: 0.068
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile fairlearn==0.15.0 scikit-learn==1.9.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate

rng = np.random.default_rng(0)
group = np.repeat(["A", "B", "C"], [400, 400, 20])
mated = np.r_[rng.uniform(size=800) < 0.25, np.ones(20, bool)]
scores = rng.normal(size=820) + 2 * mated
accepted = scores >= np.where(group == "A", 1.0, 0.9)
rates = {"fmr": false_positive_rate, "fnmr": false_negative_rate}
frame = MetricFrame(metrics=rates, y_true=mated, y_pred=accepted, sensitive_features=group)
for name, row in frame.by_group.iterrows():
    strangers = (~mated[group == name]).sum()
    print(f"group {name}: {strangers:3} non-mated pairs, FMR {row.fmr:.3f}, FNMR {row.fnmr:.3f}")
known = frame.by_group.fmr[["A", "B"]]
print(f"difference of FMR: {frame.difference().fmr:.3f}; of the two groups that have one: {np.ptp(known):.3f}")
assert frame.by_group.fmr["C"] == 0 and frame.difference().fmr > 2 * np.ptp(known), "a rate of nothing is no rate now"
PY
