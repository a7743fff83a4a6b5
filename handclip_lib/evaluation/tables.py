"""Tables of results: which columns are shares, what the field calls them, and what a reader is shown first."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line prints shares too, and does without pandas
    import pandas as pd

HEADINGS = {
    "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "map": "mAP", "map_trapezoid": "mAP (trapezoid)",
    "minp": "mINP", "eer": "EER", "fmr": "FMR", "fnmr": "FNMR", "fpir": "FPIR", "fnir": "FNIR", "tar": "TAR",
    "fta": "FTA", "fta_if_dropped": "FTA if all were dropped", "n_photographs": "photographs",
    "d_prime": "d′", "eer_threshold": "threshold at EER", "n_genuine": "mated pairs", "n_impostor": "non-mated pairs",
    "n_identities": "identities", "n_seeds": "number of seeds", "n_query": "queries a draw",
    "n_gallery": "gallery size",
    "n_unmatched": "queries without a match", "n_left_out_burst": "queries left out", "left_out": "queries left out",
    "n_unqueryable": "identities never a query", "n_mated_identities": "identities enrolled",
    "n_non_mated_identities": "identities not enrolled", "n_short": "identities with too few images",
    "tied_share": "best matches tied", "supported": "enough people for the claim",
    "auc": "AUC", "hter": "HTER", "fdr": "FDR", "garbe": "GARBE", "n_mated": "mated queries, all draws",
    "n_non_mated": "non-mated queries, all draws", "fnir_rank1": "FNIR at rank 1, no threshold",
    "mated_mean": "mean mated score", "non_mated_mean": "mean non-mated score", "template_bytes": "bytes a template",
    "comparisons_per_second": "comparisons a second", "n_identity_pairs": "pairs of people",
    "n_left": "queries left a draw", "same_as": "the same model as", "by_chance": "people by chance",
    "fmr_difference": "FMR difference", "fnmr_difference": "FNMR difference", "n_images": "images",
    "trained_rank1": "Rank-1 of trained people",
    "trained_map": "mAP of trained people", "strangers_rank1": "Rank-1 of strangers", "rank1_gap": "gap",
    "n_genuine_identities": "identities with a mated pair", "image_to_text@1": "image→text@1",
    "image_to_text@5": "image→text@5", "text_to_image@1": "text→image@1", "text_to_image@5": "text→image@5",
    "image_to_text@1_by_text": "image→text@1 by text", "image_to_text": "image→text", "text_to_image": "text→image",
}  # fmt: skip
"""The field's word for a column (ISO/IEC 2382-37:2022, ISO/IEC 19795-1:2021); any other says what it is itself."""
QUALIFIED = {
    "sd": "{}, SD over draws", "spread": "{}, SD over seeds", "macro": "{} (mean over identities)",
    "validation": "{} on validation", "ratio": "{}, ratio to everybody's", "chance": "{} by chance",
    "gain": "Δ {}", "p": "p ({})", "holm": "{}, Holm",
}  # fmt: skip
SHARES = frozenset({
    "rank1", "rank5", "rank10", "map", "map_trapezoid", "minp", "eer", "fmr", "fnmr", "fpir", "fnir", "tar", "target",
    "fta", "fta_if_dropped", "tied_share", "left_out", "share", "accuracy", "majority", "chance", "best_rank1",
    "interpolation", "lowest_supported_fmr", "image_to_text@1", "image_to_text@5", "text_to_image@1",
    "image_to_text@1_by_text",
    "hter", "fnir_rank1", "fmr_difference", "fnmr_difference", "trained_rank1", "trained_map",
    "strangers_rank1", "rank1_gap",
})  # fmt: skip
"""Columns of results that are shares in 0..1, or differences of such; with them their ends, spreads and gains."""
COUNTS = ("comparisons_per_second", "template_bytes", "images", "queries")
OF_A_SHARE = re.compile(r"_(low|high|sd|spread|macro|validation|gain|chance)$")
DIFFERENCE = re.compile(r"_(gain|gap|difference)$")
"""Columns of shares that are one share less another: percentage points, and no percent of anything."""
OF_LARGER = ("rank5", "rank10")
"""Columns that a table of small galleries has no values for, and is shown without."""
RESULTS = "results"
VALIDATED = "val_"
"""How the columns begin that a training measures on its validation images."""


def result_table(
    rows: Any, shown: Sequence[str] = (), *, columns: Sequence[str] | None = None, claims: str = "supported"
) -> "pd.DataFrame":
    """A table that says in its `attrs` how it is read; what is stored of it is whole.

    Args:
        rows: A row a result, as `pandas.DataFrame` takes them; columns of `SHARES` hold shares in 0..1.
        shown: Columns that a reader sees, in this order, each with its interval; all by default.
        claims: Column, where the table has it, that is false in rows to show in grey: the figure is no claim.
    """
    import pandas as pd

    frame = pd.DataFrame(rows, columns=None if columns is None else list(columns))
    frame.attrs[RESULTS] = {"shown": tuple(shown), "claims": claims}
    return frame


def summary_table(results: Sequence[Any], shown: Sequence[str]) -> "pd.DataFrame":
    """A row a result, of the columns of its `summary()`."""
    return result_table([result.summary() for result in results], shown)


def claimed(frame: "pd.DataFrame") -> "list[bool] | None":
    """Whether each row of a result table is a claim; None where the table does not say."""
    column = frame.attrs.get(RESULTS, {}).get("claims")
    return frame[column].tolist() if column in frame else None


def readable(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A table as text for a reader: of a `result_table` the columns shown, its shares in percent."""
    how = frame.attrs.get(RESULTS)
    if how is None:
        return formatted(frame)
    told = [name for name in how["shown"] if name not in OF_LARGER or name not in frame or frame[name].notna().any()]
    shown = [name + end for name in told for end in ("", "_low", "_high") if name + end in frame]
    some = (frame[shown] if shown else frame).rename(columns=str)
    if "attribute" in some:  # its values are columns of a data set, such as skin_color
        some = some.assign(attribute=[heading(str(name)) if name else name for name in some["attribute"]])
    return formatted(some, [name for name in map(str, some) if is_share(name) and some[name].dtype != bool])


def is_share(column: str) -> bool:
    """Whether a column of results holds shares in 0..1, such as "rank1", "rank1_low" or "map_gain"."""
    column = column.removeprefix(VALIDATED)
    while column not in SHARES and OF_A_SHARE.search(column):
        column = OF_A_SHARE.sub("", column)
    return column in SHARES


def heading(column: str) -> str:
    """What a column is called for a reader."""
    if column.startswith(VALIDATED):
        return QUALIFIED["validation"].format(heading(column.removeprefix(VALIDATED)))
    base, _, last = column.rpartition("_")
    if column not in HEADINGS and base and last in QUALIFIED:
        return QUALIFIED[last].format(heading(base))
    return HEADINGS.get(column, column.replace("_", " "))


def formatted(frame: "pd.DataFrame", percent: Iterable[str] = ()) -> "pd.DataFrame":
    """A table as text for print: `x` with `x_low` and `x_high` becomes one column, such as `92.0 [89.0, 94.7]`.

    Columns of shares in 0..1 are printed in percent, differences of shares in percentage points, and their heading says
    so. p-values have three decimals, and "<0.001" below; what rounds to 0 has no sign; what is missing is empty.
    """
    import pandas as pd

    shares, columns = set(percent), dict[str, list[str]]()
    names = [str(name) for name in frame.columns]
    ranges = {name for name in names if {f"{name}_low", f"{name}_high"} <= set(names)}
    ends = {f"{name}_{end}" for name in ranges for end in ("low", "high")}
    for name in (name for name in names if name not in ends):
        number = _count if name.startswith("n_") or name in COUNTS else plain
        one = in_percent if name in shares else _p_value if re.search(r"(^|_)p(_holm)?$", name) else number
        texts = [one(value) for value in frame[name]]
        if name in ranges:
            low, high = ([one(value) for value in frame[f"{name}_{end}"]] for end in ("low", "high"))
            texts = [f"{t} [{a}, {b}]" if a and b else t for t, a, b in zip(texts, low, high, strict=True)]
        unit = (", points" if DIFFERENCE.search(name) else ", %") if name in shares else ""
        columns[heading(name) + " (95 % CI)" * (name in ranges) + unit] = texts
    return pd.DataFrame(columns)


def in_percent(share: Any, form: str = "z.1f") -> str:
    """A share in 0..1 in percent, with one decimal or in another form, and without the sign of percent."""
    number = isinstance(share, float | int) and not isinstance(share, bool) and share == share
    return f"{100 * share:{form}}" if number else plain(share)


def plain(value: Any) -> str:
    """A cell as text: four digits of a number, "yes" or "no", nothing where it is missing."""
    if isinstance(value, float):
        return f"{value:z.4g}" if value == value else ""
    if type(value).__name__ in ("bool", "bool_"):
        return "yes" if value else "no"
    return "" if value is None or type(value).__name__ == "NAType" else str(value)


def _count(value: Any) -> str:
    """A whole number with commas, `plain` otherwise."""
    try:
        return f"{value:,d}" if plain(value) else ""
    except (TypeError, ValueError):
        return plain(value)


def _p_value(value: Any) -> str:
    if not isinstance(value, float | int) or value != value:
        return plain(value)
    return "<0.001" if value < 0.001 else f"{value:.3f}"
