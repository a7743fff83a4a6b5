"""Who is taken for whom: the pairs of people that cost the most queries."""

from typing import Any

import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.tables import result_table

COLUMNS = ("identity", "mistaken_for", "queries", "photographs", "share", "margin")


def most_confused_pairs(result: ProtocolResult, split: Split, n: int = 10, *, merged: bool = False) -> pd.DataFrame:
    """The pairs that were confused most, over all draws.

    A query is a confusion where the gallery's best image is someone else's, ties included; it counts for the owner
    of the best wrong image alone, though others may lie ahead of the match too.

    Args:
        result: Of one model on one gallery.
        split: The manifest it was made on.
        n: Pairs listed at most.
        merged: Count "a taken for b" and "b taken for a" as one pair; its identity is the first in order of the two.

    Returns:
        A row a pair, the most queries first, at equal counts the most negative margin: identity; mistaken_for (in
        gallery "all" "<aspect>/<identity>" for other aspects' images, which may be the same person's); `queries` (a
        photograph is one in each draw); distinct `photographs`; `share` of all queries of the identity (merged: of
        both) in 0..1; and the mean `margin`, best match less best wrong image in units of the cosine, not above 0.

    Raises:
        EvaluationError: n is below 1, or the result is of another split.
    """
    if n < 1:
        raise EvaluationError(f"n={n}: at least one pair is wanted")
    rows = result.per_query
    people = _gallery_identities(split)
    unknown = rows.loc[~rows["wrong_path"].isin(people.index), "wrong_path"]
    if len(unknown):
        raise EvaluationError(f"{unknown.iloc[0]} is in no gallery of this split; give the split of the result")
    missed = rows[rows["hit"] == 0]
    pairs = pd.DataFrame(
        {
            "identity": missed["identity"], "mistaken_for": missed["wrong_path"].map(people), "path": missed["path"],
            "margin": missed["match_score"].astype(float) - missed["wrong_score"].astype(float),
        }
    )  # fmt: skip
    if merged:
        ordered = [
            sorted(two, key=identity_order) for two in zip(pairs["identity"], pairs["mistaken_for"], strict=True)
        ]
        pairs[["identity", "mistaken_for"]] = pd.DataFrame(ordered, index=pairs.index, columns=["a", "b"])
    asked = rows.groupby("identity").size().to_dict()
    found: list[dict[str, Any]] = []
    for (identity, other), group in pairs.groupby(["identity", "mistaken_for"], sort=False):
        asks = asked.get(identity, 0) + (asked.get(other, 0) if merged else 0)
        found.append(
            {"identity": identity, "mistaken_for": other, "queries": len(group),
             "photographs": group["path"].nunique(), "share": len(group) / asks, "margin": group["margin"].mean()}
        )  # fmt: skip
    found.sort(key=lambda row: (-row["queries"], row["margin"], identity_order(row["identity"]), row["mistaken_for"]))
    return result_table(found[:n], columns=COLUMNS)


def _gallery_identities(split: Split) -> pd.Series:
    """Identity by path, as the gallery names it: another aspect's images are other identities."""
    rows = split.images[split.images["role"].isin(["test", "other", "distractor"])]
    names = rows["identity"].where(rows["role"] != "other", rows["aspect"] + "/" + rows["identity"])
    return pd.Series(names.to_numpy(), index=rows["path"])
