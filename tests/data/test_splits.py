"""The protocols: who trains, who is tested, which image stands in which gallery."""

import hashlib
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.data.audit import PUBLISHED_COUNTS, split_counts, split_facts
from handclip_lib.data.folder import read_folder
from handclip_lib.data.labels import read_hands11k, read_labels
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import read_hd
from handclip_lib.data.splits import CUTOFFS, make_split, refuse_leak
from handclip_lib.data.table import ASPECTS, HandTable
from handclip_lib.errors import DataError


def open_table(images: dict[str, int], aspects=("dorsal_r",), dataset="folder", **attributes) -> HandTable:
    """`images` photographs of each identity and aspect."""
    rows = [
        {"path": f"{aspect}/{identity}/{identity}_{aspect}_{n}.jpg", "identity": identity, "aspect": aspect}
        | {"capture": n, **attributes}
        for aspect in aspects
        for identity, count in images.items()
        for n in range(count)
    ]
    return HandTable.build(dataset, Path("/photographs"), rows, {})


def tree(root: Path, *paths: str, content: str | None = None) -> HandTable:
    """Files of one content, or of each its own."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"photograph" if content is None else f"{content}{path}".encode())
    return read_folder(root)


def by_role(split, role, column="path"):
    return set(split.images.loc[split.images["role"] == role, column])


@pytest.mark.parametrize("aspect", ASPECTS)
def test_the_standard_protocol_has_the_published_counts(hands11k, aspect):
    split = make_split(hands11k, aspect)
    assert split.meta["protocol"] == "standard"
    for trial in range(10):
        draw, everyone = split.draw(trial), split.draw(trial, "all")
        assert tuple(PUBLISHED_COUNTS[aspect]) == (
            len(split.identities("train")), len(split.paths("train")), len(split.paths("val")),
            len(split.identities("test")), len(split.paths("test")),
            len(draw.query_paths), len(draw.gallery_paths), len(everyone.gallery_paths),
        )  # fmt: skip
        assert everyone.query_paths.tolist() == draw.query_paths.tolist()
    counts = split_counts(split)
    assert counts["found"].tolist() == counts["published"].tolist() == PUBLISHED_COUNTS[aspect].tolist()


@pytest.mark.parametrize("aspect", ASPECTS)
def test_the_standard_protocol_trains_up_to_the_cut_off_without_accessories(hands11k, aspect):
    split = make_split(hands11k, aspect)
    facts = hands11k.images.set_index("path").loc[split.images["path"]]
    assert not facts["accessories"].any()
    assert max(map(int, split.identities("train"))) == CUTOFFS[aspect] == split.meta["cutoff"]
    assert min(map(int, split.identities("test"))) > CUTOFFS[aspect]
    assert split.identities("val") == split.identities("train")
    assert set(split.images.loc[split.images["role"] != "other", "aspect"]) == {aspect}
    assert any("3211 images with accessories" in note for note in split.meta["notes"])


def test_a_draw_is_the_smallest_hash_of_seed_draw_identity_and_file_name(hands11k):
    split = make_split(hands11k, "palmar_l", seed=3)
    test = split.images[split.images["role"] == "test"]
    for trial in (0, 9):
        draw = split.draw(trial)
        expected = {}
        for path, identity in zip(test["path"], test["identity"], strict=True):
            key = hashlib.blake2b(f"3|{trial}|{identity}|{Path(path).name}".encode(), digest_size=8).digest()
            expected[identity] = min(expected.get(identity, (key, path)), (key, path))
        assert dict(zip(draw.gallery_ids, draw.gallery_paths, strict=True)) == {i: p for i, (_, p) in expected.items()}
        assert set(draw.query_paths) == set(test["path"]) - set(draw.gallery_paths)


def test_gallery_all_adds_the_galleries_of_the_other_aspects_as_other_identities(hands11k):
    split = make_split(hands11k, "dorsal_r")
    draw = split.draw(4, "all")
    foreign = {i: p for i, p in zip(draw.gallery_ids, draw.gallery_paths, strict=True) if "/" in i}
    expected = {}
    for aspect in ("dorsal_l", "palmar_r", "palmar_l"):
        own = make_split(hands11k, aspect).draw(4)
        expected |= {f"{aspect}/{i}": p for i, p in zip(own.gallery_ids, own.gallery_paths, strict=True)}
    assert foreign == expected
    assert not set(draw.query_ids) & set(foreign)


def test_draws_differ_and_the_seed_decides(hands11k):
    split, again, other = (make_split(hands11k, seed=seed) for seed in (0, 0, 1))
    assert split.checksum == again.checksum != other.checksum
    assert len({tuple(split.draw(trial).gallery_paths) for trial in range(10)}) == 10


def test_the_real_sample_says_what_its_gallery_lacks_and_who_cannot_be_queried(hands11k_sample):
    table = read_hands11k(hands11k_sample)
    split = make_split(table, "dorsal_r")
    lacking = [note for note in split.meta["notes"] if "gallery 'all' has no images of" in note]
    assert [note.split()[6] for note in lacking] == ["dorsal_l:", "palmar_l:"]
    images = table.images[(table.images["aspect"] == "dorsal_r") & ~table.images["accessories"].astype(bool)]
    sizes = images[images["identity"].astype(int) > 1050].groupby("identity").size()
    assert set(split.meta["unqueryable"]) == set(sizes.index[sizes == 1])
    assert split.meta["unqueryable"] == sorted(split.meta["unqueryable"], key=int)
    assert len(split.draw(0).query_paths) == (sizes - 1).sum()
    assert len(split.draw(0, "all").gallery_paths) > len(split.draw(0).gallery_paths) == len(sizes)


def test_a_split_is_the_same_on_every_machine_and_in_every_order():
    table = open_table({"0001": 3, "2": 1, "1200000": 4, "é": 2, "7": 5}, aspects=("dorsal_r", "palmar_r"))
    split = make_split(table, "dorsal_r", draws=3)
    assert split.checksum == "fc18b7a3c4137ce4bd96f6a4522e34c09a71d720b49ebeda7ec526b7b0ff8ed2"
    shuffled = replace(table, images=table.images.sample(frac=1, random_state=1, ignore_index=True))
    assert shuffled.images["path"].tolist() != table.images["path"].tolist()
    assert make_split(shuffled, "dorsal_r", draws=3).checksum == split.checksum


def test_other_photographs_of_the_same_names_are_another_split(tmp_path):
    paths = [f"{person}/{number}.jpg" for person in "abcd" for number in range(3)]
    one, other = (make_split(tree(tmp_path / name, *paths), draws=2) for name in ("one", "other"))
    assert (one.images["content"].str.len() == 32).all()
    assert one.checksum == other.checksum
    (tmp_path / "other" / "a" / "1.jpg").write_bytes(b"photo_raph")
    changed = make_split(read_folder(tmp_path / "other"), draws=2)
    assert changed.checksum != one.checksum
    assert changed.images.drop(columns="content").equals(one.images.drop(columns="content"))


def test_the_content_of_files_that_are_not_there_is_not_known():
    assert set(make_split(open_table({"1": 2, "2": 2, "3": 2})).images["content"]) == {""}


def test_a_test_identity_with_one_image_is_always_gallery_and_never_a_query():
    split = make_split(open_table({"1": 2, "2000": 1, "1999": 1, "3000": 3, "3001": 2}), protocol="standard")
    assert split.meta["unqueryable"] == ["1999", "2000"]
    for trial in range(10):
        draw = split.draw(trial)
        assert sorted(draw.gallery_ids) == ["1999", "2000", "3000", "3001"]
        assert sorted(draw.query_ids) == ["3000", "3000", "3001"]


def test_one_identity_with_a_query_is_refused_at_once_for_no_interval_could_be_given():
    with pytest.raises(DataError, match=r"2 test identities, 1 of which with two images .*protocol='proportional'"):
        make_split(open_table({"1": 2, "2000": 1, "3000": 3}), protocol="standard")


def test_a_train_identity_with_one_image_keeps_it_for_training():
    split = make_split(open_table({"1": 1, "2": 3, "2000": 2, "3000": 2}), protocol="standard")
    assert split.identities("train") == {"1", "2"}
    assert split.identities("val") == {"2"}
    assert split.meta["notes"][0].startswith("1 train identities have one image")


@settings(max_examples=5, deadline=None)
@given(
    st.dictionaries(st.text("ab12é", min_size=1, max_size=3), st.integers(2, 5), min_size=4, max_size=12),
    st.integers(0, 5),
)
def test_proportional_splits_never_share_a_person_over_the_aspects(images, seed):
    table = open_table(images, aspects=ASPECTS)
    splits = [make_split(table, aspect, "proportional", seed) for aspect in (*ASPECTS, "all")]
    trained = splits[0].identities("train")
    assert len(trained) == len(images) // 2
    for split in splits:
        assert split.identities("train") == split.identities("val") == trained
        assert split.identities("test") == set(images) - trained
    for pair in combinations(splits, 2):
        refuse_leak(*pair)
    pooled = splits[-1]
    assert len(pooled.images) == len(table.images)
    assert len(pooled.draw(0).gallery_paths) == len(images) - len(trained)


def test_half_the_identities_are_drawn_by_hash_not_by_their_order():
    table = open_table({str(identity): 2 for identity in range(40)})
    halves = [make_split(table, seed=seed).identities("train") for seed in range(3)]
    assert all(len(half) == 20 for half in halves)
    assert len({frozenset(half) for half in [*halves, set(map(str, range(20)))]}) == 4


def test_drawn_hands_are_split_without_accessories_too():
    table = open_table({str(i): 4 for i in range(6)}, dataset="drawn")
    table.images.loc[table.images["capture"] == 0, "accessories"] = True
    split = make_split(table)
    assert split.meta["protocol"] == "proportional"
    assert len(split.images) == 18
    assert split.meta["notes"][0] == "6 images with accessories left out by the protocol"


def test_data_without_aspects_is_taken_whole_and_not_labelled_with_one():
    split = make_split(open_table({str(i): 2 for i in range(6)}, aspects=("",)), "palmar_r")
    assert split.meta["aspect"] == "unspecified"
    assert len(split.images) == 12
    assert split.meta["notes"] == []


def test_hd_has_the_published_counts(tmp_path):
    def write(folder, identities, images):
        (tmp_path / "Original Images" / folder).mkdir(parents=True, exist_ok=True)
        for n in range(images):
            identity = identities[n % len(identities)]
            (tmp_path / "Original Images" / folder / f"{identity}_{n:04d}.jpg").write_bytes(b"x")

    write("1-501", range(197, 448), 2407)  # 251 identities, 447 the last
    write("1-501", range(448, 699), 2243)
    write("502-712", range(502, 713), 1342)
    split = make_split(read_hd(tmp_path))
    assert (split.meta["protocol"], split.meta["cutoff"], split.meta["aspect"]) == ("hd", 447, "unspecified")
    assert len(split.identities("train")) == len(split.identities("test")) == 251
    assert (len(split.paths("train")), len(split.paths("val")), len(split.paths("test"))) == (2156, 251, 2243)
    draw = split.draw(7)
    assert (len(draw.query_paths), len(draw.gallery_paths)) == (1992, 1593)
    distractors = {i for i in draw.gallery_ids if int(i) > 1000}
    assert distractors == {str(i + 1000) for i in range(502, 713)}
    proportional = make_split(read_hd(tmp_path), protocol="proportional")
    assert len(proportional.identities("train")) == len(proportional.identities("test")) == 251


GIVEN = (
    "train/1/a.jpg", "train/1/b.jpg", "val/1/c.jpg",
    "gallery0/2/d.jpg", "query0/2/e.jpg", "query0/2/f.jpg", "gallery0/30/g.jpg", "query0/30/h.jpg",
    "gallery1/2/f.jpg", "query1/2/e.jpg", "query1/2/d.jpg", "gallery1/30/g.jpg", "query1/30/h.jpg",
)  # fmt: skip


def test_a_tree_of_splits_is_split_as_its_folders_say(tmp_path):
    split = make_split(tree(tmp_path, *GIVEN, "gallery/2/d.jpg", "query/2/e.jpg"), draws=7)
    assert (split.meta["protocol"], split.meta["draws"]) == ("given", 2)
    names = {role: {Path(path).name for path in split.paths(role)} for role in ("train", "val", "test")}
    assert names == {
        "train": {"a.jpg", "b.jpg"},
        "val": {"c.jpg"},
        "test": {"d.jpg", "e.jpg", "f.jpg", "g.jpg", "h.jpg"},
    }
    for trial, gallery, query in ((0, "dg", "efh"), (1, "fg", "deh")):
        draw = split.draw(trial)
        assert sorted(Path(p).stem for p in draw.gallery_paths) == list(gallery)
        assert sorted(Path(p).stem for p in draw.query_paths) == list(query)
        assert sorted(draw.gallery_ids) == ["2", "30"]


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (("train/2/z.jpg",), "identity '2' lies in both train/val and query/gallery"),
        (("train/2/d.jpg", "train/2/e.jpg", "train/2/f.jpg"), "identity '2' lies in both"),
        (("val/30/h.jpg",), "identity '30' lies in both"),
        (("gallery3/2/d.jpg", "query3/2/e.jpg"), "has 3 draws but no query2/; number them from 0"),
        (("gallery1/40/z.jpg",), "gallery1/40/z.jpg lies in neither of query0/ and gallery0/"),
        (("gallery1/2/e.jpg",), "lies in both of query1/ and gallery1/"),
    ],
)
def test_a_tree_that_leaks_or_lacks_images_is_refused(tmp_path, added, words):
    with pytest.raises(DataError, match=words):
        make_split(tree(tmp_path, *GIVEN, *added))


def test_a_tree_without_test_images_is_refused(tmp_path):
    for folder in ("query0", "gallery0"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match="no photograph in query0/ and gallery0/"):
        make_split(tree(tmp_path, "train/1/a.jpg"))


def test_a_tree_of_another_aspect_is_refused(tmp_path):
    root = tmp_path / "train_val_test_split_palmar_l"
    table = tree(root, *GIVEN)
    assert make_split(table, "all").meta["aspect"] == make_split(table, "palmar_l").meta["aspect"] == "palmar_l"
    with pytest.raises(DataError, match="is a split of palmar_l; say -p aspect palmar_l"):
        make_split(table, "dorsal_r")


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ({"1": 2, "2000": 2}, {"protocol": "standard"}, "1 test identity, 1 of which with two images"),
        ({"1": 2, "2000": 1, "2001": 1}, {"protocol": "standard"}, "2 test identities, 0 of which with two images"),
        ({"1": 2, "2": 2}, {}, "1 test identity.*Use photographs of more people"),
        ({"1": 2, "2000": 2, "anna": 2}, {"protocol": "standard"}, "'anna' is not a number.*protocol='proportional'"),
        ({"1": 2, "2000": 2, "٣": 2}, {"protocol": "standard"}, "'٣' is not a number"),
        ({"1": 2, "2": 2}, {"aspect": "dorsal"}, "unknown aspect 'dorsal'; choose from dorsal_r, .*all"),
        ({"1": 2, "2": 2}, {"aspect": "palmar_l"}, "no image of aspect 'palmar_l' to split; it has dorsal_r"),
        ({"1": 2, "2": 2}, {"protocol": "standart"}, "unknown protocol 'standart'; choose from auto, standard"),
        ({"1": 2, "2": 2}, {"protocol": "given"}, "says no split of its own"),
        ({"1": 2, "2": 2}, {"draws": 0}, "draws=0"),
        ({"1": 2, "2": 2}, {"aspect": "all", "protocol": "standard"}, "1039, 1043, 1046 and 1050.*'proportional'"),
    ],
)
def test_what_cannot_be_split_is_refused_with_a_remedy(images, options, words):
    with pytest.raises(DataError, match=words):
        make_split(open_table(images), **options)


def test_data_that_is_all_accessories_says_so():
    with pytest.raises(DataError, match="only images with accessories"):
        make_split(open_table({"1": 2, "2": 2, "3": 2}, accessories=True))


def test_test_only_tests_everybody_and_trains_nobody():
    table = open_table({"1": 3, "2": 1, "anna": 2, "2000": 2}, aspects=("dorsal_r", "palmar_r"))
    for aspect in ("dorsal_r", "all"):
        split = make_split(table, aspect, protocol="test_only")
        assert split.identities("test") == {"1", "2", "anna", "2000"}
        assert not split.identities("train") | split.identities("val")
    assert set(make_split(table, "dorsal_r", protocol="test_only").images["role"]) == {"test", "other"}


def test_an_identity_is_compared_as_a_number_however_long():
    split = make_split(open_table({"0001050": 2, "1051": 2, "9" * 5000: 2}), protocol="standard")
    assert split.identities("train") == {"0001050"}
    assert split.identities("test") == {"1051", "9" * 5000}


def test_a_person_who_trains_one_aspect_is_not_tested_on_another(hands11k):
    trained, tested = make_split(hands11k, "dorsal_r"), make_split(hands11k, "dorsal_l")
    with pytest.raises(
        DataError, match=r"4 identities .*\(0001039, 0001043, 0001046, 0001050\).*dorsal_r, standard.*proportional"
    ):
        refuse_leak(trained, tested)
    refuse_leak(trained, trained)
    refuse_leak(tested, trained)  # 1037 < 1050: who trains dorsal_l trains dorsal_r or is not in it


def test_a_person_who_trains_with_one_image_only_leaks_too():
    table = open_table({"1": 2, "1040": 1, "2000": 2, "2001": 2}, aspects=("dorsal_r", "dorsal_l"), dataset="11k")
    with pytest.raises(DataError, match=r"1 identities .*\(1040\)"):
        refuse_leak(make_split(table, "dorsal_r"), make_split(table, "dorsal_l"))


def test_the_same_number_in_another_data_set_is_another_person():
    images = {str(identity): 2 for identity in range(1, 20)}
    trained, tested = (make_split(open_table(images, dataset="drawn"), seed=seed) for seed in (0, 1))
    with pytest.raises(DataError, match=r"identities of the test split trained the model \(.*, …\)"):
        refuse_leak(trained, tested)
    refuse_leak(trained, make_split(open_table(images), seed=1))


def test_identities_whose_files_have_the_same_names_are_drawn_for_themselves(tmp_path):
    rows = [{"path": f"{who}/{n}.jpg", "identity": str(who), "capture": n} for who in range(20) for n in range(5)]
    split = make_split(HandTable.build("folder", tmp_path, rows, {}), "all")
    assert len({Path(path).name for path in split.draw(0).gallery_paths}) > 1


def sessions_of(people: dict[str, dict[str, int]]) -> HandTable:
    """`people`: photographs in each session of each person."""
    rows = [
        {"path": f"{who}/{session}/{n}.jpg", "identity": who, "session": session}
        for who, sessions in people.items()
        for session, count in sessions.items()
        for n in range(count)
    ]
    return HandTable.build("folder", Path("/photographs"), rows, {})


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["s1", "s2", "s10"]), st.integers(1, 4), min_size=1), min_size=6, max_size=12
    ),
    st.integers(0, 5),
)
def test_across_sessions_no_query_is_of_the_session_its_person_is_enrolled_from(people, seed):
    table = sessions_of({f"p{n}": sessions for n, sessions in enumerate(people)})
    try:
        split = make_split(table, protocol="cross_session", seed=seed, draws=4)
    except DataError as error:
        assert "two sessions or more" in str(error)
        return
    session = dict(zip(table.images["path"], table.images["session"], strict=True))
    tested = split.images[split.images["role"] == "test"]
    for trial in range(4):
        draw, same = split.draw(trial), split.draw(trial, sessions="same")
        enrolled = {who: session[path] for who, path in zip(draw.gallery_ids, draw.gallery_paths, strict=True)}
        assert set(enrolled) == set(tested["identity"])
        for who, its in enrolled.items():
            turns = sorted({session[p] for p in tested["path"][tested["identity"] == who]}, key=lambda s: int(s[1:]))
            assert its == turns[trial % len(turns)], "sessions enrol in turn"
        others = [p for p, who in zip(tested["path"], tested["identity"], strict=True) if session[p] != enrolled[who]]
        assert sorted(draw.query_paths) == sorted(others)
        assert set(same.query_paths) == set(tested["path"]) - set(others) - set(draw.gallery_paths)
    alone = {who for who in set(tested["identity"]) if tested["session"][tested["identity"] == who].nunique() == 1}
    assert set(split.meta["unqueryable"]) == alone
    assert split_facts(split)["fact"].eq("test identities with one session, never a query").sum() == 1


def test_sessions_are_in_the_manifest_and_those_without_keep_their_checksum(tmp_path):
    split = make_split(sessions_of({f"p{n}": {"s1": 2, "s2": 2} for n in range(6)}), protocol="cross_session")
    read = Split.read(split.write(tmp_path))
    assert read.checksum == split.checksum
    assert read.draw(1).query_paths.tolist() == split.draw(1).query_paths.tolist()
    plain = make_split(open_table({str(n): 2 for n in range(6)}))
    assert "session" not in (plain.write(tmp_path).read_text().partition("\n")[0])


def test_across_sessions_everybody_must_be_of_a_session():
    table = sessions_of({f"p{n}": {"s1": 2, "" if n == 3 else "s2": 2} for n in range(6)})
    with pytest.raises(DataError, match=r"p3//0\.jpg is of no known session, which protocol='cross_session' needs"):
        make_split(table, protocol="cross_session")
    once = sessions_of({f"p{n}": {"s1": 3} for n in range(6)})
    with pytest.raises(DataError, match="0 of which with two sessions or more"):
        make_split(once, protocol="cross_session")


def test_people_in_a_folder_test_are_tested_with_draws_made_here(tmp_path):
    paths = [f"{role}/{role}{who}/{n}.jpg" for role in ("train", "val", "test") for who in "abc" for n in range(3)]
    split = make_split(tree(tmp_path, *paths), draws=4)
    assert (split.meta["protocol"], split.meta["draws"]) == ("given", 4)
    assert split.identities("test") == {"testa", "testb", "testc"}
    assert split.identities("train") == split.identities("val") == {f"{r}{w}" for r in ("train", "val") for w in "abc"}
    assert any("val/ holds other people than train/" in note for note in split.meta["notes"])
    tree(tmp_path, "test/traina/1.jpg")
    with pytest.raises(DataError, match="identity 'traina' lies in both train/val and test"):
        make_split(read_folder(tmp_path))


def test_the_same_photographs_under_another_layout_are_a_leak_whatever_they_are_called(tmp_path):
    names = [f"{who}/{n}.jpg" for who in range(8) for n in range(3)]
    lines = ["path,identity"]
    for name in names:
        who, n = name.split("/")
        for root, path in (("folder", f"p{who}/{n}.jpg"), ("csv", f"all/{7 - int(who)}{n}.jpg")):
            (tmp_path / root / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / path).write_bytes(name.encode())
        lines.append(f"all/{7 - int(who)}{n}.jpg,{who}0")
    (tmp_path / "csv" / "manifest.csv").write_text("\n".join(lines))
    trained = make_split(read_folder(tmp_path / "folder"), seed=1)
    with pytest.raises(DataError, match=r"tested photographs trained the model, such as all/.*which trained as p"):
        refuse_leak(trained, make_split(read_labels(tmp_path / "csv"), protocol="test_only"))
    other = tree(tmp_path / "other", *(f"p{name}" for name in names), content="of other people, called the same: ")
    known, said = refuse_leak(trained, make_split(other, protocol="test_only"))
    assert known
    assert "share none" in said


def test_a_subject_whose_other_hand_trained_is_a_leak():
    rows = [
        {"path": f"{hand}/{who}_{n}.jpg", "subject": str(who), "identity": f"{who} {hand}", "side": hand}
        for who in range(12) for hand in ("left", "right") for n in range(2)
    ]  # fmt: skip
    table = HandTable.build("11k", Path("/photographs"), rows, {})
    splits = [make_split(table, "all", "proportional", seed) for seed in (0, 1)]
    trained, tested = ({name.split()[0] for name in splits[0].identities(role)} for role in ("train", "test"))
    assert not trained & tested
    with pytest.raises(DataError, match="identities of the test split trained the model"):
        refuse_leak(*splits)
