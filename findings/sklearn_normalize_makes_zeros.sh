#!/usr/bin/env bash
# scikit-learn: `normalize` turns half-precision embeddings longer than 256 into rows of zeros.
#
# Expected: normalize(x) @ normalize(y).T is cosine_similarity(x, y), at the worst to half precision's three digits.
# Found: normalize keeps float16 and sums the squares in it; above a length of 256 the sum is infinite and the row
# becomes zero, without a warning (numpy's own norm warns of the overflow). All cosines are then 0, and rank-1 is what
# ties give. cosine_similarity converts to float64 first and is right.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   length  21 to  24:   0% of the gallery is zero, rank-1 normalize 100%, cosine_similarity 100%
#   length 211 to 244:   0% of the gallery is zero, rank-1 normalize 100%, cosine_similarity 100%
#   length 253 to 293:  98% of the gallery is zero, rank-1 normalize 3%, cosine_similarity 100%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import normalize

rng = np.random.default_rng(0)
people = rng.normal(size=(100, 512))
owner = np.repeat(np.arange(100), 5)
gallery, queries = people[owner] + 0.15 * rng.normal(size=(500, 512)), people + 0.15 * rng.normal(size=(100, 512))
rank1 = {}
for scale in (1, 10, 12):
    x, y = (queries * scale).astype("float16"), (gallery * scale).astype("float16")
    length = np.linalg.norm(x.astype(float), axis=1)
    zeros = (normalize(y) == 0).all(axis=1).mean()
    scores = {"normalize": normalize(x) @ normalize(y).T, "cosine_similarity": cosine_similarity(x, y)}
    rank1[scale] = {name: (owner[score.argmax(1)] == np.arange(100)).mean() for name, score in scores.items()}
    print(
        f"length {length.min():3.0f} to {length.max():3.0f}: {zeros:4.0%} of the gallery is zero, rank-1 "
        + ", ".join(f"{name} {value:.0%}" for name, value in rank1[scale].items())
    )
assert rank1[1]["normalize"] == rank1[12]["cosine_similarity"] == 1 and rank1[12]["normalize"] < 0.5, "no more zeros"
PY
