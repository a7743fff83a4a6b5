#!/usr/bin/env bash
# torch: of equal scores, `topk` gives the first alone for k=1 and another for k=5, 10 or 100.
#
# Expected: the lowest index first, or at least the same first place for every k.
# Found: on the CPU topk(1) of equal scores is place 0, and the first of topk(5), topk(100) another; sort(descending)
# is stable only on request. Rank-1 of a collapsed or coarse (int8, float16) model depends on how many neighbours were
# asked for: a gallery sorted by person turns it into anything. Count equal scores against the match.
# Versions: torch 2.13.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   1000 equal scores, first place: k=1 0, k=2 0, k=5 3, k=10 8, k=100 686
#   5000 equal scores, first place: k=1 0, k=2 0, k=5 3, k=10 8, k=100 3342
#   argmax 0, stable sort 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import torch

first = {}
for size in (1000, 5000):
    for k in (1, 2, 5, 10, 100):
        first[size, k] = torch.topk(torch.zeros(size), k).indices[0].item()
    print(f"{size} equal scores, first place: " + ", ".join(f"k={k} {first[size, k]}" for k in (1, 2, 5, 10, 100)))
stable = torch.sort(torch.zeros(5000), descending=True, stable=True).indices[0].item()
print(f"argmax {torch.zeros(5000).argmax().item()}, stable sort {stable}")
assert len(set(first.values())) > 1 and stable == 0, "the first of equal scores no longer depends on k"
PY
