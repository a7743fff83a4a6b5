import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from handclip_lib.analysis.publication import (
    BESIDE,
    COLUMNS,
    DEFINITIONS,
    ENTRIES,
    beside_literature,
    beside_published,
    bibtex,
    citation_keys,
    export_table,
    to_latex,
    to_markdown,
)
from handclip_lib.analysis.publication import published_figures as figures
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
    assert lines[0] == "| model | Rank-1 (95 % CI), % | p (gain) | queries a draw | below |"
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


FILES = sorted((Path(__file__).parents[2] / "params/promptsg").glob("v*.yml"))

SUMMARY = {"model": "tiny, joint", "rank1": 0.9, "map": 0.93, "n_query": 971.0, "n_gallery": 71}
RESULTS = [SimpleNamespace(gallery=gallery, summary=lambda: dict(SUMMARY)) for gallery in ("all", "aspect")]
STANDARD = {"dataset": "11k", "aspect": "dorsal_r", "protocol": "standard"}


def test_a_version_stands_beside_ours_in_shares():
    frame = beside_published("v5", "vitb16", RESULTS, STANDARD)
    assert tuple(frame.columns) == COLUMNS
    assert frame["model"].tolist() == ["ours: tiny, joint", "CLIP-FH v5, vitb16"]
    assert frame["rank1"].tolist() == [0.9, 0.8818]
    assert frame["map"].tolist() == [0.93, 0.9220]
    assert "ArcFace logits only feed a log line" in frame["what_its_code_did"][1]


def test_a_figure_of_another_task_is_marked_and_says_of_which():
    assert beside_published("v5", "vitb16", RESULTS, STANDARD)["same_task"].tolist() == [True, True]
    drawn = beside_published("v5", "vitb16", RESULTS, STANDARD | {"dataset": "drawn", "protocol": "proportional"})
    assert drawn["same_task"].tolist() == [True, False]
    assert drawn["task"].tolist() == [
        "drawn, dorsal_r, proportional, 971 queries, gallery of 71",
        "11k, dorsal_r, standard, 971 queries, gallery of 71",
    ]  # fmt: skip


def test_promptsg_is_told_by_its_name_and_a_version_that_was_never_run_has_no_figure():
    frame = beside_published("promptsg v8", "vitb16", RESULTS, STANDARD)
    assert frame["model"].tolist() == ["ours: tiny, joint", "CLIP-FH promptsg v8, vitb16"]
    assert frame["rank1"].tolist() == [0.9, 0.8586]
    assert beside_published("promptsg v7", "vitb16", RESULTS, STANDARD)["rank1"].isna().tolist() == [False, True]


def test_a_backbone_the_study_has_not_sees_both_and_no_version_sees_ours_alone():
    assert len(beside_published("v5", "tiny", RESULTS, STANDARD)) == 3
    assert len(beside_published("", "vitb16", RESULTS, STANDARD)) == 1
    assert beside_published("", "tiny", RESULTS, STANDARD)["source"].tolist() == [""]


def test_an_unknown_version_is_refused_with_those_there_are():
    with pytest.raises(EvaluationError, match=r"'v99': CLIP-FH has v1, v2.*v10, promptsg v1"):
        beside_published("v99", "vitb16", RESULTS, STANDARD)


def ours(dataset="11k", aspect="dorsal_r", protocol="standard", galleries=((971, 71), (971, 290))) -> pd.DataFrame:
    rows = [
        {"model": "tiny", "dataset": dataset, "aspect": aspect, "protocol": protocol, "gallery": gallery,
         "n_query": float(queries), "n_gallery": size, "rank1": 0.9, "map": 0.93, "map_trapezoid": 0.91}
        for gallery, (queries, size) in zip(("aspect", "all"), galleries, strict=False)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_published_figures_are_shares_with_source_licence_gallery_and_definition():
    table = figures()
    assert len(table) > 80
    assert table[["source", "license", "gallery"]].ne("").all(axis=None)
    assert set(table["map_definition"]) == {*DEFINITIONS, "unknown"}
    assert table[["rank1", "map"]].dropna().map(lambda share: 0 <= share <= 1).all(axis=None)
    mba = table[(table["method"] == "MBA-Net") & (table["aspect"] == "dorsal_r")].iloc[0]
    assert (mba["rank1"], mba["map"], mba["map_definition"], mba["gallery"]) == (0.9745, 0.9798, "trapezoid", "all")
    zero_shot = table[table["method"] == "stage1 zero-shot, vitb16"].iloc[0]
    assert (zero_shot["rank1"], zero_shot["map"], zero_shot["n_gallery"]) == (0.7142, 0.7898, 71)
    # with one match a query it is (standard mAP + rank-1) / 2, so the standard one, 2 · mAP - rank-1, is no less
    trapezoid = table[table["map_definition"] == "trapezoid"]
    assert (2 * trapezoid["map"] - trapezoid["rank1"]).between(trapezoid["map"] - 1e-9, 1).all()


def test_a_version_is_named_as_its_stage_is_and_promptsg_has_all_but_one_of_both_backbones():
    table = figures()
    for row in table[table["version"] != ""].itertuples():
        stage, number = (3, row.version[9:]) if row.version.startswith("promptsg ") else (2, row.version)
        assert row.method == f"stage{stage} {number}, {row.backbone}"
    promptsg = table[table["version"].str.startswith("promptsg")]
    wanted = {(f"promptsg v{number}", backbone) for number in range(1, 12) for backbone in ("vitb16", "rn50")}
    assert set(zip(promptsg["version"], promptsg["backbone"], strict=True)) == wanted
    assert len(promptsg) == len(FILES) == 22
    assert table.loc[table["rank1"].isna(), "version"].tolist() == ["promptsg v7"] * 2, (
        "which the study never evaluated"
    )
    assert promptsg["rank1"].lt(promptsg["map"]).sum() == 20, "with one gallery image each, mAP is the higher"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_parameter_file_expects_the_tables_figures(file):
    table, backbone = figures(), "rn50" if file.stem.endswith("_rn50") else "vitb16"
    version = f"promptsg {file.stem.removesuffix('_rn50')}"
    (row,) = table[(table["version"] == version) & (table["backbone"] == backbone)].to_dict("records")
    text = file.read_text()
    if pd.isna(row["rank1"]):
        assert "# expected: CLIP-FH gives no figure" in text
    else:
        assert f"# expected: CLIP-FH: rank-1 {100 * row['rank1']:.2f} / mAP {100 * row['map']:.2f} (" in text
    assert f"# described as: {row['described_as']}\n" in text
    assert row["what_its_code_did"] in text.replace("\n#   ", " ")
    assert f"version: {version}\n" in text


def test_the_same_task_stands_beside_ours_with_the_same_definition_of_map():
    beside, others = beside_literature(ours())
    assert tuple(beside.columns) == BESIDE
    for (gallery, definition), rows in beside.groupby(["gallery", "map_definition"]):
        assert (gallery, definition) in {("aspect", "standard"), ("all", "trapezoid")}
        assert rows["study"].tolist().count("ours") == 1
        assert rows["study"].iloc[0] == "ours"
        assert rows["map"].iloc[0] == {"standard": 0.93, "trapezoid": 0.91}[definition]
        assert rows["n_gallery"].nunique() == 1
    assert {"MBA-Net", "CLIP-FH", "CLIP-HandID"} <= set(beside["study"])
    assert beside[beside["method"].str.startswith("stage2")]["note"].eq("epoch selected on test images").all()
    assert others["reason"].ne("").all()
    assert others["figures"].sum() + (beside["study"] != "ours").sum() == figures()["rank1"].notna().sum()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (ours(dataset="drawn"), "other data: ours is drawn"),
        (ours(aspect="palmar_r"), "other aspect: ours is palmar_r"),
        (ours(protocol="proportional"), "other protocol: ours is proportional, theirs standard"),
        (ours(galleries=((179, 66), (179, 270))), "other images: ours has 179 queries and a gallery of 66, theirs 971"),
        (ours(galleries=((971, 71),)), "other gallery: ours is aspect"),
    ],
)
def test_another_task_is_listed_with_the_reason(table, reason):
    beside, others = beside_literature(table)
    dorsal = others[(others["dataset"] == "11k") & (others["aspect"] == "dorsal_r")]
    assert any(found.startswith(reason) for found in dorsal["reason"])
    named = beside[(beside["study"] != "ours") & (beside["aspect"] == "dorsal_r")]
    assert len(named) == 0 or reason == "other gallery: ours is aspect"


def test_figures_that_mean_nothing_are_beside_nobodys():
    hd = ours("hd", "unspecified", "hd", ((1992, 1593),))
    beside, others = beside_literature(hd)
    assert set(beside["study"]) == {"ours", "MBA-Net"}
    assert "identities were read as folder indices: not a result" in set(others["reason"])
    assert "trained on 11k Hands, dorsal right, and tested on HD" in set(others["reason"])
    assert "its definition of mAP is not known" in set(others["reason"])
