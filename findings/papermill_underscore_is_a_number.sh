#!/usr/bin/env bash
# papermill: `-p subject 1_2` (person 1, session 2) reaches the notebook as the number 12.
#
# Expected: "1_2" is not written like a number, so it stays text; only "007" and "1e5" are in danger.
# Found: papermill asks Python's int(), which allows underscores between digits: "1_2" is 12, "1_2.5" is 12.5, "2024_11"
# is 202411. A study of person 12 is run and recorded, no word said. `-r subject 1_2` passes the text.
# Versions: papermill 2.7.0. Date: 2026-11-27.
# Output:
#   -p subject 1_2: 12
#   -p subject 2024_11: 202411
#   -r subject 1_2: '1_2'
#   -r subject 2024_11: '2024_11'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile papermill==2.7.0
cd "$folder"
venv/bin/python - <<'PY'
import subprocess
import sys

import nbformat

book = nbformat.v4.new_notebook()
cell = nbformat.v4.new_code_cell("subject = None")
cell.metadata["tags"] = ["parameters"]
book.cells = [cell]
book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
nbformat.write(book, "in.ipynb")
seen = {}
for option in ("-p", "-r"):
    for value in ("1_2", "2024_11"):
        command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--prepare-only"]
        subprocess.run([*command, option, "subject", value], check=True, capture_output=True)
        seen[option, value] = nbformat.read("out.ipynb", 4).metadata.papermill.parameters["subject"]
        print(f"{option} subject {value}: {seen[option, value]!r}")
assert seen["-p", "1_2"] == 12 and seen["-r", "1_2"] == "1_2", "papermill reads such a value otherwise"
PY
