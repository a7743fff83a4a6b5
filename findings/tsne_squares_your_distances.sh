#!/usr/bin/env bash
# scikit-learn: drawing a map of a distance matrix, or clustering it, changes the matrix that was passed in.
#
# Expected: `fit` reads its argument; the figures computed from the same matrix afterwards are those of before.
# Found: TSNE(method="exact") squares a precomputed matrix in place and says nothing. HDBSCAN writes its own
# reachability distances into it (the warning it gives is about a changing default); other estimators leave it. A
# notebook that draws the map first and then reads FNMR at a fixed distance reports another model.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   before               : FNMR 28.3%, FMR  0.8% at distance 0.9
#   after DBSCAN         : FNMR 28.3%, FMR  0.8% at distance 0.9
#   after TSNE barnes_hut: FNMR 28.3%, FMR  0.8% at distance 0.9
#   after TSNE exact     : FNMR 18.3%, FMR  1.4% at distance 0.9
#   after HDBSCAN        : FNMR 98.3%, FMR  0.2% at distance 0.9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import numpy as np
from sklearn.cluster import DBSCAN, HDBSCAN
from sklearn.manifold import TSNE

rng = np.random.default_rng(0)
people = np.repeat(np.arange(20), 3)
embeddings = rng.normal(size=(20, 16))[people] + 0.8 * rng.normal(size=(60, 16))
embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
mated = (people[:, None] == people[None]) & ~np.eye(60, dtype=bool)
other = people[:, None] != people[None]
fnmr = {"before": (distances[mated] > 0.9).mean()}
print(f"before               : FNMR {fnmr['before']:5.1%}, FMR {(distances[other] <= 0.9).mean():5.1%} at distance 0.9")
for name, estimator in {
    "DBSCAN": DBSCAN(metric="precomputed"),
    "TSNE barnes_hut": TSNE(metric="precomputed", init="random", perplexity=5, random_state=0),
    "TSNE exact": TSNE(metric="precomputed", init="random", perplexity=5, method="exact", random_state=0),
    "HDBSCAN": HDBSCAN(metric="precomputed"),
}.items():
    mine = distances.copy()
    estimator.fit(mine)
    fnmr[name] = (mine[mated] > 0.9).mean()
    print(f"after {name:15}: FNMR {fnmr[name]:5.1%}, FMR {(mine[other] <= 0.9).mean():5.1%} at distance 0.9")
assert fnmr["DBSCAN"] == fnmr["TSNE barnes_hut"] == fnmr["before"], "more of them write into the matrix"
assert fnmr["TSNE exact"] != fnmr["before"] != fnmr["HDBSCAN"], "the matrix is now left alone"
PY
