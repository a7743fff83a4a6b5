#!/usr/bin/env bash
# torchmetrics: a match whose score is not above zero is no match, and mean average precision rises by it.
#
# Expected: average precision depends on the order alone; shifting all scores, or giving negative distances, changes
# nothing, as in scikit-learn.
# Found: retrieval_average_precision strikes matches with scores of 0 or less from the list of matches. Pairs whose
# cosine falls below zero, the hardest, no longer count against the model; of negated distances no match is left.
# Versions: torchmetrics 1.9.0, torch 2.13.0, scikit-learn 1.9.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   cosine          : torchmetrics 34.7%, scikit-learn 32.7%
#   (1 + cosine) / 2: torchmetrics 32.7%, scikit-learn 32.7%
#   cosine - 1      : torchmetrics 0.0%, scikit-learn 32.7%
#   matches with a cosine of 0 or less: 77 of 600
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torchmetrics==1.9.0 torch==2.13.0 scikit-learn==1.9.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import torch
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize
from torchmetrics.retrieval import RetrievalMAP

torch.manual_seed(0)
people = torch.randn(20, 32)
owner, asked = torch.arange(20).repeat_interleave(10), torch.arange(20).repeat_interleave(3)
gallery = normalize(people[owner] + 2 * torch.randn(200, 32))
cosine = normalize(people[asked] + 2 * torch.randn(60, 32)) @ gallery.T
match = asked[:, None] == owner[None]
query = torch.arange(60)[:, None].expand_as(cosine)
found = {}
for name, scores in {"cosine": cosine, "(1 + cosine) / 2": (1 + cosine) / 2, "cosine - 1": cosine - 1}.items():
    exact = sum(average_precision_score(m, s) for m, s in zip(match, scores, strict=True)) / 60
    found[name] = RetrievalMAP()(scores.flatten(), match.flatten(), query.flatten()).item()
    print(f"{name:16}: torchmetrics {found[name]:.1%}, scikit-learn {exact:.1%}")
print(f"matches with a cosine of 0 or less: {(cosine[match] <= 0).sum()} of {match.sum()}")
assert abs(found["(1 + cosine) / 2"] - exact) < 1e-4 < found["cosine"] - exact, "negative matches count"
assert found["cosine - 1"] == 0, "negative matches count"
PY
