#!/usr/bin/env bash
# mlcroissant: a column that the data set's own description declares as Text is read as numbers first.
#
# Expected: dataType sc:Text is what keeps ids as they are written; persons 007 and 07 stay two, and NA is a text.
# Found: the CSV is read with its types guessed and only then turned into text: both are b'7' and one person, or
# b'7.0' where another row says NA (somebody's initials), which is None. One id that is no number keeps the whole column
# as it is, so who a person is depends on the other rows. Read the CSV yourself, as text.
# Versions: mlcroissant 1.1.1, pandas 3.1.1, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   in the file 007, 07, 10; read as Text [b'7', b'7', b'10']
#   in the file 007, 07, NA; read as Text [b'7.0', b'7.0', None]
#   in the file 007, 07, x1; read as Text [b'007', b'07', b'x1']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile mlcroissant==1.1.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import hashlib
import json
import logging
from pathlib import Path

import mlcroissant

logging.disable()
words = {name: f"cr:{name}" for name in ("column", "extract", "field", "fileObject", "recordSet", "source")}
typed = {"dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "conformsTo": "dct:conformsTo"}
spaces = {"cr": "http://mlcommons.org/croissant/", "sc": "https://schema.org/", "dct": "http://purl.org/dc/terms/"}
context = {"@language": "en", "@vocab": "https://schema.org/", **spaces, **words, **typed}
found = {}
for rows in (["007", "07", "10"], ["007", "07", "NA"], ["007", "07", "x1"]):
    Path("hands.csv").write_text("\n".join(["person", *rows]) + "\n")
    digest = hashlib.sha256(Path("hands.csv").read_bytes()).hexdigest()
    table = {"@type": "cr:FileObject", "@id": "table", "name": "table", "contentUrl": "hands.csv", "sha256": digest}
    source = {"fileObject": {"@id": "table"}, "extract": {"column": "person"}}
    field = {"@type": "cr:Field", "@id": "rows/person", "name": "person", "dataType": "sc:Text", "source": source}
    described = {
        "@context": context, "@type": "sc:Dataset", "name": "hands", "description": "hands", "license": "none",
        "url": "https://example.org", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "distribution": [{**table, "encodingFormat": "text/csv"}],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": [field]}],
    }  # fmt: skip
    Path("hands.json").write_text(json.dumps(described))
    records = mlcroissant.Dataset(jsonld="hands.json").records("rows")
    found[tuple(rows)] = [record["rows/person"] for record in records]
    print(f"in the file {', '.join(rows)}; read as Text {found[tuple(rows)]}")
assert found["007", "07", "10"][:2] == [b"7", b"7"] and found["007", "07", "NA"][2] is None, "Text is read as text"
PY
