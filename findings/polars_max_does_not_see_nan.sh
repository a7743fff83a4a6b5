#!/usr/bin/env bash
# polars: the best score of a query is one value by `max` and another by `top_k`, `sort` or `rank`, once one is NaN.
#
# Expected: top_k(1), sort(descending=True).first() and max() are three ways to write one thing.
# Found: max and arg_max pass NaN over; sort, top_k, rank and every comparison hold NaN to be larger than any number.
# The broken pair is the first neighbour, is above every threshold, and the column's maximum looks sound. pandas counts
# the same pair as below.
# Versions: polars 2.1.0, pandas 3.1.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   first neighbour by max, arg_max   : p03 at 0.9
#   first neighbour by top_k          : p02 at nan
#   first neighbour by sort           : p02 at nan
#   first neighbour by rank           : p02 at nan
#   first neighbour by pandas nlargest: p03 at 0.9
#   pairs accepted at 0.95: {'polars': 1, 'pandas': 0}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile polars==2.1.0 pandas==3.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import pandas as pd
import polars as pl

pairs = {"gallery": ["p01", "p02", "p03", "p04"], "score": [0.3, float("nan"), 0.9, 0.1]}
table, frame = pl.DataFrame(pairs), pd.DataFrame(pairs)
first = {
    "max, arg_max": (table["score"].max(), table["gallery"][table["score"].arg_max()]),
    "top_k": table.top_k(1, by="score").select("score", "gallery").row(0),
    "sort": table.sort("score", descending=True).select("score", "gallery").row(0),
    "rank": table.filter(pl.col("score").rank(descending=True) == 1).select("score", "gallery").row(0),
    "pandas nlargest": tuple(frame.nlargest(1, "score")[["score", "gallery"]].iloc[0]),
}
for name, (score, who) in first.items():
    print(f"first neighbour by {name:15}: {who} at {score}")
accepted = {"polars": table.filter(pl.col("score") >= 0.95).height, "pandas": int((frame.score >= 0.95).sum())}
print("pairs accepted at 0.95:", accepted)
people = {name: who for name, (_, who) in first.items()}
assert people["max, arg_max"] == "p03" and people["top_k"] == people["sort"] == people["rank"] == "p02", "they agree"
assert accepted == {"polars": 1, "pandas": 0}, "the comparison with NaN has changed"
PY
