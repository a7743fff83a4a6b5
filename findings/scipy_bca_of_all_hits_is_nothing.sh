#!/usr/bin/env bash
# scipy: the default bootstrap interval of a rank-1 of 100 % is NaN to NaN, and the others' have no length.
#
# Expected: an interval of 50 hits of 50 that ends at 100 % and is perhaps of no length.
# Found: BCa (the default) divides by a spread of 0 and returns NaN with a warning alone; the percentile method
# returns 1 to 1, no uncertainty at all. A best model's row is then empty or looks certain. Wilson's interval is 93 to
# 100 %.
# Versions: scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   BCa: nan to nan
#   basic: 1.000 to 1.000
#   percentile: 1.000 to 1.000
#   wilson: 0.929 to 1.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import numpy as np
from scipy.stats import binomtest, bootstrap

hits = np.ones(50)
found = {}
for method in ("BCa", "basic", "percentile"):
    found[method] = tuple(bootstrap((hits,), np.mean, method=method, rng=0).confidence_interval)
found["wilson"] = tuple(binomtest(50, 50).proportion_ci(method="wilson"))
for method, (low, high) in found.items():
    print(f"{method}: {low:.3f} to {high:.3f}")
assert np.isnan(found["BCa"]).all() and found["percentile"] == (1, 1), "a sure hit has another interval now"
PY
