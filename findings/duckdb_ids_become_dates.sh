#!/usr/bin/env bash
# DuckDB takes subject ids such as "1-2-3" (person-session-shot) for dates, until somebody has a 13th session.
#
# Expected: hyphens make text of an id, as they do in pandas, polars and Arrow.
# Found: read_csv's sniffer makes dates of the year 1: "1-2-3" becomes 0001-02-03, and "01-02-03" and "1-2-3", two
# people, are one. One row whose middle number is above 12 turns the whole column back into text, so a split joined to
# the same study by its ids matches on one day and not on the next.
# Versions: duckdb 2.0.1, pandas 3.1.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   in the file    ['1-2-3', '1-3-1', '01-02-03']
#   pandas         ['1-2-3', '1-3-1', '01-02-03']
#   duckdb         ['0001-02-03 00:00:00', '0001-03-01 00:00:00', '0001-02-03 00:00:00']
#   with a session 13: ['1-2-3', '1-3-1', '01-02-03', '1-13-1']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile duckdb==2.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import duckdb
import pandas as pd


def subjects(ids):
    with open("split.csv", "w") as out:
        out.write("subject,image\n" + "".join(f"{s},{i}.jpg\n" for i, s in enumerate(ids)))
    rows = duckdb.sql("select subject from read_csv('split.csv') order by image").fetchall()
    return [str(row[0]) for row in rows], pd.read_csv("split.csv").subject.tolist()


people = ["1-2-3", "1-3-1", "01-02-03"]
early, early_pandas = subjects(people)
late, _ = subjects([*people, "1-13-1"])
print("in the file   ", people)
print("pandas        ", early_pandas)
print("duckdb        ", early)
print("with a session 13:", late)
assert early_pandas == people and len(set(early)) == 2 and late[:3] == people, "the sniffer reads such ids otherwise"
PY
