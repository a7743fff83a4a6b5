#!/usr/bin/env bash
# torchmetrics: the EER of CLIP's similarities is 5 % or 37 %, by whether they carry CLIP's logit scale of 100.
#
# Expected: an EER depends on the order of the scores alone, so a factor cannot change it.
# Found: as soon as one score leaves 0..1, all are passed through a sigmoid in their own precision; in float32 that is
# exactly 1 above 17, and every similarity above 0.17 becomes one tie. Thresholds come back after the sigmoid too.
# Versions: torchmetrics 1.9.0, torch 2.13.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   scale   1: EER 5.0%, 2200 distinct scores after the sigmoid
#   scale  10: EER 5.0%, 2198 distinct scores after the sigmoid
#   scale 100: EER 37.0%, 416 distinct scores after the sigmoid
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import torch
from torchmetrics.classification import BinaryEER

rng = np.random.default_rng(1)
cosine = np.r_[rng.normal(0.8, 0.1, 200), rng.normal(0.3, 0.2, 2000)].astype("float32")
mated = torch.tensor([1] * 200 + [0] * 2000)
eer = {scale: BinaryEER()(torch.tensor(cosine * scale), mated).item() for scale in (1, 10, 100)}
for scale, value in eer.items():
    distinct = torch.tensor(cosine * scale).sigmoid().unique().numel()
    print(f"scale {scale:3}: EER {value:.1%}, {distinct} distinct scores after the sigmoid")
assert eer[1] < 0.06 and eer[100] > 0.3, "the EER no longer depends on the scale"
PY
