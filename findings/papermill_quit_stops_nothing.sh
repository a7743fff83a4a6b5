#!/usr/bin/env bash
# papermill: `quit()` in a cell stops nothing, and a notebook whose kernel was killed says "completed" in every cell.
#
# Expected: `quit()` ends the run there; after a killed kernel the output notebook says failed.
# Found: quit() is answered and the next cells run. After a kill papermill exits with an error, but the notebook it
# leaves has no exception, no outputs, and the status "completed" in every cell, the one that was killed and those
# never begun. Who collects notebooks, not exit codes, counts it as done.
# Versions: papermill 2.7.0, nbclient 0.11.0, ipykernel 7.4.0. Date: 2026-11-27.
# Output:
#   quit(): exit code 0, next cell reached: True, status ['completed', 'completed']
#   import os; os.kill(os.getpid(), 9): exit code an error, next cell reached: False, status ['completed', 'completed']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile papermill==2.7.0 nbclient==0.11.0 ipykernel==7.4.0
cd "$folder"
venv/bin/python - <<'PY'
import subprocess
import sys

import nbformat


def run(cell):
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(source) for source in (cell, "print('reached')")]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, "in.ipynb")
    done = subprocess.run([sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb"], capture_output=True)
    cells = nbformat.read("out.ipynb", 4).cells
    said = "".join(output.get("text", "") for output in cells[-1].outputs)
    return done.returncode != 0, "reached" in said, [cell.metadata.papermill.status for cell in cells]


found = {cell: run(cell) for cell in ("quit()", "import os; os.kill(os.getpid(), 9)")}
for cell, (failed, reached, status) in found.items():
    print(f"{cell}: exit code {'an error' if failed else 0}, next cell reached: {reached}, status {status}")
assert list(found.values()) == [(False, True, ["completed"] * 2), (True, False, ["completed"] * 2)], "another outcome"
PY
