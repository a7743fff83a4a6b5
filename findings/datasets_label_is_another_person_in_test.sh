#!/usr/bin/env bash
# datasets: `class_encode_column` on a DatasetDict counts the people of each split on its own.
#
# Expected: one list of names for train and test, as the call is on both, so that a label is one person.
# Found: each split gets a list of the people it has. Gallery and query splits that lack a person or two number the
# others differently, and an evaluation by label counts strangers as matches. The numbers alone do not tell: only the
# names in `features`. Cast both to one ClassLabel(names=...) of all people.
# Versions: datasets 5.2.0, pyarrow 26.0.1, pandas 3.1.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   gallery: label 0 is p00
#   query: label 0 is p03
#   rank-1 by class_encode_column 0%, one ClassLabel 100%, names 100%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import datasets
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict

datasets.disable_progress_bars()
people = [f"p{number:02}" for number in range(20)]
rng = np.random.default_rng(0)
face = dict(zip(people, rng.normal(size=(20, 32))))


def photographs(of):
    return Dataset.from_dict({"person": of, "embedding": [face[p] + 0.1 * rng.normal(size=32) for p in of]})


hands = DatasetDict(gallery=photographs(people), query=photographs(people[3:]))


def rank1(splits):
    first = np.argmax(np.array(splits["query"]["embedding"]) @ np.array(splits["gallery"]["embedding"]).T, axis=1)
    return (np.array(splits["gallery"]["person"])[first] == np.array(splits["query"]["person"])).mean()


encoded = hands.class_encode_column("person")
one_list = hands.cast_column("person", ClassLabel(names=people))
found = {"class_encode_column": rank1(encoded), "one ClassLabel": rank1(one_list), "names": rank1(hands)}
for split in hands:
    print(f"{split}: label 0 is {encoded[split].features['person'].int2str(0)}")
print("rank-1 by " + ", ".join(f"{name} {value:.0%}" for name, value in found.items()))
assert found == {"class_encode_column": 0, "one ClassLabel": 1, "names": 1}, "one list of names for all splits"
PY
