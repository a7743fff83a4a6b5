#!/usr/bin/env bash
# trec_eval through Python (pytrec_eval): scores are compared as 32-bit floats, so a winner can lose to its name.
#
# Expected: a match that scores 0.900000001 stands above one that scores 0.9, as Python's floats say.
# Found: both become the same 32-bit float, and ties go to the name that sorts LAST: the match "p001" drops to rank 2
# behind "p002", and "p002" wins though it is the lower by 1e-9.
# Versions: pytrec-eval-terrier 0.5.11, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   match p001 ahead by  1e-06: rank 1
#   match p001 ahead by  1e-09: rank 2
#   match p001 ahead by -1e-09: rank 2
#   match p002 ahead by  1e-06: rank 1
#   match p002 ahead by  1e-09: rank 1
#   match p002 ahead by -1e-09: rank 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pytrec-eval-terrier==0.5.11 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import pytrec_eval

rank = {}
for match, other in (("p001", "p002"), ("p002", "p001")):
    judge = pytrec_eval.RelevanceEvaluator({"query": {match: 1}}, {"recip_rank"})
    for lead in (1e-6, 1e-9, -1e-9):
        result = judge.evaluate({"query": {match: 0.9 + lead, other: 0.9}})
        rank[match, lead] = round(1 / result["query"]["recip_rank"])
        print(f"match {match} ahead by {lead:6.0e}: rank {rank[match, lead]}")
assert rank["p001", 1e-9] == 2 and rank["p002", -1e-9] == 1, "scores are now compared as 64-bit floats"
PY
