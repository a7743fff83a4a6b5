import base64
from pathlib import Path

import pytest
from PIL import Image

from handclip_lib.data.images import decode_images
from handclip_lib.data.table import HandTable
from handclip_lib.widgets.browsers import dataset_browser, matching

HOSTILE = ["<script>alert(1)</script>", "../../x", "$x^$", r"\frac{"]


def _table(root: Path, identities: list[str], nail_polish: list[bool | None] | None = None) -> HandTable:
    rows = []
    for number, identity in enumerate(identities):
        path = f"Hand_{number:07d}.jpg"
        Image.new("RGB", (40, 30), (10 * number, 90, 120)).save(root / path)
        aspect = ("dorsal_r", "palmar_r")[number % 2]
        polish = nail_polish[number] if nail_polish else None
        row = {"path": path, "identity": identity, "side": "right", "view": aspect[:-2], "aspect": aspect}
        rows.append({**row, "gender": "male", "nail_polish": polish})
    return HandTable.build("11k", root, rows, {})


def _browser(table: HandTable, cache: Path | None = None, **options):
    images = decode_images(table.root, table.images["path"], 32, cache=cache or table.root / "cache", progress=False)
    return dataset_browser(table, images, **options)


def _titles(panel) -> list[str]:
    return [axes.get_title() for axes in panel.figure.axes if axes.get_title()]


def test_shows_photographs_with_identity_and_aspect(tmp_path: Path):
    panel = _browser(_table(tmp_path, ["7", "8"]))
    assert _titles(panel) == ["7\ndorsal_r", "8\npalmar_r"]
    data, _ = panel._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_offers_only_what_the_data_set_records_and_distinguishes(tmp_path: Path):
    with_polish = _browser(_table(tmp_path, ["7", "10", "8"], [True, False, None]))
    assert list(with_polish.values) == ["aspect", "subject", "nail_polish", "sample"]  # all are male
    subjects = [label for label, _ in with_polish.controls["subject"].options]
    assert subjects == ["all", "7", "8", "10"]


def test_a_subject_and_an_attribute_narrow_the_choice(tmp_path: Path):
    panel = _browser(_table(tmp_path, ["7", "7", "8", "8"], [True, False, False, None]))
    panel.controls["subject"].value = "7"
    assert _titles(panel) == ["7\ndorsal_r", "7\npalmar_r"]
    panel.controls["nail_polish"].value = True
    assert _titles(panel) == ["7\ndorsal_r"]


def test_a_choice_nothing_fits_says_so(tmp_path: Path):
    panel = _browser(_table(tmp_path, ["7", "8"]))
    panel.controls["subject"].value = "8"
    panel.controls["aspect"].value = "dorsal_r"
    text = panel._repr_mimebundle_()[0]["text/plain"]
    assert text == "DataError: no photograph has aspect='dorsal_r', subject='8'; set one of them to all"


def test_a_sample_is_of_the_size_asked_for_and_repeats(tmp_path: Path):
    table = _table(tmp_path, [str(number) for number in range(20)])
    first, again = _browser(table, count=6, seed=3), _browser(table, count=6, seed=3)
    assert len(_titles(first)) == 6
    assert _titles(first) == _titles(again)
    first.controls["sample"].value = 2
    assert _titles(first) != _titles(again)


@pytest.mark.parametrize("identity", HOSTILE)
def test_an_identity_is_text_not_mathematics_or_markup(tmp_path: Path, identity: str):
    panel = _browser(_table(tmp_path, [identity, "8"]))
    assert _titles(panel)[0].startswith(identity)
    panel.controls["subject"].value = identity
    assert "image/png" in panel._repr_mimebundle_()[0]
    assert "<script" not in panel._picture.value


def test_matching_never_lets_a_missing_value_through(tmp_path: Path):
    images = _table(tmp_path, ["7", "8", "9"], [True, None, False]).images
    assert matching(images, {"nail_polish": True})["identity"].tolist() == ["7"]
    assert matching(images, {"nail_polish": False})["identity"].tolist() == ["9"]
    assert len(matching(images, {"nail_polish": "all"})) == 3


def test_real_photographs(hands11k_sample: Path, tmp_path: Path):
    from handclip_lib.data.labels import read_hands11k

    panel = _browser(read_hands11k(hands11k_sample), tmp_path)
    panel.controls["aspect"].value = "palmar_r"
    assert len(_titles(panel)) == 12
    assert all(title.endswith("palmar_r") for title in _titles(panel))
