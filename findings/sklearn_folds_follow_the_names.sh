#!/usr/bin/env bash
# scikit-learn: people named 1, 2 … and 01, 02 … fall into different folds, with one seed and without any.
#
# Expected: which people share a fold depends on the rows, the seed and who is who, not on how they are written.
# Found: GroupKFold and StratifiedGroupKFold sort the names first ("10" before "2") and deal in that order, shuffled
# or not. The same photographs, read once with leading zeros and once without, are other folds: two papers' "fold 0,
# seed 0" are not comparable, and a model trained on one reading has seen people of the other's test fold.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   GroupKFold, seed None: 0 of 5 folds hold the same people
#   GroupKFold, seed 0: 0 of 5 folds hold the same people
#   StratifiedGroupKFold, seed None: 0 of 5 folds hold the same people
#   StratifiedGroupKFold, seed 0: 0 of 5 folds hold the same people
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

person = np.repeat(np.arange(20), 4)
view = np.tile([0, 0, 1, 1], 20)
shared = {}
for splitter, seed in ((GroupKFold, None), (GroupKFold, 0), (StratifiedGroupKFold, None), (StratifiedGroupKFold, 0)):
    settings = {} if seed is None else {"shuffle": True, "random_state": seed}
    folds = []
    for form in ("{:02d}", "{}"):
        names = np.array([form.format(number) for number in person])
        test = [rows for _, rows in splitter(5, **settings).split(person, view, names)]
        folds.append({frozenset(person[rows]) for rows in test})
    shared[splitter, seed] = len(folds[0] & folds[1])
    print(f"{splitter.__name__}, seed {seed}: {shared[splitter, seed]} of 5 folds hold the same people")
assert max(shared.values()) < 5, "the folds no longer follow the names"
PY
