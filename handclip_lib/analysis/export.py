"""A table of results as CSV, Markdown and LaTeX, and BibTeX of what it stands on."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.errors import EvaluationError
from handclip_lib.files import whole_file

NUMBERS = r"[-<\d.e\[\], ]*"
ENTRIES = Path(__file__).with_name("references.bib")


def formatted(frame: pd.DataFrame, percent: Iterable[str] = ()) -> pd.DataFrame:
    """A table as text for print: `x` with `x_low` and `x_high` becomes one column, such as `92.0 [89.0, 94.7]`.

    Args:
        frame: The table.
        percent: Columns of shares in 0..1; they are printed in percent, with one decimal, and their heading says so.

    Returns:
        Text. p-values have three decimals, and "<0.001" below; what rounds to 0 has no sign; what is missing is empty.
    """
    shares, columns = set(percent), dict[str, list[str]]()
    names = [str(name) for name in frame.columns]
    ranges = {name for name in names if {f"{name}_low", f"{name}_high"} <= set(names)}
    ends = {f"{name}_{end}" for name in ranges for end in ("low", "high")}
    for name in (name for name in names if name not in ends):
        one = _percent if name in shares else _p_value if re.search(r"(^|_)p(_holm)?$", name) else _plain
        texts = [one(value) for value in frame[name]]
        if name in ranges:
            low, high = ([one(value) for value in frame[f"{name}_{end}"]] for end in ("low", "high"))
            texts = [f"{t} [{a}, {b}]" if a and b else t for t, a, b in zip(texts, low, high, strict=True)]
        columns[name.replace("_", " ") + (" (%)" if name in shares else "")] = texts
    return pd.DataFrame(columns)


def to_markdown(frame: pd.DataFrame, percent: Iterable[str] = ()) -> str:
    """The `formatted` table in Markdown (GitHub's pipes), literal."""
    shown = formatted(frame, percent)
    rows = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    lines = [" | ".join(_markdown(cell) if number != 1 else cell for cell in row) for number, row in enumerate(rows)]
    return "".join(f"| {line} |\n" for line in lines)


def to_latex(frame: pd.DataFrame, percent: Iterable[str] = ()) -> str:
    """The `formatted` table as a LaTeX tabular for the booktabs package, literal: LaTeX's signs are escaped."""
    shown = formatted(frame, percent)
    layout = "".join("r" if shown[name].str.fullmatch(NUMBERS).all() else "l" for name in shown)
    return shown.to_latex(index=False, escape=True, column_format=layout)


def export_table(folder: Path, name: str, frame: pd.DataFrame, percent: Iterable[str] = ()) -> list[Path]:
    """Write `<name>.csv` (all columns, full precision), `<name>.md` and `<name>.tex`; return their paths.

    Raises:
        EvaluationError: A file cannot be written.
    """
    shares = tuple(percent)
    texts = {"csv": frame.to_csv(index=False), "md": to_markdown(frame, shares), "tex": to_latex(frame, shares)}
    return [write(folder / f"{name}.{kind}", text) for kind, text in texts.items()]


def write(path: Path, text: str) -> Path:
    """Write a file whole or not at all; return its path.

    Raises:
        EvaluationError: It cannot be written.
    """
    try:
        with whole_file(path) as private:
            private.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written ({error.strerror or error}); free space there, or name another folder in the "
            "environment variable HANDCLIP_REPORTS"
        ) from error
    return path


def citation_keys(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs stand on, as keys of `references.bib`.

    Args:
        records: `run.json` of each run.

    Returns:
        Keys in the file's order: data set, protocol, backbone, and the methods that the parameters switch on.
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
    """The BibTeX entries of some keys.

    Raises:
        EvaluationError: There is no such key.
    """
    entries = _entries()
    unknown = [key for key in keys if key not in entries]
    if unknown:
        raise EvaluationError(f"no reference {unknown[0]!r}; choose from {', '.join(entries)}")
    return "\n".join(entries[key] for key in keys)


def _entries() -> dict[str, str]:
    """Entries of `references.bib` by key, in its order."""
    parts = re.split(r"(?m)^(?=@)", ENTRIES.read_text(encoding="utf-8"))
    return {part.partition("{")[2].partition(",")[0]: part.rstrip() + "\n" for part in parts if part.startswith("@")}


def _percent(value: Any) -> str:
    return f"{100 * value:z.1f}" if isinstance(value, float | int) and value == value else _plain(value)


def _p_value(value: Any) -> str:
    if not isinstance(value, float | int) or value != value:
        return _plain(value)
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:z.4g}" if value == value else ""
    return "" if value is None or value is pd.NA else str(value)


def _markdown(cell: str) -> str:
    return re.sub(r"([\\`*_<>|#~$])", r"\\\1", cell).replace("\r", " ").replace("\n", " ")
