#!/usr/bin/env bash
# scipy: the distance of two embeddings stored as 8-bit integers wraps round in one function and not in its neighbour.
#
# Expected: scipy.spatial.distance.cosine(u, v) is what cdist([u], [v], "cosine") gives, whatever the number type.
# Found: cdist converts to float64; the pair functions compute in int8. Two unrelated embeddings come out at a cosine
# distance of 0 (a perfect match; a RuntimeWarning tells of a multiplication), euclidean and cityblock are too small
# without any word. sqeuclidean and correlation are right.
# Versions: scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   cosine     : pair 0.000, cdist 0.991, pair of floats 0.991, warnings 1
#   euclidean  : pair 626.359, cdist 822.799, pair of floats 822.799, warnings 0
#   cityblock  : pair 3818.000, cdist 5442.000, pair of floats 5442.000, warnings 0
#   sqeuclidean: pair 676998.000, cdist 676998.000, pair of floats 676998.000, warnings 0
#   correlation: pair 0.992, cdist 0.992, pair of floats 0.992, warnings 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
from scipy.spatial import distance

u, v = np.random.default_rng(0).integers(-127, 128, size=(2, 64)).astype("int8")
seen = {}
for name in ("cosine", "euclidean", "cityblock", "sqeuclidean", "correlation"):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pair = float(getattr(distance, name)(u, v))
    table = float(distance.cdist(u[None], v[None], name)[0, 0])
    wide = float(getattr(distance, name)(u.astype(float), v.astype(float)))
    seen[name] = pair, table, wide
    print(f"{name:11}: pair {pair:.3f}, cdist {table:.3f}, pair of floats {wide:.3f}, warnings {len(said)}")
assert all(np.isclose(table, wide) for _, table, wide in seen.values()), "cdist is off too"
for name in ("cosine", "euclidean", "cityblock"):
    assert not np.isclose(seen[name][0], seen[name][1]), f"{name} of int8 no longer wraps"
PY
