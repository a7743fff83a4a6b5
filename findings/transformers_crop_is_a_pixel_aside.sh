#!/usr/bin/env bash
# transformers' CLIP image processor cuts one pixel beside OpenAI's centre crop for every other size of photograph.
#
# Expected: "resize the short side to 224, cut the centre" gives OpenAI's picture, within one grey level.
# Found: where the number of pixels left over is odd, OpenAI's code rounds half of it to even and transformers cuts it
# down, so the whole hand may move by one pixel (640 x 427 becomes 335 x 224, 111 left over: 56 or 55). The weights were
# trained with the first. Where it is even, and where half of it rounds down, the pictures are one.
# Versions: transformers 5.24.0, torch 2.13.0, pillow 13.0.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   800 x 600, 74 pixels left over: largest difference 0 grey levels
#   640 x 427, 111 pixels left over: largest difference 165 grey levels
#   1620 x 1200, 78 pixels left over: largest difference 0 grey levels
#   4032 x 3024, 74 pixels left over: largest difference 0 grey levels
#   1920 x 1080, 174 pixels left over: largest difference 0 grey levels
#   301 x 225, 75 pixels left over: largest difference 124 grey levels
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile transformers==5.24.0 torch==2.13.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import numpy as np
from PIL import Image, ImageDraw
from transformers import CLIPImageProcessorPil

processor = CLIPImageProcessorPil()
hand = Image.new("RGB", (800, 600), (230, 230, 225))
draw = ImageDraw.Draw(hand)
for left in range(150, 700, 110):
    draw.rounded_rectangle((left, 60, left + 80, 400), 40, fill=(200, 150, 120), outline=(90, 50, 40))
draw.rounded_rectangle((150, 300, 670, 580), 60, fill=(205, 155, 125), outline=(80, 40, 30), width=3)
largest = {}
for width, height in ((800, 600), (640, 427), (1620, 1200), (4032, 3024), (1920, 1080), (301, 225)):
    picture = hand.resize((width, height))
    wide = int(224 * width / height)
    left = round((wide - 224) / 2)
    openai = np.asarray(picture.resize((wide, 224), Image.Resampling.BICUBIC).crop((left, 0, left + 224, 224)))
    pixels = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])
    levels = (pixels.transpose(1, 2, 0) * processor.image_std + processor.image_mean) * 255
    largest[width] = np.abs(levels - openai).max()
    print(f"{width} x {height}, {wide - 224} pixels left over: largest difference {largest[width]:.0f} grey levels")
assert largest[800] < 2 and largest[640] > 20, "the two crops now agree"
PY
