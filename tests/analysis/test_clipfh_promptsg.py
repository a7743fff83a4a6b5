"""The study's PromptSG figures: the table has joint training's columns, and the parameter files say the same."""

from pathlib import Path

import pandas as pd
import pytest

from handclip_lib.analysis.published import TABLE

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "params/promptsg").glob("v*.yml"))
FIGURES = pd.read_csv(
    TABLE.with_name("clipfh_promptsg.csv"), keep_default_na=False, na_values={"rank1": [""], "map": [""]}
)


def test_it_has_joint_trainings_columns_and_every_version_of_both_backbones():
    assert list(FIGURES.columns) == list(pd.read_csv(TABLE).columns)
    wanted = {(f"promptsg v{number}", backbone) for number in range(1, 12) for backbone in ("vitb16", "rn50")}
    assert set(zip(FIGURES["version"], FIGURES["backbone"], strict=True)) == wanted
    assert len(FIGURES) == len(FILES) == 22
    without = FIGURES[FIGURES["rank1"].isna()]
    assert without["version"].tolist() == ["promptsg v7"] * 2, "which the study never evaluated"
    assert FIGURES["rank1"].lt(FIGURES["map"]).sum() == 20, "shares; with one gallery image each, mAP is the higher"
    assert FIGURES["map"].max() < 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_version_expects_the_tables_figures(file):
    backbone = "rn50" if file.stem.endswith("_rn50") else "vitb16"
    version = f"promptsg {file.stem.removesuffix('_rn50')}"
    (row,) = FIGURES[(FIGURES["version"] == version) & (FIGURES["backbone"] == backbone)].to_dict("records")
    text = file.read_text()
    if pd.isna(row["rank1"]):
        assert "# expected: CLIP-FH gives no figure" in text
    else:
        assert f"# expected: CLIP-FH: rank-1 {100 * row['rank1']:.2f} / mAP {100 * row['map']:.2f} (" in text
    assert f"# described as: {row['described_as']}\n" in text
    assert row["what_its_code_did"] in text.replace("\n#   ", " ")
    assert f"version: {version}\n" in text
