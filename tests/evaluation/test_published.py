from types import SimpleNamespace

import pytest

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.published import COLUMNS, beside_published

RESULTS = [
    SimpleNamespace(gallery=gallery, summary=lambda: {"model": "tiny, joint", "rank1": 0.9, "map": 0.93})
    for gallery in ("all", "aspect")
]


def test_a_version_stands_beside_ours_in_shares():
    frame = beside_published("v5", "vitb16", RESULTS)
    assert tuple(frame.columns) == COLUMNS
    assert frame["model"].tolist() == ["ours: tiny, joint", "CLIP-FH v5, vitb16"]
    assert frame["rank1"].tolist() == [0.9, 0.8818]
    assert frame["map"].tolist() == [0.93, 0.9220]
    assert "ArcFace logits only feed a log line" in frame["what_its_code_did"][1]


def test_a_backbone_the_study_has_not_sees_both_and_no_version_sees_ours_alone():
    assert len(beside_published("v5", "tiny", RESULTS)) == 3
    assert len(beside_published("", "vitb16", RESULTS)) == 1
    assert beside_published("", "tiny", RESULTS)["source"].tolist() == [""]


def test_an_unknown_version_is_refused_with_those_there_are():
    with pytest.raises(EvaluationError, match=r"'v99': CLIP-FH's joint training has v1, v2.*v10"):
        beside_published("v99", "vitb16", RESULTS)
