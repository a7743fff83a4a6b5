"""For a paper: our results beside published ones, tables as CSV, Markdown and LaTeX, and BibTeX."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.tables import readable, result_table
from handclip_lib.files import write_text

NUMBERS = r"[-<\d.e\[\], ]*"
ENTRIES = Path(__file__).with_name("references.bib")
TABLE = Path(__file__).with_name("published.csv")
"""Figures that others have published, each with source and licence; docs/definitions.md says what its columns hold."""
DEFINITIONS = {"standard": "map", "trapezoid": "map_trapezoid"}
"""Our column of each definition of mAP."""
TASK = ["dataset", "aspect", "gallery", "map_definition"]
BESIDE = (
    "study", "method", "dataset", "aspect", "gallery", "n_gallery", "rank1", "map", "map_definition", "note", "source",
)  # fmt: skip
SHOWN = ("model", "task", "rank1", "map", "described_as", "what_its_code_did", "source")
COLUMNS = (*SHOWN, "same_task")


def published_figures() -> pd.DataFrame:
    """`TABLE`; shares in 0..1, missing where a version of CLIP-FH was never evaluated."""
    return pd.read_csv(TABLE, keep_default_na=False, na_values={"rank1": [""], "map": [""]})


def beside_published(
    version: str, backbone: str, results: Sequence[ProtocolResult], meta: Mapping[str, Any]
) -> pd.DataFrame:
    """Our result of gallery "aspect", and CLIP-FH's of the same version.

    Args:
        version: Such as "v5" or "promptsg v8"; empty for none.
        backbone: Short name; the study has vitb16 and rn50, and both are shown for any other.
        results: Ours first.
        meta: Of the split, whose data set, aspect and protocol are part of the task.

    Returns:
        Columns `COLUMNS`; shares in 0..1; `same_task` is false for a figure that may not be compared with ours.
    """
    ours = next(result for result in results if result.gallery == "aspect").summary()
    task = _task(meta["dataset"], meta["aspect"], meta["protocol"], ours["n_query"], ours["n_gallery"])
    figures = {"model": f"ours: {ours['model']}", "task": task, "rank1": ours["rank1"], "map": ours["map"]}
    rows = [dict.fromkeys(COLUMNS, "") | figures | {"same_task": True}]
    if version:
        table = published_figures()
        figures_of = table[table["version"] == version]
        if figures_of.empty:
            known = ", ".join(filter(None, dict.fromkeys(table["version"])))
            raise EvaluationError(f"version={version!r}: CLIP-FH has {known}")
        same = figures_of[figures_of["backbone"] == backbone]
        for row in (figures_of if same.empty else same).to_dict("records"):
            theirs = _task(row["dataset"], row["aspect"], _protocol(row), row["n_query"], row["n_gallery"])
            row |= {"model": f"CLIP-FH {version}, {row['backbone']}", "task": theirs, "same_task": task == theirs}
            rows.append({name: row[name] for name in COLUMNS})
    return result_table(rows, SHOWN, claims="same_task")


def beside_literature(ours: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Our results beside the published ones of the same task, and the others with the reason why not.

    A task is data set, aspect, gallery with its size, queries a draw, and the definition of mAP; the published
    protocol is the only one that may be compared. Ours are those of `tasks_table`.

    Returns:
        Those that may be compared, columns `BESIDE`, ours first in each task, under the study "ours". And the others:
        study, dataset, aspect, gallery, map_definition, figures (how many), best_rank1, reason.
    """
    published = published_figures().dropna(subset="rank1")
    published["reason"] = [_reason(row, ours) for row in published.to_dict("records")]
    rows: list[Mapping[Hashable, Any]] = []
    same, other = published[published["reason"] == ""], published[published["reason"] != ""]
    for (dataset, aspect, gallery, definition), theirs in same.groupby(TASK, sort=False):
        mine = ours[(ours["dataset"] == dataset) & (ours["aspect"] == aspect) & (ours["gallery"] == gallery)]
        for row in mine.to_dict("records"):
            facts = {"study": "ours", "method": row["model"], "map": row[DEFINITIONS[str(definition)]], "note": ""}
            rows.append(row | facts | {"map_definition": definition, "source": ""})
        rows += theirs.sort_values("rank1", ascending=False).to_dict("records")
    grouped = other.groupby(["study", *TASK, "reason"], sort=False)["rank1"].agg(figures="size", best_rank1="max")
    listed = ["study", *TASK, "figures", "best_rank1", "reason"]
    return result_table(rows, columns=BESIDE), result_table(grouped.reset_index()[listed])


def _task(dataset: str, aspect: str, protocol: str, n_query: float, n_gallery: int) -> str:
    return f"{dataset}, {aspect}, {protocol}, {n_query:g} queries, gallery of {n_gallery}"


def _protocol(row: Mapping[Hashable, Any]) -> str:
    return "hd" if row["dataset"] == "hd" else "standard"


def _reason(row: Mapping[Hashable, Any], ours: pd.DataFrame) -> str:
    """Why a published figure cannot stand beside ours; "" where it can."""
    if row["reservation"]:
        return str(row["reservation"])
    if row["map_definition"] not in DEFINITIONS:
        return "its definition of mAP is not known"
    left = ours
    for name, what in (("dataset", "data"), ("aspect", "aspect"), ("gallery", "gallery")):
        there = list(dict.fromkeys(left[name]))
        left = left[left[name] == row[name]]
        if left.empty:
            return f"other {what}: ours is {', '.join(there)}"
    if set(left["protocol"]) != {_protocol(row)}:
        return f"other protocol: ours is {', '.join(sorted(set(left['protocol'])))}, theirs {_protocol(row)}"
    sizes = {(round(q, 1), g) for q, g in zip(left["n_query"], left["n_gallery"], strict=True)}
    if sizes != {(row["n_query"], row["n_gallery"])}:
        queries, gallery = min(sizes)
        theirs = f"{row['n_query']} and {row['n_gallery']}"
        return f"other images: ours has {queries:g} queries and a gallery of {gallery}, theirs {theirs}"
    return ""


def to_markdown(frame: pd.DataFrame) -> str:
    """The `readable` table in Markdown (GitHub's pipes), literal."""
    shown = readable(frame)
    rows = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    lines = [" | ".join(_markdown(cell) if number != 1 else cell for cell in row) for number, row in enumerate(rows)]
    return "".join(f"| {line} |\n" for line in lines)


def to_latex(frame: pd.DataFrame) -> str:
    """The `readable` table as a LaTeX tabular for the booktabs package, literal: LaTeX's signs are escaped."""
    shown = readable(frame)
    layout = "".join("r" if shown[name].str.fullmatch(NUMBERS).all() else "l" for name in shown)
    return shown.to_latex(index=False, escape=True, column_format=layout)


def export_table(folder: Path, name: str, frame: pd.DataFrame) -> list[Path]:
    """Write `<name>.csv` (all columns, full precision), `<name>.md` and `<name>.tex`; return their paths."""
    texts = {"csv": frame.to_csv(index=False), "md": to_markdown(frame), "tex": to_latex(frame)}
    return [write(folder / f"{name}.{kind}", text) for kind, text in texts.items()]


def write(path: Path, text: str) -> Path:
    """Write a file whole or not at all; return its path."""
    write_text(path, text)
    return path


def citation_keys(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs stand on by their records, as keys of `references.bib` in its order.

    Those of data set, protocol, backbone, and the methods that the parameters switch on.
    """
    wanted = {"radford2021clip"}
    for record in records:
        given, split = record.get("parameters") or {}, record.get("split") or {}
        wanted |= {"11k": {"afifi2019hands"}, "hd": {"kumar2016knuckle"}}.get(str(given.get("dataset")), set())
        rules = {
            "baisa2022mbanet": split.get("protocol") in ("standard", "hd"),
            "li2023clipreid": "n_ctx" in given or bool(given.get("prompt_run")),
            "khosla2020supcon": "n_ctx" in given or bool(given.get("supcon_weight") or given.get("text_supcon_weight")),
            "deng2019arcface": given.get("head") == "arcface",
            "hermans2017triplet": bool(given.get("triplet_weight")),
            "wen2016center": bool(given.get("center_weight")),
            "zhong2017reranking": bool(given.get("rerank") or given.get("reranking")),
            "baisa2025handid": given.get("method") == "handid",
            "yang2024promptsg": "promptsg" in str(record.get("notebook")) or given.get("method") == "promptsg",
        }
        wanted |= {key for key, used in rules.items() if used}
    return [key for key in _entries() if key in wanted]


def bibtex(keys: Iterable[str]) -> str:
    """The BibTeX entries of some keys."""
    entries = _entries()
    unknown = [key for key in keys if key not in entries]
    if unknown:
        raise EvaluationError(f"no reference {unknown[0]!r}; choose from {', '.join(entries)}")
    return "\n".join(entries[key] for key in keys)


def _entries() -> dict[str, str]:
    """Entries of `references.bib` by key, in its order."""
    parts = re.split(r"(?m)^(?=@)", ENTRIES.read_text(encoding="utf-8"))
    return {part.partition("{")[2].partition(",")[0]: part.rstrip() + "\n" for part in parts if part.startswith("@")}


def _markdown(cell: str) -> str:
    return re.sub(r"([\\`*_<>|#~$])", r"\\\1", cell).replace("\r", " ").replace("\n", " ")
