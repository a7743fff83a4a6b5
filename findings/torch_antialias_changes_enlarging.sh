#!/usr/bin/env bash
# torch: the `antialias` flag of bicubic resizing changes the answer when an image or a grid is ENLARGED.
#
# Expected: antialiasing widens the filter when shrinking; enlarging has nothing to smooth, so both give the same
# numbers.
# Found: the flag also changes the bicubic kernel's constant (a = -0.75 without, -0.5 with, as in Pillow). Position
# embeddings enlarged from 7 x 7 to 14 x 14 differ by up to a third of their spread; loaders of CLIP weights differ
# in the flag (open_clip and timm set it, transformers does not), so one checkpoint at one new image size is two
# models.
# Versions: torch 2.13.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   bilinear 7x7 to 14x14: largest difference 0.0000, spread of the values 1.00
#   bicubic  7x7 to 14x14: largest difference 0.3502, spread of the values 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import torch
import torch.nn.functional as F

torch.manual_seed(0)
grid = torch.randn(1, 64, 7, 7)
gap = {}
for mode in ("bilinear", "bicubic"):
    sizes = {"size": (14, 14), "mode": mode, "align_corners": False}
    plain, smooth = F.interpolate(grid, **sizes), F.interpolate(grid, antialias=True, **sizes)
    gap[mode] = (plain - smooth).abs().max().item()
    print(f"{mode:8} 7x7 to 14x14: largest difference {gap[mode]:.4f}, spread of the values {grid.std():.2f}")
assert gap["bilinear"] < 1e-5 and gap["bicubic"] > 0.05, "enlarging no longer depends on the flag"
PY
