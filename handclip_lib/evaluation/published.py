"""Figures of the CLIP-FH study beside a user's own."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.protocol import ProtocolResult

TABLE = Path(__file__).with_name("clipfh_joint.csv")
"""Joint training ("stage 2") on 11k Hands, dorsal right, gallery of 71: evaluation logs of the CLIP-FH study."""
COLUMNS = ("model", "rank1", "map", "described_as", "what_its_code_did", "source")


def beside_published(version: str, backbone: str, results: Sequence[ProtocolResult]) -> pd.DataFrame:
    """Our result of gallery "aspect", and CLIP-FH's of the same version.

    Args:
        version: Such as "v5"; empty for none.
        backbone: Short name; the study has vitb16 and rn50, and both are shown for any other.
        results: Of `evaluate_models`, ours first.

    Returns:
        Columns `COLUMNS`; shares in 0..1.

    Raises:
        EvaluationError: The study has no such version.
    """
    ours = next(result for result in results if result.gallery == "aspect").summary()
    rows = [
        dict.fromkeys(COLUMNS, "") | {"model": f"ours: {ours['model']}", "rank1": ours["rank1"], "map": ours["map"]}
    ]
    if version:
        table = pd.read_csv(TABLE, keep_default_na=False)
        found = table[table["version"] == version]
        if found.empty:
            known = ", ".join(dict.fromkeys(table["version"]))
            raise EvaluationError(f"version={version!r}: CLIP-FH's joint training has {known}")
        same = found[found["backbone"] == backbone]
        for row in (found if same.empty else same).to_dict("records"):
            row["model"] = f"CLIP-FH {version}, {row['backbone']}"
            rows.append({name: row[name] for name in COLUMNS})
    return pd.DataFrame(rows)
