#!/usr/bin/env bash
# pyeer: one NaN among 20,000 non-mated scores makes an EER of 26 % one of 50 %, and one of 11 % one of 19 %.
#
# Expected: a refusal, or one pair more or less: a thousandth.
# Found: nothing is said; the error rates are of another threshold, and how far off depends on the scores (an EER of 0 %
# becomes 2 %). FNMR at an FMR of 0.1 % goes either way. Among the mated a NaN counts as one more rejected pair. Test
# with isnan first.
# Versions: pyeer 0.5.6, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   no NaN: EER 0.0 %, FNMR 0.0 %, mated: EER 0.2 %, FNMR 0.2 %, non-mated: EER 1.6 %, FNMR 1.6 %
#   no NaN: EER 10.8 %, FNMR 55.4 %, mated: EER 11.0 %, FNMR 55.6 %, non-mated: EER 19.0 %, FNMR 50.8 %
#   no NaN: EER 26.4 %, FNMR 69.2 %, mated: EER 26.4 %, FNMR 69.4 %, non-mated: EER 50.2 %, FNMR 99.6 %
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pyeer==0.5.6 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import numpy as np
from pyeer.eer_info import get_eer_stats

rng = np.random.default_rng(0)
moved = []
for mean, spread in ((0.9, 0.05), (0.5, 0.15), (0.4, 0.2)):
    mated, non_mated = rng.normal(mean, spread, 500), rng.normal(0.2, 0.1, 20000)
    cases = {"no NaN": (mated, non_mated), "mated": (np.r_[np.nan, mated[1:]], non_mated)}
    cases["non-mated"] = (mated, np.r_[np.nan, non_mated[1:]])
    found = {name: get_eer_stats(*scores) for name, scores in cases.items()}
    print(", ".join(f"{name}: EER {100 * s.eer:.1f} %, FNMR {100 * s.fmr1000:.1f} %" for name, s in found.items()))
    moved.append(found["non-mated"].eer - found["no NaN"].eer)
assert max(moved) > 0.2, "a NaN does less harm now"
PY
