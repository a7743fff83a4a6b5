#!/usr/bin/env bash
# statsmodels: cluster-robust errors take all photographs without an identity for photographs of one person.
#
# Expected: a missing group label is refused, or its rows are dropped, as a missing value in the data is.
# Found: NaN is a cluster like any other. The standard error of a mean over 40 people, of whom 20 have lost their
# label, is neither that of the 40 nor that of the 20 which are left; nothing is said.
# Versions: statsmodels 0.15.0, pandas 3.1.1, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   40 people, all known      : standard error 0.0183, 400 rows
#   20 known, 20 NaN          : standard error 0.0153, 400 rows
#   20 known, 20 'one person' : standard error 0.0153, 400 rows
#   the 20 known alone        : standard error 0.0280, 200 rows
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile statsmodels==0.15.0 pandas==3.1.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

rng = np.random.default_rng(3)
person = np.repeat(np.arange(40), 10)
table = pd.DataFrame({"person": person, "score": 0.5 + 0.1 * rng.normal(size=40)[person] + 0.05 * rng.normal(size=400)})
table["known"] = table.person.where(table.person < 20)


def error(rows, groups):
    fit = smf.ols("score ~ 1", rows).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return fit.bse.iloc[0], int(fit.nobs)


left = table.dropna()
seen = {
    "40 people, all known": error(table, table.person),
    "20 known, 20 NaN": error(table, table.known),
    "20 known, 20 'one person'": error(table, table.known.fillna(-1)),
    "the 20 known alone": error(left, left.known),
}
for name, (value, rows) in seen.items():
    print(f"{name:26}: standard error {value:.4f}, {rows} rows")
all_known, unknown, one, _ = [value for value, _ in seen.values()]
assert np.isclose(unknown, one) and not np.isclose(unknown, all_known), "NaN is no longer a cluster"
PY
