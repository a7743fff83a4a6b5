#!/usr/bin/env bash
# transformers: CLIP's image processor makes nearly black pictures of photographs in 0..1 without a word.
#
# Expected: floats in 0..1, as torchvision's ToTensor and matplotlib give, are taken as they are, or at least warned of
# as "already rescaled images", as version 4's processor on numpy did.
# Found: they are divided by 255 again without a warning or a log line. All photographs become one picture to 1 part in
# 255: a cosine of 1.0000 between the pixels of a white and of a black page, so everybody matches everybody.
# Versions: transformers 5.24.0, torch 2.13.0, pillow 13.0.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   messages below are from the processor
#   0..255: white page  2.050, black page -1.675, cosine -0.9927
#   0..1  : white page -1.660, black page -1.675, cosine  1.0000
#   warnings: 0
#   log lines that speak of rescaling: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile transformers==5.24.0 torch==2.13.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
venv/bin/python - 2>said.txt <<'PY'
import logging
import warnings

import numpy as np
from transformers import CLIPImageProcessorPil

warnings.simplefilter("always")
logging.basicConfig(level=logging.WARNING)
print("messages below are from the processor", flush=True)
processor = CLIPImageProcessorPil()
pages = {"white page": np.full((300, 300, 3), 255, "uint8"), "black page": np.zeros((300, 300, 3), "uint8")}
cosine = {}
with warnings.catch_warnings(record=True) as said:
    for name, convert in {"0..255": lambda p: p, "0..1": lambda p: p.astype("float32") / 255}.items():
        white, black = (
            np.asarray(processor(convert(page), return_tensors="np")["pixel_values"]).ravel() for page in pages.values()
        )
        cosine[name] = float(white @ black / np.linalg.norm(white) / np.linalg.norm(black))
        print(f"{name:6}: white page {white.mean():6.3f}, black page {black.mean():6.3f}, cosine {cosine[name]:7.4f}")
print(f"warnings: {len(said)}")
assert cosine["0..255"] < 0 and cosine["0..1"] > 0.9999 and not said, "floats are rescaled otherwise"
PY
lines=$(grep -ci rescale said.txt || true)
echo "log lines that speak of rescaling: $lines"
test "$lines" = 0
