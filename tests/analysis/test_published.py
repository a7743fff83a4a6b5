"""Published figures: what the table holds, what stands beside ours, and that the parameter files say the same."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from handclip_lib.analysis.published import BESIDE, COLUMNS, DEFINITIONS, beside_literature, beside_published
from handclip_lib.analysis.published import published_figures as figures
from handclip_lib.errors import EvaluationError

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
