#!/usr/bin/env bash
# numba in a notebook: a cell with `cache=True` computes every later run with the first run's parameter.
#
# Expected: a cell that reads a global is compiled anew where the parameters cell gives another number.
# Found: the cache on disk is keyed by the cell's source alone, and the global is a constant in what is stored.
# papermill runs the notebook at a threshold of 0.2, then of 0.9: the second report prints 0.9 and counts at 0.2. Hand
# such a value to the function, or leave `cache` out.
# Versions: numba 0.68.1, numpy 2.4.6, papermill 2.7.0, ipykernel 7.4.0. Date: 2026-11-27.
# Output:
#   -p threshold 0.2: threshold and accepted of 11 scores: 0.2 9
#   -p threshold 0.9: threshold and accepted of 11 scores: 0.9 9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile numba==0.68.1 numpy==2.4.6 papermill==2.7.0 ipykernel==7.4.0
cd "$folder"
venv/bin/python - <<'PY'
import os
import subprocess
import sys

import nbformat

os.environ["IPYTHONDIR"] = os.environ["NUMBA_CACHE_DIR"] = os.path.abspath("cache")
book = nbformat.v4.new_notebook()
parameters = nbformat.v4.new_code_cell("threshold = 0.0", metadata={"tags": ["parameters"]})
body = """import numba, numpy as np
@numba.njit(cache=True)
def accepted(scores):
    return (scores >= threshold).sum()
print(threshold, accepted(np.linspace(0, 1, 11)))"""
book.cells = [parameters, nbformat.v4.new_code_cell(body)]
book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
nbformat.write(book, "in.ipynb")
counts = []
for threshold in ("0.2", "0.9"):
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "-p", "threshold", threshold]
    subprocess.run(command, check=True, capture_output=True)
    text = "".join(o.get("text", "") for cell in nbformat.read("out.ipynb", 4).cells for o in cell.outputs)
    counts.append(text.split()[1])
    print(f"-p threshold {threshold}: threshold and accepted of 11 scores: {text.strip()}")
assert counts == ["9", "9"], "the second run is compiled anew"
PY
