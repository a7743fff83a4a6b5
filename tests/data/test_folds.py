"""Who is held out: against a plain count of people, photographs and sessions."""

import json
import re
from pathlib import Path

import pytest

from handclip_lib.data.folds import as_tested, choose_folds
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError


def split_of(people: dict[str, int], protocol: str = "proportional", seed: int = 0, hands: int = 1) -> Split:
    """So many images of each person; each test half is made of other people called t0 …."""
    rows = [
        {"path": f"{who}/{hand}_{n}.jpg", "identity": f"{who}-{hand}" if hands > 1 else who, "subject": who,
         "aspect": "dorsal_r", "session": str(n % 2)}
        for who, count in people.items() for hand in range(hands) for n in range(count)
    ]  # fmt: skip
    table = HandTable.build("folder", Path("/photographs"), rows, {})
    return make_split(table, "dorsal_r", protocol, seed, draws=3)


def people_of(split: Split, *roles: str) -> set[str]:
    images = split.images[split.images["role"].isin(roles)]
    return set(images["subject"].where(images["subject"] != "", images["identity"]))


MANY = {f"p{n}": 2 + n % 3 for n in range(60)}


@pytest.mark.parametrize("hands", [1, 2])
@pytest.mark.parametrize("folds", [0, 1, 2, 5])
def test_folds_part_people_whole_and_each_can_be_searched(folds, hands):
    split = split_of(MANY, hands=hands)
    found = choose_folds(split, "people", folds)
    trains = people_of(split, "train", "val")
    assert found.validation == "people"
    assert (found.reason, found.trains_all) == ("", folds > 0)
    held = [who for fold in found.held_out for who in fold]
    assert len(held) == len(set(held))
    assert set(held) <= trains
    if folds > 1:
        assert set(held) == trains
        sizes = [len(fold) for fold in found.held_out]
        assert (len(sizes), max(sizes) - min(sizes) <= 1) == (folds, True)
    else:
        assert [len(fold) for fold in found.held_out] == [round(0.2 * len(trains))]
    for fold in found.held_out:
        tested = as_tested(split, fold)
        assert people_of(tested, "test") == set(fold)
        assert set(tested.images["role"]) == {"test"}
        for draw in tested.draws():
            assert len(draw.gallery_ids) == len(set(draw.gallery_ids)) == hands * len(fold)
            assert set(draw.query_ids) == set(draw.gallery_ids)


def test_people_with_one_photograph_train_always():
    split = split_of({f"p{n}": 1 if n % 2 else 4 for n in range(80)})
    images = split.images[split.images["role"].isin(["train", "val"])]
    alone = images["identity"].value_counts().loc[lambda count: count == 1].index
    for folds in (0, 3):
        found = choose_folds(split, "people", folds)
        assert not {who for fold in found.held_out for who in fold} & set(alone)


def test_across_sessions_people_of_one_session_train_always():
    split = split_of({f"p{n}": 4 for n in range(80)}, "cross_session")
    some = split.images["identity"].isin(sorted(people_of(split, "train"))[:10])
    split = Split.build(split.meta, split.images.assign(session=split.images["session"].where(~some, "0")))
    found = choose_folds(split)
    assert not set(found.held_out[0]) & set(split.images.loc[some, "identity"])
    for draw in as_tested(split, found.held_out[0]).draws():
        session = split.images.set_index("path")["session"]
        enrolled = dict(zip(draw.gallery_ids, session[draw.gallery_paths], strict=True))
        assert len(draw.query_ids)
        assert all(session[path] != enrolled[who] for path, who in zip(draw.query_paths, draw.query_ids, strict=True))


def test_seed_and_names_alone_decide():
    split = split_of(MANY)
    again, other = split_of(dict(reversed(MANY.items()))), split_of(MANY, seed=1)
    assert choose_folds(split).held_out == choose_folds(again).held_out
    assert choose_folds(split).checksum == choose_folds(again).checksum
    assert choose_folds(split).checksum != choose_folds(other).checksum
    assert choose_folds(split).checksum != choose_folds(split, folds=1).checksum


@pytest.mark.parametrize(
    ("n_people", "n_images", "said"),
    [
        (6, 4, "3 people train, .* holding out 3 people leaves 0 identities to train, of at least 12"),
        (28, 4, "14 people train, .* holding out 3 people leaves 11 identities to train, of at least 12"),
        (80, 1, "40 people train, of whom 2 have two photographs or more: a share .* needs at least 3 to be searched"),
    ],
)
def test_where_too_few_are_left_the_validation_images_choose_and_why_is_said(n_people, n_images, said):
    split = split_of({f"p{n}": max(2, n_images) for n in range(n_people)})
    if n_images == 1:
        trains = split.images["role"].isin(["train", "val"])
        others = split.images["identity"].isin(sorted(people_of(split, "train"))[2:])
        split = Split.build(split.meta, split.images[~(trains & others & (split.images["role"] == "val"))])
    found = choose_folds(split)
    assert (found.validation, found.held_out, found.left_out) == ("val", (), ())
    assert re.fullmatch(said, found.reason)
    assert found.said.startswith("selected on validation images: ")
    with pytest.raises(DataError, match=r"folds=1: .*; give folds=0 with validation=val, or more people"):
        choose_folds(split, folds=1)
    assert choose_folds(split, "val").reason == ""


def test_where_two_halves_are_too_large_the_numbers_of_folds_that_do_are_named():
    split = split_of({f"p{n}": 4 for n in range(36)})
    with pytest.raises(DataError, match=r"holding out 9 people leaves 9 identities to train.*; give folds=3 to 6,"):
        choose_folds(split, folds=2)
    assert [len(choose_folds(split, folds=number).held_out) for number in (3, 6)] == [3, 6]


def test_fifteen_people_are_enough():
    found = choose_folds(split_of({f"p{n}": 4 for n in range(30)}))
    assert (found.validation, len(found.held_out[0])) == ("people", 3)


def test_more_folds_than_people_are_refused_with_the_most_there_can_be():
    split = split_of({f"p{n}": 4 for n in range(60)})
    with pytest.raises(DataError, match=r"folds=50: 30 people train.*at least 3 to be searched; give folds=2 to 10"):
        choose_folds(split, folds=50)
    assert len(choose_folds(split, folds=10).held_out) == 10


def test_what_is_held_out_is_written_beside_the_manifest(tmp_path):
    found = choose_folds(split_of(MANY), folds=3)
    found.write(tmp_path)
    told = json.loads((tmp_path / "folds.json").read_text())
    assert [tuple(fold) for fold in told["held_out"]] == list(found.held_out)
    assert (told["checksum"], told["split"], told["used"]) == (found.checksum, found.split, "people")
    assert "30 people not tested, in 3 folds" in told["said"]


def test_trained_people_are_enrolled_by_what_trained():
    split = split_of(MANY)
    people = sorted(people_of(split, "train"))[:8]
    role = split.images.set_index("path")["role"]
    for draw in as_tested(split, people, trained=True).draws():
        assert set(role[draw.gallery_paths]) == {"train"}
        assert set(draw.gallery_ids) == set(people)
        assert {
            path for path in split.images.loc[split.images["identity"].isin(people), "path"] if role[path] == "val"
        } <= set(draw.query_paths)
