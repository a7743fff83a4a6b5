#!/usr/bin/env bash
# scikit-learn: `PCA(whiten=True)` of fewer images than dimensions makes one number of a new person's embedding.
#
# Expected: 200 training images span at most 199 directions; those are whitened, and the rest is left out.
# Found: n_components is 200 by default, and the last direction has no variance at all but rounding. It is whitened
# too, by a division by 1e-15: of other people that coordinate comes out as 1e15 beside others of about 10, so that all
# cosines are 1 or -1 and rank-1 is chance. One component fewer, and all is well. No warning.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   not whitened: rank-1 of 60 strangers 100%
#   n_components=None: 200 kept, rank-1 of strangers 2%, their last coordinate up to 10^15
#   n_components=199: 199 kept, rank-1 of strangers 100%, their last coordinate up to 10^1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from sklearn.decomposition import PCA

rng = np.random.default_rng(0)
spread = rng.normal(size=(512, 512)) * np.geomspace(1, 0.05, 512)


def photographs(people):
    person = np.repeat(rng.normal(size=(people, 512)), 4, axis=0)
    return (person + 0.5 * rng.normal(size=person.shape)) @ spread.T


def rank1(embeddings):
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = units[1::4] @ units[::4].T
    return (cosines.argmax(axis=1) == np.arange(len(cosines))).mean()


train, strangers = photographs(50), photographs(60)
print(f"not whitened: rank-1 of 60 strangers {rank1(strangers):.0%}")
found = {}
for n_components in (None, 199):
    pca = PCA(n_components, whiten=True).fit(train)
    new = pca.transform(strangers)
    digits = np.log10(np.abs(new[:, -1]).max())
    found[pca.n_components_] = rank1(new)
    print(
        f"n_components={n_components}: {pca.n_components_} kept, rank-1 of strangers {rank1(new):.0%}, "
        f"their last coordinate up to 10^{digits:.0f}"
    )
assert found[200] < 0.1 and found[199] == 1, "the direction without variance is left out"
PY
