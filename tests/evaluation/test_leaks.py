"""Each leak is planted, and each check has to find it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import open_dataset
from handclip_lib.data.splits import make_split
from handclip_lib.drawn.dataset import TINY_SEED, draw_image, subject_seed
from handclip_lib.errors import DataError, EvaluationError
from handclip_lib.evaluation import leaks as module
from handclip_lib.evaluation.features import Features, pixel_embeddings
from handclip_lib.evaluation.leaks import COPY, find_copies, leak_checks, prints, seen_photographs
from handclip_lib.parameters.parts import Data

CHECKS = ["people", "copies", "files", "near-duplicates", "selection", "labels"]


def split_of(tested: str, trained: str = "xyz", dataset: str = "folder", draws: int = 2, known: bool = True) -> Split:
    """Three images a tested person, a0 a1 a2 …: the first is the gallery's in draw 0, the second in draw 1."""
    rows = [(f"{who}{n}", who, "test", str(n) if n < draws else "") for who in tested for n in range(3)]
    rows += [(f"{who}{n}", who, role, "") for who in trained for n, role in enumerate(("train", "val"))]
    frame = pd.DataFrame(rows, columns=["path", "identity", "role", "gallery_in"])
    meta = {"dataset": dataset, "draws": draws, "aspect": "all", "protocol": "proportional", "unqueryable": []}
    content = [f"{dataset} {path}" if known else "" for path in frame["path"]]
    return Split.build(meta, frame.assign(aspect="", capture=pd.NA, content=content))


def images_of(split: Split, **copies: str) -> DecodedImages:
    """Files of different contents, but that some are copies of others."""
    paths = tuple(split.evaluated_paths())
    return DecodedImages(paths, np.zeros((len(paths), 1, 1, 3), np.uint8), {}, tuple(copies.get(p, p) for p in paths))


def checked(split: Split, name: str, trained: Split | None = None, selected_on: str = "val", **options):
    paths = split.evaluated_paths()
    pixels = Features.normalised(paths, np.eye(len(paths)))
    options = {"pixel_features": pixels, "images": images_of(split), **options}
    manifests = [] if trained is None else [trained]
    table = leak_checks(split, trained=manifests, selected_on=selected_on, **options)
    assert table["check"].tolist() == CHECKS
    assert table["detail"].str.endswith(".").all()
    return tuple(table.set_index("check").loc[name, ["passed", "detail"]])


def test_people_who_trained_are_not_tested():
    split = split_of("abc")
    assert checked(split, "people", split) == ("yes", "3 people trained, 3 are tested, and nobody is both.")
    assert checked(split, "people")[0] == "not checked"
    passed, said = checked(split, "people", split_of("xyz", "abd", dataset="11k"))
    assert passed == "yes" and "None of 9 tested photographs is one of the 6 that trained" in said
    assert said.endswith("their people are taken for others; 2 people have the same names there (a, b).")
    for other in (split_of("xyz", "abd", known=False), split_of("xyz", "uvw", dataset="11k", known=False)):
        passed, said = checked(split, "people", other)
        assert passed == "not checked" and "whether they are of other people is not known" in said
    with pytest.raises(EvaluationError, match=r"2 identities of the test split trained the model \(a, b\)"):
        checked(split_of("abc", dataset="11k", known=False), "people", split_of("xyz", "abd", dataset="11k"))


def test_a_photograph_that_trained_is_refused_whatever_it_is_called():
    trained = split_of("xyz", "pq")
    rows = trained.images.assign(content=trained.images["content"].replace("folder p1", "folder b2"))
    with pytest.raises(
        EvaluationError, match=r"1 of 9 tested photographs .*such as b2 of b, which trained as p1 of p:"
    ):
        checked(split_of("abc"), "people", Split.build(trained.meta, rows))


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_tested_person_who_trained_is_refused_by_name(role):
    trained = split_of("xyz", "abd")
    images = trained.images[(trained.images["role"] == role) | (trained.images["role"] == "test")]
    # other photographs of them, and those of x, y and z say that it is one data set
    images = images.assign(content=images["content"].where(images["role"] == "test", images["content"] + " other"))
    with pytest.raises(EvaluationError, match=r"2 identities of the test split trained the model \(a, b\)"):
        checked(split_of("abc"), "people", Split.build(trained.meta, images))


def test_a_copy_of_a_query_in_the_gallery_is_found_by_its_content():
    split = split_of("abc")
    assert checked(split, "files") == (
        "yes", "No query is the same file as a gallery image of its draw, compared by path and content."
    )  # fmt: skip
    # c2 is a copy of a0: in draw 0 a0 is in the gallery and c2 asks; in draw 1 both ask
    passed, detail = checked(split, "files", images=images_of(split, c2="a0"))
    assert passed == "no" and "content: 1 over all draws" in detail
    assert "such as c2 and a0." in detail
    # copies among queries, or among the gallery's images, are no leak; b0 and b1 change places between the draws
    assert checked(split, "files", images=images_of(split, c2="b2"))[0] == "yes"
    assert checked(split, "files", images=images_of(split, b0="a0"))[0] == "yes"
    assert checked(split, "files", images=images_of(split, b1="b0"))[1].find("content: 2 over all draws") > 0


def test_one_path_on_both_sides_is_found_and_an_image_that_was_not_decoded_is_named():
    split = split_of("abc")
    twice = split.images[split.images["path"] == "b2"].assign(gallery_in="0")
    passed, detail = checked(Split.build(split.meta, pd.concat([split.images, twice])), "files")
    assert passed == "no" and "such as b2 and b2" in detail
    with pytest.raises(DataError, match="b0 is not decoded"):
        checked(split, "files", images=images_of(split).select(["a0", "a1", "a2"]))


def test_near_duplicates_are_counted_as_a_loop_counts_them():
    rng = np.random.default_rng(0)
    split = split_of("abcdefgh", draws=3)
    paths = split.evaluated_paths()
    vector = dict(zip(paths, rng.normal(size=(len(paths), 2)), strict=True))
    features = Features.normalised(paths, np.stack(list(vector.values())))
    asked = own = others = 0
    for trial in range(3):
        gallery = [path for path in paths if path[1] == str(trial)]
        for query in [path for path in paths if path[1] != str(trial)]:
            asked += 1
            near = [g for g in gallery if features.of([query])[0] @ features.of([g])[0] >= 0.9]
            own += any(g[0] == query[0] for g in near)
            others += any(g[0] != query[0] for g in near)
    assert 0 < own < others < asked == 48
    passed, detail = checked(split, "near-duplicates", pixel_features=features, near=0.9)
    assert passed == "stated"
    assert f"{own} of the 48 queries of all draws ({100 * own / 48:.1f} %) have a near-duplicate of their own" in detail
    assert f"of 0.9 or more): they can be found by the photograph alone. {others} ({100 * others / 48:.1f} %)" in detail
    assert checked(split, "near-duplicates", pixel_features=features, near=1)[1].startswith("0 of the 48 queries")


def test_what_was_chosen_on_the_test_gets_its_label():
    split = split_of("abc")
    chosen_on = ("nothing", "tiny", "unknown", "people", "val", "test")
    assert [checked(split, "selection", selected_on=chosen)[0] for chosen in chosen_on] == [
        "yes", "stated", "not checked", "yes", "yes", "no",
    ]  # fmt: skip
    assert "is not known here" in checked(split, "selection", selected_on="unknown")[1]
    for check in ("selection", "labels"):  # another program's embeddings: neither is known
        assert checked(split, check, selected_on="embeddings")[0] == "not checked"
    assert '"selected on test"' in checked(split, "selection", selected_on="test")[1]
    assert checked(split, "labels")[0] == "yes"


def test_of_tiny_it_is_known_whom_it_learnt():
    split = split_of("abc")
    for check in ("people", "copies"):
        assert checked(split, check, selected_on="tiny")[0] == "yes"
        assert checked(split, check, selected_on="nothing")[0] == "not checked"
    of_tiny = Split.build({**split.meta, "dataset": "drawn", "seed": TINY_SEED}, split.images)
    assert checked(of_tiny, "people", selected_on="tiny") == (
        "no", "The weights learnt of the very people that seed=10000 draws: choose another seed."
    )  # fmt: skip


def test_an_unknown_choice_and_no_cosine_are_refused():
    with pytest.raises(
        EvaluationError, match="selected_on='train'; choose from nothing, tiny, unknown, embeddings, people, val, test"
    ):
        checked(split_of("abc"), "selection", selected_on="train")
    with pytest.raises(EvaluationError, match="near=98: a cosine"):
        checked(split_of("abc"), "selection", near=98)


PEOPLE, IMAGES = 4, 2


def photographs(root: Path, first: int, name: str = "{:03d}") -> Path:
    """A folder a person, of drawn hands from the person `first` on."""
    for number in range(PEOPLE):
        folder = root / name.format(number + 1)
        folder.mkdir(parents=True)
        for image in range(IMAGES):
            drawn = draw_image(subject_seed(0, first + number), "dorsal_r", image, 0.5)
            Image.fromarray(np.asarray(drawn)).resize((256, 256)).save(folder / f"{image}.png")
    return root


@pytest.fixture(scope="module")
def a(tmp_path_factory) -> Path:
    return photographs(tmp_path_factory.mktemp("a") / "photographs", 1)


@pytest.fixture(scope="module")
def b(tmp_path_factory) -> Path:
    """Other people, who have the same numbers."""
    return photographs(tmp_path_factory.mktemp("b") / "photographs", 101)


def copies_checked(trained_on: Path, tested_on: Path, here: Path | None = None, **options):
    """Leak checks of what trained in one folder, and is tested on everybody in another."""
    folders = {"dataset": "folder", "data_root": str(trained_on)}
    trained = make_split(open_dataset(**folders), "all", seed=3, draws=1)
    table = open_dataset(options.pop("dataset", "folder"), str(tested_on))
    split = make_split(table, "all", "test_only", draws=1, **options)
    images = decode_images(table.root, split.evaluated_paths(), 128, progress=False)
    if here is not None:
        folders["data_root"] = str(here)
    seen = [seen_photographs(trained, folders, images, Data())]
    pixels = pixel_embeddings(images)
    found = leak_checks(split, trained=[trained], selected_on="val", pixel_features=pixels, images=images, seen=seen)
    return found.set_index("check")


def test_the_same_photographs_under_another_layout_are_a_leak(a, tmp_path):
    hd = tmp_path / "Original Images" / "1-501"
    hd.mkdir(parents=True)
    for file in a.rglob("*.png"):
        shutil.copy(file, hd / f"{900 - int(file.parent.name)}_{file.stem}.jpg")
    words = (
        rf"{PEOPLE // 2 * IMAGES} of {PEOPLE * IMAGES} tested photographs trained the model, such as .*89\d_\d\.jpg "
    )
    with pytest.raises(EvaluationError, match=words + r"of 89\d, which trained as 00\d/\d\.png of 00\d"):
        copies_checked(a, tmp_path, dataset="hd")


def test_other_people_who_share_numbers_are_no_leak_and_it_says_why(a, b):
    found = copies_checked(a, b)
    assert found.loc["people", "passed"] == "yes"
    assert (
        "the two data sets (folder, folder) share none: their people are taken for others" in found["detail"]["people"]
    )
    assert "2 people have the same names there (00" in found["detail"]["people"]
    assert found.loc["copies", "passed"] == "yes", found.loc["copies", "detail"]
    assert "Looked at: 4 of 4 photographs that trained" in found.loc["copies", "detail"]


def test_photographs_saved_again_are_found(a, tmp_path):
    for number, file in enumerate(sorted(a.rglob("*.png"))):
        copy = tmp_path / "p" / f"person {file.parent.name}" / f"{file.stem}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(file)
        image.resize((150, 150) if number % 2 else image.size).save(copy, quality=30 if number % 3 else 80)
    found = copies_checked(a, tmp_path / "p")
    assert found.loc["people", "passed"] == "yes", "no byte is the same"
    passed, detail = found.loc["copies"]
    assert passed == "no"
    assert detail.startswith("Tested photographs that are near-duplicates of one that trained: 4, such as person 00")


def test_what_trained_is_decoded_as_what_is_tested(a):
    """By the backbone's own interpolation: else no photograph would be equal to itself, and no cache would serve."""
    table = open_dataset("folder", str(a))
    trained = make_split(table, "all", seed=3, draws=1)
    given = {"dataset": "folder", "data_root": str(a)}
    for interpolation in ("bilinear", "bicubic"):
        images = decode_images(table.root, list(table.images["path"]), 32, progress=False, interpolation=interpolation)
        seen = seen_photographs(trained, given, images, Data())
        own = images.select(list(seen.paths))
        assert own.content_keys == seen.content_keys
        np.testing.assert_array_equal(own.pixels, seen.pixels)


def test_photographs_that_are_gone_or_changed_are_not_checked(a, b, tmp_path):
    found = copies_checked(a, b, here=tmp_path / "gone")
    assert found.loc["copies", "passed"] == "not checked" and "not at hand" in found.loc["copies", "detail"]
    assert found.loc["people", "passed"] == "yes", "the contents are in the manifests"
    assert copies_checked(a, b, here=b).loc["copies", "passed"] == "not checked", "the same names hold others now"
    some = tmp_path / "some"
    shutil.copytree(a, some)
    for file in some.glob("*/0.png"):
        file.unlink()
    passed, detail = copies_checked(a, b, here=some).loc["copies"]
    assert passed == "not checked" and "Looked at: 2 of 4 photographs that trained" in detail


def decoded(pixels: np.ndarray, kind: str) -> DecodedImages:
    names = tuple(f"{kind}{n}" for n in range(len(pixels)))
    return DecodedImages(names, pixels, {}, names)


def test_blocks_find_what_the_whole_matrix_does(monkeypatch):
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (23, 40, 40, 3), np.uint8)
    tested = np.concatenate([seen[[20, 3, 3]], rng.integers(0, 256, (9, 40, 40, 3), np.uint8)])
    tested[1] //= 2
    monkeypatch.setattr(module, "AT_ONCE", 5)
    cosine = prints(tested) @ prints(seen).T
    for near in (0.9, 0.05):
        found = find_copies(decoded(tested, "t"), decoded(seen, "s"), near)
        rows = np.flatnonzero(cosine.max(axis=1) >= near)
        assert found == {f"t{row}": f"s{cosine[row].argmax()}" for row in rows}
    assert list(find_copies(decoded(tested, "t"), decoded(seen, "s")).values()) == ["s20", "s3", "s3"]


def test_what_shows_nothing_is_like_nothing():
    flat = np.full((3, 50, 50, 3), 200, np.uint8)
    assert find_copies(decoded(flat, "t"), decoded(flat, "s")) == {}


def test_no_two_people_of_the_real_sample_are_taken_for_one(hands11k_sample):
    table = open_dataset("11k", str(hands11k_sample))
    images = decode_images(table.root, table.images["path"], 128, progress=False)
    who = table.images.set_index("path").loc[list(images.paths), "identity"].to_numpy()
    shown = prints(images.pixels)
    cosine = np.where(who[:, None] == who, 0, shown @ shown.T)
    assert cosine.max() < COPY - 0.02
