import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.analysis.publication import (
    ENTRIES,
    bibtex,
    citation_keys,
    export_table,
    to_latex,
    to_markdown,
)
from handclip_lib.errors import EvaluationError, WriteError
from handclip_lib.evaluation.tables import result_table

NASTY = r"50% & a_b {x} $y$ #1 ~ ^ \z | <b>*"


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": [NASTY, "ours"], "rank1": [0.92, 0.5], "rank1_low": [0.89, np.nan], "rank1_high": [0.9468, np.nan],
            "gain_p": [0.00012, 0.04], "n_query": [971, 12], "below": [1.5, 2.0],
        }
    )  # fmt: skip


def test_markdown_is_a_table_of_literal_text(frame):
    lines = to_markdown(result_table(frame)).splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- |"
    assert lines[0] == "| model | Rank-1 (95 % CI), % | p (gain) | queries | below |"
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in cells} == {5}, "a pipe in a name makes no column"
    assert re.sub(r"\\(.)", r"\1", cells[2][0]).strip() == NASTY
    assert cells[2][1].strip() == "92.0 [89.0, 94.7]"
    assert "\n" not in to_markdown(pd.DataFrame({"a": ["x\ny"]})).splitlines()[2]


def test_latex_uses_booktabs_and_escapes_its_signs(frame):
    text = to_latex(result_table(frame))
    assert [rule for rule in (r"\toprule", r"\midrule", r"\bottomrule") if rule not in text] == []
    assert text.startswith(r"\begin{tabular}{lrrrr}")
    row = next(line for line in text.splitlines() if "50" in line and "a" in line)
    for sign in (r"50\%", r"\&", r"a\_b", r"\{x\}", r"\$y\$", r"\#1", r"\textasciitilde", r"\textasciicircum"):
        assert sign in row, sign
    assert r"\textbackslash" in row
    assert re.sub(r"\\.", "", row).count("&") == 4, "five columns"
    assert r"Rank-1 (95 \% CI), \%" in text
    assert "92.0 [89.0, 94.7]" in text


def test_files_are_written_whole_and_the_csv_in_full_precision(frame, tmp_path: Path):
    files = export_table(tmp_path, "comparison", frame)
    assert [file.name for file in files] == ["comparison.csv", "comparison.md", "comparison.tex"]
    pd.testing.assert_frame_equal(pd.read_csv(files[0]), frame, check_exact=True)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(WriteError, match=r"comparison\.csv cannot be written .*HANDCLIP_REPORTS"):
        export_table(blocked, "comparison", frame)


def record(notebook="05_evaluation", protocol="standard", **parameters) -> dict:
    return {"notebook": notebook, "parameters": parameters, "split": {"protocol": protocol}}


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (record(dataset="drawn", protocol="proportional"), {"radford2021clip"}),
        (record(dataset="11k"), {"radford2021clip", "afifi2019hands", "baisa2022mbanet"}),
        (record(dataset="hd", protocol="hd"), {"radford2021clip", "kumar2016knuckle", "baisa2022mbanet"}),
        (
            record("03_image_finetune", "proportional", head="arcface", triplet_weight=0.3, supcon_weight=0.0),
            {"radford2021clip", "deng2019arcface", "hermans2017triplet"},
        ),
        (
            record("04_joint_training", "proportional", n_ctx=4, head="linear", center_weight=5e-4, triplet_weight=0),
            {"radford2021clip", "li2023clipreid", "khosla2020supcon", "wen2016center"},
        ),
    ],
)
def test_cited_is_what_was_used(given, keys):
    assert set(citation_keys([given])) == keys
    assert set(citation_keys([given, record(dataset="drawn", protocol="proportional")])) == keys


def test_every_reference_is_whole_and_can_be_asked_for():
    keys = re.findall(r"@\w+\{(\w+),", ENTRIES.read_text())
    assert len(keys) == len(set(keys)) >= 11
    for key in keys:
        entry = bibtex([key])
        assert entry.count("{") == entry.count("}")
        assert all(re.search(rf"\b{field}\s*= \{{", entry) for field in ("author", "title", "year")), key
        assert re.search(r"\b(journal|booktitle)\s*= \{", entry), key
        assert re.search(r"year\s*= \{(19|20)\d\d\}", entry)[0][-5:-1] in key
    assert bibtex(keys[:2]).count("@") == 2
    assert bibtex([]) == ""
    with pytest.raises(EvaluationError, match="no reference 'nobody2020'"):
        bibtex(["nobody2020"])
