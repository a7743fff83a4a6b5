#!/usr/bin/env bash
# scikit-learn: DetCurveDisplay of a model without errors is an empty figure, and nothing says so.
#
# Expected: a line along the edges, or a warning.
# Found: det_curve keeps one point, (0, 0); its deviates are clipped to -8, the axes end at -3, and no line, mark or
# word is in the picture. The best model of a comparison is the one that a reader does not see.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6, matplotlib 3.11.2. Date: 2026-11-27.
# Output:
#   1 point(s), at -8.13, -8.13; the axes from -3
#   pixels that the curve changes: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6 matplotlib==3.11.2
cd "$folder"
venv/bin/python -W error - <<'PY'
import matplotlib
import numpy as np

matplotlib.use("Agg")
from sklearn.metrics import DetCurveDisplay

rng = np.random.default_rng(0)
labels = np.repeat([0, 1], 50)
scores = np.r_[rng.uniform(0, 0.4, 50), rng.uniform(0.6, 1, 50)]
shown = DetCurveDisplay.from_predictions(labels, scores, name="perfect")
x, y = shown.line_.get_data()
print(f"{len(x)} point(s), at {x[0]:.2f}, {y[0]:.2f}; the axes from {shown.ax_.get_xlim()[0]:.0f}")
line = shown.line_.get_color()
shown.line_.figure.canvas.draw()
before = np.array(shown.line_.figure.canvas.buffer_rgba())
shown.ax_.get_legend().remove()
shown.line_.figure.canvas.draw()
without_legend = np.array(shown.line_.figure.canvas.buffer_rgba())
shown.line_.remove()
shown.ax_.figure.canvas.draw()
pixels = int((without_legend != np.array(shown.ax_.figure.canvas.buffer_rgba())).any(-1).sum())
print(f"pixels that the curve changes: {pixels}")
assert pixels == 0, "the curve of a perfect model is now seen"
PY
