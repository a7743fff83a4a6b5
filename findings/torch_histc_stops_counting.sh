#!/usr/bin/env bash
# torch: `histc` and `histogram` of 40 million scores count 16,777,216 in a bin and no more.
#
# Expected: a histogram of float32 scores counts them all, whatever the dtype it is given in.
# Found: the counts are kept in the dtype of the scores and go up by one: at 2^24 a float32 number plus one is the same
# number. Each thread stops there, so the count depends on the threads too. 8,000 people have 32 million non-mated
# pairs, most of them in a few bins: the FMR of such a histogram is too high, for what it divides by is too
# small. Give float64 scores, or numpy's histogram.
# Versions: torch 2.13.0 (2.15.0 does the same), numpy 2.4.6. Date: 2026-11-27.
# Output:
#   torch.histc: 16,817,216 counted, FMR at 0.9 0.238%
#   torch.histogram: 16,817,216 counted, FMR at 0.9 0.238%
#   torch.histc, float64: 40,000,000 counted, FMR at 0.9 0.100%
#   numpy.histogram: 40,000,000 counted, FMR at 0.9 0.100%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
import torch

torch.set_num_threads(1)
scores = torch.full((40_000_000,), 0.35)
scores[:40_000] = 0.95
count = {
    "torch.histc": torch.histc(scores, 10, 0, 1).numpy(),
    "torch.histogram": torch.histogram(scores, 10, range=(0.0, 1.0)).hist.numpy(),
    "torch.histc, float64": torch.histc(scores.double(), 10, 0, 1).numpy(),
    "numpy.histogram": np.histogram(scores.numpy(), 10, (0, 1))[0],
}
for name, counts in count.items():
    print(f"{name}: {counts.sum():,.0f} counted, FMR at 0.9 {counts[9] / counts.sum():.3%}")
assert count["torch.histc"][3] == count["torch.histogram"][3] == 2**24, "counted beyond 2^24"
assert count["numpy.histogram"].sum() == count["torch.histc, float64"].sum() == 40_000_000
PY
