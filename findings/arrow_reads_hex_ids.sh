#!/usr/bin/env bash
# Arrow's CSV reader (and pandas with engine="pyarrow") reads ids with a leading "0x" as hexadecimal numbers.
#
# Expected: the engine changes the speed, not the ids; "0x10" is text in both, as a column with "12ab" is.
# Found: pandas' own reader keeps "0x10"; Arrow makes 16 of it. Ids cut from a hash merge with plain numbers ("0x10" and
# "16" are one person), and a manifest read by one engine does not join with the scores read by the other.
# Versions: pandas 3.1.1, pyarrow 26.0.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   c        ['0x10', '16', '0x1f']  3 people
#   pyarrow  [16, 16, 31]  2 people
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import pandas as pd

with open("manifest.csv", "w") as out:
    out.write("subject,image\n0x10,a.jpg\n16,b.jpg\n0x1f,c.jpg\n")
people = {engine: pd.read_csv("manifest.csv", engine=engine).subject for engine in ("c", "pyarrow")}
for engine, column in people.items():
    print(f"{engine:8} {column.tolist()}  {column.nunique()} people")
assert people["c"].nunique() == 3 and people["pyarrow"].tolist() == [16, 16, 31], "the engines now agree"
PY
