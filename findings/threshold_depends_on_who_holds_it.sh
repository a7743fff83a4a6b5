#!/usr/bin/env bash
# pandas, polars, Arrow, DuckDB, numpy: how many float32 scores reach 0.7 depends on who holds the 0.7.
#
# Expected: `score >= 0.7` on one column of two-decimal scores in float32 counts the same pairs everywhere.
# Found: a literal is rounded to float32 first and the scores of 0.70 are accepted; the same threshold out of a column,
# out of np.quantile or in Arrow is 64-bit, the scores are widened, and every 0.70 falls below it (float32's 0.7 is
# 0.69999999). Each library draws its own border between the two.
# Versions: pandas 3.1.1, polars 2.1.0, pyarrow 26.0.1, duckdb 2.0.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   numpy          : 326 pairs reach the literal 0.7, 319 the 0.7 of a column or a float64
#   pandas         : 326 pairs reach the literal 0.7, 319 the 0.7 of a column or a float64
#   pandas on Arrow: 319 pairs reach the literal 0.7, 319 the 0.7 of a column or a float64
#   polars         : 326 pairs reach the literal 0.7, 319 the 0.7 of a column or a float64
#   Arrow          : 319 pairs reach the literal 0.7, 319 the 0.7 of a column or a float64
#   DuckDB         : 326 pairs reach the literal 0.7, 319 the 0.7 of a column or a float64
#   of two decimals : 326 pairs are 0.70 or more
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pandas==3.1.1 polars==2.1.0 pyarrow==26.0.1 duckdb==2.0.1 \
    numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

score = np.round(np.random.default_rng(0).uniform(size=1000), 2).astype("float32")
frame = pd.DataFrame({"score": score, "limit": 0.7})
arrow = frame.astype({"score": "float[pyarrow]"})
table = pl.DataFrame({"score": score, "limit": 0.7})
at = np.float64(0.7)
sql = "select count(*) from frame where score >= "
accepted = {
    "numpy": ((score >= 0.7).sum(), (score >= at).sum()),
    "pandas": ((frame.score >= 0.7).sum(), (frame.score >= frame.limit).sum()),
    "pandas on Arrow": ((arrow.score >= 0.7).sum(), (arrow.score >= arrow.limit).sum()),
    "polars": (table.filter(pl.col("score") >= 0.7).height, table.filter(pl.col("score") >= pl.col("limit")).height),
    "Arrow": (pc.sum(pc.greater_equal(pa.array(score), 0.7)).as_py(), pc.sum(pc.greater_equal(score, at)).as_py()),
    "DuckDB": (duckdb.sql(sql + "0.7").fetchall()[0][0], duckdb.sql(sql + '"limit"').fetchall()[0][0]),
}
for name, (literal, held) in accepted.items():
    print(f"{name:15}: {literal} pairs reach the literal 0.7, {held} the 0.7 of a column or a float64")
print(f"of two decimals : {(np.round(score.astype(float), 2) >= 0.7).sum()} pairs are 0.70 or more")
literal = {name: int(pair[0]) for name, pair in accepted.items()}
held = {int(pair[1]) for pair in accepted.values()}
assert literal["numpy"] == literal["polars"] == literal["DuckDB"] > literal["Arrow"], "the literals are read otherwise"
assert held == {literal["Arrow"]}, "a float64 threshold is read otherwise"
PY
