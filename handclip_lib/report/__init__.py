"""One HTML file a run, and the index."""

import sys

# nbformat imports jsonschema, which would take a second to compile the grammar of a check that no notebook asks for
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
