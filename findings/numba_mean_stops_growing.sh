#!/usr/bin/env bash
# numba: the mean of 40 million float32 cosines of 0.8 is 0.42.
#
# Expected: x.mean() in a compiled function is numpy's to the last digits or so.
# Found: numba adds float32 numbers one after another in float32, where numpy adds pairwise: from 2^24 on nothing more
# of that size can be added, and the sum stands still. 8,000 people have 32 million non-mated pairs. Already with 2
# million the second digit is wrong, and with 10 it is wrong the other way. Add in float64, by a loop over a total that
# starts at 0.0.
# Versions: numba 0.68.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#    2 million: numba 0.7881, numpy 0.8000, numba in float64 0.8000
#   10 million: numba 0.8703, numpy 0.8000, numba in float64 0.8000
#   40 million: numba 0.4194, numpy 0.8000, numba in float64 0.8000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile numba==0.68.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numba
import numpy as np


@numba.njit
def mean(scores):
    return scores.mean()


@numba.njit
def mean_in_float64(scores):
    total = 0.0
    for score in scores:
        total += score
    return total / scores.size


found = {}
for million in (2, 10, 40):
    scores = np.full(million * 1_000_000, 0.8, np.float32)
    found[million] = mean(scores)
    loop = mean_in_float64(scores)
    print(f"{million:2} million: numba {found[million]:.4f}, numpy {scores.mean():.4f}, numba in float64 {loop:.4f}")
assert found[40] < 0.5, "numba no longer adds in float32 one by one"
PY
