#!/usr/bin/env bash
# Equal scores in a flat faiss index: the first neighbour depends on how many neighbours are asked for.
#
# Expected: among gallery images with equal scores an exact index names the same image first, whatever k is; a tie
# costs no more than the order of the gallery.
# Found: the k lowest ids are kept and listed backwards, so the first neighbour has id k - 1. With one image a person
# and a model that gives everybody the same embedding, the person found at rank 1 is another for every k, and rank-1 of
# the first person is 100 % at k = 1 and 0 % at k = 10.
# Versions: faiss-cpu 1.15.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   k =  1: first neighbour is image 0
#   k =  3: first neighbour is image 2
#   k = 10: first neighbour is image 9
#   k = 30: first neighbour is image 29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile faiss-cpu==1.15.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import faiss
import numpy as np

gallery = np.tile(np.float32([0.6, 0.8, 0, 0]), (40, 1))
index = faiss.IndexFlatIP(4)
index.add(gallery)
first = {}
for k in (1, 3, 10, 30):
    first[k] = int(index.search(gallery[:1], k)[1][0, 0])
    print(f"k = {k:2}: first neighbour is image {first[k]}")
assert first == {1: 0, 3: 2, 10: 9, 30: 29}, "the order of ties no longer depends on k in this way"
PY
