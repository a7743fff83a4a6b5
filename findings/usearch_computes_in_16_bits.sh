#!/usr/bin/env bash
# usearch: an index of float32 embeddings computes in 16 bits unless told otherwise, `exact=True` included.
#
# Expected: an index that is given float32 keeps float32, and `exact=True` finds what a matrix product finds.
# Found: without `dtype` the index is of bfloat16 where the library has a fast path for it on the processor (else
# float16, else float32), and `exact=True` compares those: 2 of 100 queries have another first neighbour.
# With dtype="f32" none has.
# Versions: usearch 2.26.6, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   dtype=None: holds BF16, another first neighbour for 2 of 100 queries
#   dtype=f32: holds F32, another first neighbour for 0 of 100 queries
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile usearch==2.26.6 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from usearch.index import Index

rng = np.random.default_rng(0)
people = rng.normal(size=(100, 512))
gallery = (people[:, None] + 0.15 * rng.normal(size=(100, 5, 512))).reshape(500, 512)
queries = people + 0.15 * rng.normal(size=(100, 512))
gallery = (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).astype("float32")
queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype("float32")
cosine = queries.astype("float64") @ gallery.T.astype("float64")
wrong = {}
for dtype in (None, "f32"):
    index = Index(ndim=512, metric="cos", dtype=dtype)
    index.add(np.arange(500), gallery)
    found = index.search(queries, 1, exact=True).keys[:, 0]
    wrong[dtype] = int((found != cosine.argmax(1)).sum())
    print(f"dtype={dtype}: holds {index.dtype.name}, another first neighbour for {wrong[dtype]} of 100 queries")
assert wrong["f32"] == 0 and wrong[None] > 0, "the default index is now as exact as float32"
PY
