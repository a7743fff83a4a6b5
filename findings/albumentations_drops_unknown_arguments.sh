#!/usr/bin/env bash
# albumentations: an argument that a transform does not know is a warning, and the default is used in its place.
#
# Expected: a misspelt or outdated argument stops the training with an error.
# Found: `value=` (its name before 2.0) and `bordermode=` are dropped with a UserWarning, which a data loader's
# worker writes to a log at best. The turned hand stands on black, or is mirrored at the edge, instead of on the
# white asked for.
# Versions: albumentations 2.0.8, opencv-python-headless 4.12.0.88, numpy 2.2.6. Date: 2026-11-27.
# Output:
#   Rotate(fill=255): corner 255, warnings 0, errors 0
#   Rotate(value=255): corner   0, warnings 1, errors 0
#   Rotate(bordermode=0, fill=255): corner 255, warnings 1, errors 0
#   Rotate(border_mode=4, fil=255): corner 180, warnings 1, errors 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile albumentations==2.0.8 opencv-python-headless==4.12.0.88 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import os
import warnings

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
import numpy as np

warnings.simplefilter("always")
hand = np.full((64, 64, 3), 180, np.uint8)
corner = {}
for name, arguments in {
    "fill=255": {"border_mode": 0, "fill": 255},
    "value=255": {"border_mode": 0, "value": 255},
    "bordermode=0, fill=255": {"bordermode": 0, "fill": 255},
    "border_mode=4, fil=255": {"border_mode": 4, "fil": 255},
}.items():
    with warnings.catch_warnings(record=True) as said:
        turn = A.Rotate(limit=(45, 45), p=1.0, **arguments)
    corner[name] = int(turn(image=hand)["image"][0, 0, 0])
    print(f"Rotate({name}): corner {corner[name]:3}, warnings {len(said)}, errors 0")
assert corner["fill=255"] == 255 and corner["value=255"] == 0, "an unknown argument is no longer dropped"
PY
