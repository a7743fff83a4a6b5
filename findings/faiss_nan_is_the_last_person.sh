#!/usr/bin/env bash
# A query that is not a number, searched in faiss: the answer is -1, and numpy reads that as the last person.
#
# Expected: a NaN embedding (a half-precision overflow, say) is refused, or comes back with NaN scores.
# Found: it comes back with ids of -1 and scores of -3.4e38, no error. `labels[ids]` takes -1 as "from the end", so the
# broken query is given to whoever stands last in the gallery. A model whose embeddings are all NaN thereby reaches a
# rank-1 of 1 / people, as chance does, and the last person's queries are all correct.
# Versions: faiss-cpu 1.15.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   ids [-1] scores [-3.4028234663852886e+38]
#   rank-1 of p01 on NaN queries: 0%
#   rank-1 of p02 on NaN queries: 0%
#   rank-1 of p03 on NaN queries: 0%
#   rank-1 of p04 on NaN queries: 100%
#   rank-1 of all: 25%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile faiss-cpu==1.15.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import faiss
import numpy as np

rng = np.random.default_rng(0)
people = np.repeat(["p01", "p02", "p03", "p04"], 5)
gallery = rng.normal(size=(20, 8)).astype("float32")
faiss.normalize_L2(gallery)
index = faiss.IndexFlatIP(8)
index.add(gallery)
queries = np.full((20, 8), np.nan, "float32")
scores, ids = index.search(queries, 1)
hit = people[ids[:, 0]] == people
print("ids", sorted(set(ids.ravel().tolist())), "scores", sorted(set(scores.ravel().tolist())))
for person in np.unique(people):
    print(f"rank-1 of {person} on NaN queries: {hit[people == person].mean():.0%}")
print(f"rank-1 of all: {hit.mean():.0%}")
assert set(ids.ravel()) == {-1} and hit[people == "p04"].all() and hit.mean() == 0.25, "answered otherwise"
PY
