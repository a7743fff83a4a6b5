#!/usr/bin/env bash
# safetensors: a numpy array that is transposed or strided is saved as other numbers, without a word.
#
# Expected: what is saved is what is loaded, or the array is refused, as safetensors.torch does.
# Found: safetensors.numpy writes the memory as it lies and the shape as it is named. Embeddings kept as (size, images)
# and turned for the file, in Fortran's order, or every second column come back finite, with the right shape and dtype,
# and scrambled: rank-1 is chance. The docstring asks for contiguous tensors; nothing checks. np.concatenate of Fortran
# arrays is one, too. Give np.ascontiguousarray(embeddings).
# Versions: safetensors 0.8.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   C order: loaded equals saved: True, rank-1 100%
#   transposed: loaded equals saved: False, rank-1 2%
#   Fortran order: loaded equals saved: False, rank-1 2%
#   every second column: loaded equals saved: False, rank-1 1%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile safetensors==0.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from safetensors.numpy import load_file, save_file

rng = np.random.default_rng(0)
people = rng.normal(size=(100, 64))
gallery, queries = (people + 0.3 * rng.normal(size=people.shape) for _ in range(2))
rank1 = {}
views = {
    "C order": queries,
    "transposed": np.ascontiguousarray(queries.T).T,
    "Fortran order": np.asfortranarray(queries),
    "every second column": np.repeat(queries, 2, axis=1)[:, ::2],
}
for name, view in views.items():
    save_file({"embeddings": view}, "queries.safetensors")
    loaded = load_file("queries.safetensors")["embeddings"]
    assert loaded.shape == view.shape and loaded.dtype == view.dtype and np.isfinite(loaded).all()
    rank1[name] = ((loaded @ gallery.T).argmax(axis=1) == np.arange(100)).mean()
    print(f"{name}: loaded equals saved: {np.array_equal(loaded, view)}, rank-1 {rank1[name]:.0%}")
assert rank1["C order"] == 1 and max(value for name, value in rank1.items() if name != "C order") < 0.1, "saved whole"
PY
