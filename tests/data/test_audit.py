from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from handclip_lib.data.audit import (
    PUBLISHED_COUNTS,
    attribute_counts,
    image_sizes,
    images_per_identity,
    left_out_reasons,
    split_counts,
)
from handclip_lib.data.hands11k import read_hands11k
from handclip_lib.data.splits import make_split

HEADER = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities"


@pytest.fixture
def table(tmp_path: Path):
    (tmp_path / "Hands").mkdir()
    rows = [HEADER]
    for number in range(6):
        name = f"Hand_{number:07d}.jpg"
        rows.append(
            f"{number // 3:07d},{19 + 10 * number},{'male' if number < 2 else 'female'},fair,0,1,dorsal right,{name},0"
        )
        if number != 5:
            Image.new("RGB", (40 + number, 30)).save(tmp_path / "Hands" / name)
    (tmp_path / "HandInfo.csv").write_text("\n".join(rows))
    return read_hands11k(tmp_path)


def test_attributes_count_images_and_identities(table):
    counts = attribute_counts(table).set_index(["attribute", "value"])
    assert counts.loc[("gender", "male"), ["images", "identities"]].tolist() == [2, 1]
    assert counts.loc[("gender", "female"), ["images", "identities"]].tolist() == [3, 2]
    assert counts.loc[("nail_polish", "yes"), "images"] == 5
    assert counts.loc[("age", "<20"), "images"] == 1
    assert counts.loc["age", "images"].sum() == 5


def test_left_out_images_are_grouped_by_reason(table):
    reasons = left_out_reasons(table)
    assert reasons["images"].tolist() == [1]
    assert reasons["for example"].tolist() == ["Hands/Hand_0000005.jpg"]


def test_sizes_come_from_the_files(table):
    sizes = image_sizes(table)
    assert sizes["width"].tolist() == [40, 41, 42, 43, 44]
    assert set(sizes["height"]) == {30}


def test_images_per_identity_counts_the_most_first(table):
    assert images_per_identity(table).to_dict() == {"0000000": 3, "0000001": 2}


@pytest.mark.parametrize("aspect", PUBLISHED_COUNTS.columns)
def test_the_standard_protocol_has_the_published_counts(hands11k_metadata, aspect):
    table = read_hands11k(hands11k_metadata.parent, metadata=hands11k_metadata, require_images=False)
    counts = split_counts(make_split(table, aspect))
    pd.testing.assert_series_equal(counts["found"], counts["published"], check_names=False, check_dtype=False)
