#!/usr/bin/env bash
# pyeer: `fmr1000`, the FNMR at an FMR of 0.1 %, is taken at 0.2 % where there are 501 to 999 impostor scores.
#
# Expected: the FNMR at the lowest threshold whose FMR is at most 0.1 %; of 501 scores none may be accepted.
# Found: it is the FNMR at the FMR nearest to 0.1 %, from whichever side, and nothing says which. With 501 to 999 scores
# that is one accepted score, so up to 0.2 %: one pair of strangers taken for each other, which decides the real figure,
# does not show in it. Give `fmr0` (none accepted) there; below 1000 scores it is the FNMR at 0.1 %.
# Versions: pyeer 0.5.6, setuptools 80.9.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#    400 impostors: fmr1000 0.983 at an FMR of 0.00%, FNMR at an FMR of at most 0.1 %: 0.983
#    501 impostors: fmr1000 0.700 at an FMR of 0.20%, FNMR at an FMR of at most 0.1 %: 0.983
#    600 impostors: fmr1000 0.700 at an FMR of 0.17%, FNMR at an FMR of at most 0.1 %: 0.983
#    999 impostors: fmr1000 0.820 at an FMR of 0.10%, FNMR at an FMR of at most 0.1 %: 0.983
#   5000 impostors: fmr1000 0.818 at an FMR of 0.10%, FNMR at an FMR of at most 0.1 %: 0.818
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pyeer==0.5.6 setuptools==80.9.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import numpy as np
from pyeer.eer_info import get_eer_stats

rng = np.random.default_rng(0)
genuine, all_impostors = rng.normal(2, 1, 400), rng.normal(size=5000)
all_impostors[0] = 4
found = {}
for n in (400, 501, 600, 999, 5000):
    impostors = all_impostors[:n]
    told = get_eer_stats(genuine, impostors)
    real = (impostors >= told.fmr1000_th).mean()
    lowest = min(t for t in np.r_[np.unique(np.r_[genuine, impostors]), np.inf] if (impostors >= t).mean() <= 0.001)
    found[n] = told.fmr1000, real, (genuine < lowest).mean()
    print(
        f"{n:4} impostors: fmr1000 {told.fmr1000:.3f} at an FMR of {real:.2%}, "
        f"FNMR at an FMR of at most 0.1 %: {found[n][2]:.3f}"
    )
assert found[501][1] > 0.0019 and found[501][0] < found[501][2] - 0.2, "fmr1000 keeps to its FMR"
PY
