import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handclip_lib.data.audit import (
    attribute_counts,
    check,
    data_cautions,
    data_conclusion,
    images_per_identity,
    left_out_reasons,
    reading_facts,
    split_facts,
)
from handclip_lib.data.labels import read_hands11k
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import recognised
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable, in_order
from handclip_lib.errors import DataError

HEADER = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities"

TONES = "very fair", "dark"


@pytest.fixture
def table(tmp_path: Path):
    (tmp_path / "Hands").mkdir()
    rows = [HEADER]
    for number in range(6):
        name = f"Hand_{number:07d}.jpg"
        gender, tone = "male" if number < 2 else "female", TONES[number // 3]
        rows.append(f"{number // 3:07d},{19 + 10 * number},{gender},{tone},0,1,dorsal right,{name},0")
        if number != 5:
            Image.new("RGB", (40 + number, 30)).save(tmp_path / "Hands" / name)
    (tmp_path / "HandInfo.csv").write_text("\n".join(rows))
    return read_hands11k(tmp_path)


def small(people: int = 2, images: int = 2, sessions: int = 1, **meta) -> tuple[HandTable, Split]:
    """A table of few people and its split: everybody is tested."""
    rows = [
        {"path": f"{who}/{n}.jpg", "identity": str(who), "session": f"s{n % sessions}" if sessions > 1 else ""}
        for who in range(people)
        for n in range(images)
    ]
    table = HandTable.build("folder", Path("/photographs"), rows, {})
    return table, make_split(table, "all", "cross_session" if sessions > 1 else "test_only", draws=2)


def test_the_conclusion_counts_one_and_many():
    table, split = small()
    assert data_conclusion(table, split) == (
        "4 images of 2 people; 2 people are tested; 0 images cannot be used, 0 others are not in this split"
    )
    alone = Split.build(split.meta, split.images[split.images["identity"] == "0"])
    assert data_conclusion(HandTable.build("folder", table.root, [{"path": "a.jpg", "identity": "0"}], {}), alone) == (
        "1 image of 1 person; 1 person is tested; 0 images cannot be used, 1 other is not in this split"
    )


def test_what_a_draw_enrols_is_said_of_the_split_at_hand():
    def said(split: Split) -> str:
        return split_facts(split).set_index("fact").loc["in each draw", "value"]

    assert said(small()[1]) == "one gallery image of each of 2 tested identities; their other images are queries"
    assert said(small(4, 4, 2)[1]).endswith("; their images of other sessions are queries")
    split = small(2, 3)[1]
    both = Split.build(split.meta, split.images.assign(gallery_in=["0 1", "0 1", ""] * 2))  # as folders may have it
    assert said(both) == "the gallery and query images that the folders name"


def test_a_note_that_a_checksum_keeps_from_changing_is_read_in_the_singular():
    split = small()[1]
    notes = [
        "1 images of 1 identities record no aspect (a.jpg)",
        "1 train identities have one image: it trains",
        "12 images",
    ]
    told = split_facts(Split.build({**split.meta, "notes": notes}, split.images)).set_index("fact")["value"]
    assert told[["note 1", "note 2", "note 3"]].tolist() == [
        "1 image of 1 identity records no aspect (a.jpg)", "1 train identity has one image: it trains", "12 images",
    ]  # fmt: skip


def test_hands_that_are_counted_as_people_are_told():
    split = small(4)[1]
    assert data_cautions(split) == []
    hands = Split.build(split.meta, split.images.assign(subject=["a", "a", "a", "a", "b", "b", "", ""]))
    assert (split.whose, hands.whose) == ("people", "identities")
    assert data_cautions(hands) == [
        "The 4 identities tested are of 3 people: counts of people here, and intervals over them, take each for a "
        "person of its own."
    ]


def test_attributes_count_images_and_identities(table):
    counts = attribute_counts(table).set_index(["attribute", "value"])
    assert counts.loc[("gender", "male"), ["images", "identities"]].tolist() == [2, 1]
    assert counts.loc[("gender", "female"), ["images", "identities"]].tolist() == [3, 2]
    assert counts.loc[("nail_polish", "yes"), "images"] == 5
    assert counts.loc[("age", "<20"), "images"] == 1
    assert counts.loc["age", "images"].sum() == 5
    assert counts.loc["skin_color"].index.tolist() == ["very fair", "dark"], "from light to dark, not by the alphabet"


def test_groups_stand_in_the_order_one_reads_them_in():
    tones = ["unknown", "medium", "dark", "olive", "fair", "very fair"]
    assert in_order("skin_color", tones) == ["very fair", "fair", "medium", "dark", "olive", "unknown"]
    assert in_order("age", ["unknown", "40+", "<20", "20-29"]) == ["<20", "20-29", "40+", "unknown"]
    assert in_order("site", ["site10", "site9", "dark"]) == ["dark", "site9", "site10"]


def test_left_out_images_are_grouped_by_reason(table):
    reasons = left_out_reasons(table)
    assert reasons["images"].tolist() == [1]
    assert reasons["for example"].tolist() == ["Hands/Hand_0000005.jpg"]


def test_images_per_identity_counts_the_most_first(table):
    assert images_per_identity(table).to_dict() == {"0000000": 3, "0000001": 2}


def photograph(path: Path, mode: str = "RGB", side: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (side, side), np.uint8)
    values = noise.astype(np.uint16) * 257 if mode == "I;16" else noise
    image = Image.fromarray(values)
    (image if mode == "I;16" else image.convert(mode)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six subjects of 11k Hands with three images each, on both sides of the cut-off of dorsal right."""
    rows = []
    for number in range(18):
        name = f"Hand_{number:07d}.jpg"
        identity = f"{1048 + number // 3:07d}"
        rows.append({"id": identity, "accessories": 0, "aspectOfHand": "dorsal right", "imageName": name})
        photograph(tmp_path / "Hands" / name)
    pd.DataFrame(rows).assign(gender="female").to_csv(tmp_path / "HandInfo.csv", index=False)
    return tmp_path


def test_the_report_counts_what_is_there_beside_what_was_published(root):
    report = check(root, progress=False)
    text = str(report)
    assert report.usable
    assert report.quality is None
    assert "data set '11k': 18 images of 6 identities" in text
    assert "dorsal_r      18 images of 6 identities" in text
    assert "female      18 images of 6 identities" in text
    # 1048, 1049 and 1050 train, with one image each for validation; 1051, 1052 and 1053 are tested.
    counts = report.protocols["dorsal_r"].set_index("count")["found"]
    assert counts[["train", "val", "test", "query", "gallery aspect"]].tolist() == [6, 3, 9, 6, 3]
    assert "6 of 890" in text
    assert "\nProtocol standard, found of published\n" in text
    assert "--deep decodes each" in text
    told = json.loads(report.as_json())
    assert (told["images"], told["identities"], told["usable"], told["quality"]) == (18, 6, True, None)
    assert told["splits"]["dorsal_r"]["train"] == 6


def test_what_is_missing_is_grouped_by_reason_with_an_example(root):
    for number in (3, 4):
        (root / "Hands" / f"Hand_{number:07d}.jpg").unlink()
    text = str(check(root, progress=False))
    assert "Left out: 2 images" in text
    assert "2 × named in HandInfo.csv but absent from Hands/ (Hands/Hand_0000003.jpg)" in text


def test_a_deep_check_decodes_and_says_what_is_damaged_or_converted(root):
    hands = root / "Hands"
    cut = hands / "Hand_0000000.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (hands / "Hand_0000001.jpg").write_text("<html>not found</html>")
    photograph(hands / "Hand_0000003.jpg", "CMYK")
    for number, mode in ((4, "P"), (6, "I;16")):
        photograph(hands / "x.png", mode).rename(hands / f"Hand_{number:07d}.jpg")
    shallow, deep = check(root, progress=False), check(root, deep=True, progress=False)
    assert set(shallow.table.left_out["path"]) == {"Hands/Hand_0000001.jpg"}  # its head says so
    assert set(deep.table.left_out["path"]) == {"Hands/Hand_0000000.jpg", "Hands/Hand_0000001.jpg"}
    assert deep.notes == shallow.notes
    assert deep.notes == (
        "1 photographs of 16-bit samples from 0 to 65,278: 65,535 is white",
        "1 CMYK image is converted to RGB (Hands/Hand_0000003.jpg)",
        "1 palette image is converted to RGB (Hands/Hand_0000004.jpg)",
    )
    text = str(deep)
    assert "cut short" in text
    assert "1 CMYK image is converted to RGB (Hands/Hand_0000003.jpg)" in text
    assert "Every image was decoded; 16 can be used." in text
    Image.new("RGB", (64, 64)).save(hands / "Hand_0000009.jpg")
    poor = check(root, deep=True, progress=False)
    assert len(poor.table.images) == 16, "nothing is dropped by quality"
    assert "  1 of them × blank: its contrast is below 0.02 (Hands/Hand_0000009.jpg)" in str(poor)
    assert json.loads(poor.as_json())["quality"][-1]["fault"] == "blank"


def test_an_image_of_too_many_pixels_is_refused_without_a_warning_of_pillows(root, recwarn):
    Image.new("1", (14_000, 14_000)).save(root / "Hands" / "huge.png")
    (root / "Hands" / "huge.png").rename(root / "Hands" / "Hand_0000000.jpg")
    report = check(root, progress=False)
    assert report.table.left_out["path"].tolist() == ["Hands/Hand_0000000.jpg"]
    assert "too many" in str(report)
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]


def test_when_no_image_can_be_decoded_the_check_fails(root):
    for file in (root / "Hands").iterdir():
        file.write_bytes(b"no photograph")
    with pytest.raises(DataError, match="holds no usable image: 18 ×"):
        check(root, progress=False)


def test_another_protocol_than_the_data_sets_own_is_planned_when_asked(root):
    metadata = pd.read_csv(root / "HandInfo.csv", dtype=str)
    names = dict(zip(sorted(set(metadata["id"])), ("ann", "bo", "cy", "di", "ed", "flo"), strict=True))
    metadata["id"] = metadata["id"].map(names)
    metadata.to_csv(root / "HandInfo.csv", index=False)
    own = check(root, progress=False)
    assert not own.usable
    assert "is not a number" in str(own)
    assert "No split by protocol 'auto', the data set's own: see the reasons above; another: --protocol" in str(own)
    other = check(root, protocol="proportional", progress=False)
    assert other.usable
    counts = other.protocols["dorsal_r"].set_index("count")["found"]
    assert counts[["train identities", "test identities"]].tolist() == [3, 3]
    assert "\nProtocol proportional\n" in str(other)
    with pytest.raises(DataError, match="unknown protocol 'halves'; choose from auto, standard"):
        check(root, protocol="halves", progress=False)


def test_data_that_cannot_be_split_is_reported_as_unusable(tmp_path):
    photograph(tmp_path / "anna" / "1.jpg")
    photograph(tmp_path / "bert" / "2.jpg")
    report = check(tmp_path, progress=False)
    assert not report.usable
    assert "No split of unspecified" in str(report)
    assert "two such identities" in str(report)


def test_no_file_vanishes_from_the_report(tmp_path):
    for identity in ("anna", "bert", "carl", "dora"):
        for number in range(2):
            photograph(tmp_path / identity / f"{number}.jpg")
    for name in ("2.NEF", "2.gif", "2.jpg.part", "IMG_3", "notes.txt"):
        (tmp_path / "anna" / name).write_bytes(b"something")
    (tmp_path / "anna" / "3.jpg").write_bytes(b"")
    report = check(tmp_path, progress=False)
    others = ["anna/2.NEF", "anna/2.gif", "anna/2.jpg.part", "anna/3.jpg", "anna/IMG_3", "anna/notes.txt"]
    assert sorted(report.table.left_out["path"]) == others
    assert "Left out: 6 images" in str(report)


def test_names_cannot_drive_the_terminal(tmp_path):
    for identity in ("anna", "bert", "carl", "dora"):
        for number in range(3):
            photograph(tmp_path / identity / f"{number}.jpg")
    (tmp_path / "anna" / "\x1b[2J.jpg").write_bytes(b"")
    text = str(check(tmp_path, progress=False))
    assert "\x1b" not in text
    assert "anna/\\x1b[2J.jpg" in text


def test_data_sets_are_recognised_by_their_layout(root, tmp_path_factory):
    hd, other = tmp_path_factory.mktemp("hd"), tmp_path_factory.mktemp("other")
    (hd / "Original Images" / "1-501").mkdir(parents=True)
    (root / "train_val_test_split_dorsal_r").mkdir()
    assert recognised(root) == recognised(root / "Hands") == recognised(root.parent) == "11k"
    assert recognised(root / "train_val_test_split_dorsal_r") == "folder"
    assert recognised(hd) == recognised(hd / "Original Images") == recognised(hd / "Original Images" / "1-501") == "hd"
    assert recognised(other) == "folder"


def test_a_folder_that_is_no_data_set_is_refused_with_a_remedy(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    for folder, dataset, message in (
        (root / "nowhere", "auto", "does not exist; tried"),
        (root / "Hands", "auto", f"name the folder above it: {root}"),
        (empty, "auto", "needs <identity>/<photograph>"),
        (root, "hd", "holds no folder 'Original Images/1-501'"),
        (root, "12k", "unknown dataset '12k'; choose from auto, 11k, hd, folder"),
    ):
        with pytest.raises(DataError, match=message):
            check(folder, dataset, progress=False)


def test_the_real_sample_decodes_completely(hands11k_sample):
    report = check(hands11k_sample, deep=True, progress=False)
    assert len(report.table.images) == 764
    assert report.table.left_out.empty
    assert report.notes == ()
    assert (report.quality["fault"] == "").all()
    assert list(report.protocols) == ["dorsal_r", "palmar_r"]


def test_the_check_tells_sessions_people_and_notes_on_screen_and_as_json(tmp_path):
    for who in ("anna", "bert", "carl"):
        for session in ("session1", "session2"):
            photograph(tmp_path / who / session / "P_F_01.jpg")
            photograph(tmp_path / who / session / "P_B_01.jpg")
    (tmp_path / "anna" / "session1" / "clip.mp4").write_bytes(b"film")
    report = check(tmp_path, progress=False, protocol="cross_session")
    assert "2 sessions; 3 identities were photographed in several" in str(report)
    assert "no capture numbers: anna/session1/P_B_01.jpg and anna/session1/P_F_01.jpg end in the same" in str(report)
    told = json.loads(report.as_json())
    assert (told["images"], told["identities"], told["sessions"], told["with_capture_number"]) == (12, 3, 2, 0)
    assert told["splits"]["unspecified"]["query"] == 4
    assert told["left_out"][0]["path"] == "anna/session1/clip.mp4"
    facts = reading_facts(report.table).set_index("fact")["value"]
    assert facts["sessions"] == "2; 3 identities in several"
    assert facts["note 1"].startswith("no capture numbers")
