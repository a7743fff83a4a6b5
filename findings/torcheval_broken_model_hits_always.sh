#!/usr/bin/env bash
# torcheval: a model whose scores are all equal, or all NaN, has a hit rate of 100 % at 1.
#
# Expected: among 40 people equal scores hit in 1 of 40, and NaN never.
# Found: the rank is the number of scores larger than the match's. Nothing is larger than an equal score or than NaN,
# so every query hits, and the reciprocal rank is 1. multiclass_accuracy takes the argmax for k = 1 (2.5 %) and
# the same count for k = 2 and more (100 %), so top-1 and top-5 of one model tell two stories.
# Versions: torcheval 0.0.7, torch 2.13.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   random   : hit rate at 1 2.5%, reciprocal rank 0.12, accuracy at 1 2.5%, at 5 17.5%
#   all equal: hit rate at 1 100.0%, reciprocal rank 1.00, accuracy at 1 2.5%, at 5 100.0%
#   all NaN  : hit rate at 1 100.0%, reciprocal rank 1.00, accuracy at 1 2.5%, at 5 100.0%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torcheval==0.0.7 torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import torch
from torcheval.metrics.functional import hit_rate, multiclass_accuracy, reciprocal_rank

torch.manual_seed(0)
person = torch.arange(40)
seen = {}
for name, scores in {
    "random": torch.rand(40, 40),
    "all equal": torch.ones(40, 40),
    "all NaN": torch.full((40, 40), float("nan")),
}.items():
    seen[name] = (
        hit_rate(scores, person, k=1).mean().item(),
        reciprocal_rank(scores, person).mean().item(),
        multiclass_accuracy(scores, person, k=1).item(),
        multiclass_accuracy(scores, person, k=5).item(),
    )
    hits, mrr, top1, top5 = seen[name]
    print(f"{name:9}: hit rate at 1 {hits:.1%}, reciprocal rank {mrr:.2f}, accuracy at 1 {top1:.1%}, at 5 {top5:.1%}")
assert seen["random"][0] < 0.1, "random scores hit too often to tell"
for name in ("all equal", "all NaN"):
    assert seen[name][0] == seen[name][1] == seen[name][3] == 1 and seen[name][2] < 0.03, "broken models now miss"
PY
