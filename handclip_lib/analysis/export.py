"""A table of results as CSV, Markdown and LaTeX, and BibTeX of what it stands on."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.tables import readable
from handclip_lib.files import write_text

NUMBERS = r"[-<\d.e\[\], ]*"
ENTRIES = Path(__file__).with_name("references.bib")


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
