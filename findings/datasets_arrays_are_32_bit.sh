#!/usr/bin/env bash
# datasets: a column of type float64 comes as float32 with `with_format("numpy")`, and a burst has no seconds.
#
# Expected: the array has the dtype that `features` names.
# Found: numpy's and torch's format round every float column to float32, unsaid; integers stay. Times in seconds since
# 1970 then lie 128 s apart: photographs of a burst, 2 s apart, are of the same moment, and a rule that leaves out
# whatever was taken within 60 s of the gallery's leaves out the wrong ones. Scores lose their last digits likewise.
# Give `with_format("numpy", dtype=np.float64)`; the pandas and arrow formats keep it.
# Versions: datasets 5.2.0, pyarrow 26.0.1, pandas 3.1.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   features: float64
#   numpy: float32, seconds after the first [0.0, 0.0, 0.0, 0.0, 128.0, 256.0], within 60 s: 4
#   numpy, dtype=np.float64: float64, seconds after the first [0.0, 2.0, 4.0, 90.0, 150.0, 300.0], within 60 s: 3
#   pandas: float64, seconds after the first [0.0, 2.0, 4.0, 90.0, 150.0, 300.0], within 60 s: 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import numpy as np
from datasets import Dataset

start = 1_764_280_000.0
taken = [start + seconds for seconds in (0, 2, 4, 90, 150, 300)]
hands = Dataset.from_dict({"taken": taken, "shot": range(6)})
print(f"features: {hands.features['taken'].dtype}")
near = {}
for name, form in {"numpy": {}, "numpy, dtype=np.float64": {"dtype": np.float64}, "pandas": {}}.items():
    times = np.asarray(hands.with_format(name.partition(",")[0], **form)[:]["taken"])
    near[name] = int((np.abs(times - times[0]) <= 60).sum())
    print(f"{name}: {times.dtype}, seconds after the first {(times - times[0]).tolist()}, within 60 s: {near[name]}")
assert near["pandas"] == near["numpy, dtype=np.float64"] == 3 and near["numpy"] != 3, "float64 stays"
PY
