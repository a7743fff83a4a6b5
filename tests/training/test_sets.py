"""Data sets that train beside a notebook's own: their people are others, and nobody of theirs is searched."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handclip_lib.backbone.properties import Properties
from handclip_lib.data.folds import Folds, choose_folds
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import open_images
from handclip_lib.data.splits import refuse_leak
from handclip_lib.errors import ConfigError, DataError, EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.leaks import leak_checks, seen_photographs
from handclip_lib.evaluation.studies.prompts import prompt_task
from handclip_lib.launch.plan import plan
from handclip_lib.models.lineage import (
    BEFORE,
    BESIDE,
    TrainedOn,
    cautions_of,
    lineage_beside,
    read_lineage,
    write_lineage,
)
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import ImageFinetune, JointTraining
from handclip_lib.report.private import redaction_of
from handclip_lib.runs.inputs import contents, what_is_read
from handclip_lib.training.sets import open_sets, prompt_task_with
from handclip_lib.training.validation import training_images

SIDE = 16
BACKBONE = SimpleNamespace(
    resolution=SIDE, properties=Properties(), fingerprint="test", precision="fp32",
    encode_image=lambda pixels: pixels.reshape(len(pixels), -1)[:, :9].astype(np.float32) + 1,
)  # fmt: skip


def hands(root: Path, people: dict[str, int], seed: int, aspect: str = "", mode: str = "RGB") -> Path:
    """A folder a person, below one of the aspect where there is one, of so many photographs of noise."""
    rng = np.random.default_rng(seed)
    for who, count in people.items():
        folder = root / aspect / who
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / f"{number}.png")
    return root


OWN = {f"{n:03d}": 3 for n in range(1, 41)}
OTHERS = {f"{n:03d}": 2 for n in range(1, 4)} | {"004": 1}
SIX = OTHERS | {"005": 2, "006": 2}  # the same photographs, and enough to test


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Forty people, half of whom train."""
    return hands(tmp_path_factory.mktemp("own") / "hands", OWN, 1)


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """Four other people, who have the same numbers; grey, and of one there is one photograph."""
    return hands(tmp_path_factory.mktemp("others") / "hands", OTHERS, 2, mode="L")


def opened(own: Path, extra: str = "", **given):
    config = resolve(
        ImageFinetune, {"dataset": "folder", "data_root": str(own), "draws": 2, "extra_data": extra, **given}
    )
    table, images, split = open_images(config, SIDE, progress=False)
    return config, images, split, open_sets(config, table, split, BACKBONE, progress=False)


def test_equal_names_of_two_sets_are_two_people_and_none_of_the_others_is_searched(own, others):
    _, _, alone, nothing = opened(own)
    assert nothing.extra == () and nothing.before == ()
    _, images, split, sets = opened(own, f"folder:{others}")
    assert split.checksum == alone.checksum
    folds = choose_folds(split, "people", 0, sets.known)
    assert folds == choose_folds(split)
    plain, both = (training_images(images, split, folds, extra) for extra in ((), sets.extra))
    n = len(plain.identities)
    assert both.identities == (*plain.identities, *(f"folder:{who}" for who in sorted(OTHERS)))
    assert len(set(both.identities)) == n + 4
    np.testing.assert_array_equal(both.labels[: len(plain.labels)], plain.labels)
    found = {}
    for label, pixels in zip(both.labels[len(plain.labels) :], both.pixels[len(plain.labels) :], strict=True):
        found.setdefault(both.identities[label], []).append(pixels)
    (extra,) = sets.extra
    for who, count in OTHERS.items():
        assert len(found[f"folder:{who}"]) == count
        files = sorted((others / who).glob("*.png"))
        expected = [np.asarray(Image.open(file).convert("RGB")) for file in files]
        np.testing.assert_array_equal(found[f"folder:{who}"], expected)
    np.testing.assert_array_equal(both.val_pixels, plain.val_pixels)
    encode = BACKBONE.encode_image
    assert both.validate(encode) == plain.validate(encode)
    at_all = [training_images(images, split, Folds("val"), extra).validate(encode) for extra in ((), sets.extra)]
    assert at_all[0] == at_all[1], "no image of another set stands in the gallery"
    assert extra.split.identities("train") == set(OTHERS) and not extra.split.identities("val")


def test_their_people_learn_prompts_of_their_own(own, others):
    _, images, split, sets = opened(own, f"folder:{others}")
    held = images.select(split.paths("train") + split.paths("val"))
    features = Features.normalised(held.paths, BACKBONE.encode_image(held.pixels))
    task = prompt_task(features, split)
    assert prompt_task_with(task, (), BACKBONE, 8) is task
    more = prompt_task_with(task, sets.extra, BACKBONE, 8)
    assert more.identities[len(task.identities) :] == sets.extra[0].identities
    whose = [more.identities[label] for label in more.labels]
    assert {path.split("/")[0] for path in more.paths[len(task.paths) :]} == set(sets.extra[0].identities)
    assert whose[len(task.paths) :] == [path.split("/")[0] for path in more.paths[len(task.paths) :]]
    assert more.val_paths == task.val_paths
    pixels = np.concatenate([images.pixels[images.rows(task.paths)], sets.extra[0].images.pixels])
    np.testing.assert_allclose(more.images, BACKBONE.encode_image(pixels), rtol=1e-5)


def test_two_sets_of_one_kind_have_two_labels_and_a_clash_takes_the_next(own, others, tmp_path):
    third = hands(tmp_path / "third", {"001": 2}, 3)
    _, _, _, sets = opened(own, f"folder:{others} | folder:{third}")
    assert [one.label for one in sets.extra] == ["folder", "folder2"]
    named = hands(tmp_path / "named", {f"folder:{who}": count for who, count in OWN.items()}, 4)
    _, _, _, sets = opened(named, f"folder:{others}")
    assert [one.label for one in sets.extra] == ["folder2"]


def test_the_aspect_is_the_runs_or_its_own_and_a_set_without_one_is_taken_whole(own, others, tmp_path):
    backs = hands(hands(tmp_path / "both", {"a": 2}, 5, "dorsal_r"), {"b": 2, "c": 1}, 6, "palmar_l")

    def trained(entry: str, **given) -> set[str]:
        (extra,) = opened(own, entry, **given)[3].extra
        return extra.split.identities("train")

    assert trained(f"folder:{others}:palmar_l") == set(OTHERS)
    assert trained(f"folder:{backs}", aspect="palmar_l") == {"b", "c"}
    assert trained(f"folder:{backs}:dorsal_r", aspect="palmar_l") == {"a"}
    assert trained(f"folder:{backs}:all") == {"a", "b", "c"}
    with pytest.raises(DataError, match=r"extra_data=.*no photograph of aspect 'dorsal_l'; it has dorsal_r, palmar_l"):
        trained(f"folder:{backs}", aspect="dorsal_l")
    with pytest.raises(DataError, match=r"extra_data=.*identity='hand': of .* it is not known which hand"):
        opened(backs, f"folder:{others}", aspect="all", identity="hand", protocol="proportional")


def test_who_is_tested_there_and_who_wears_something_stays_out(own, tmp_path):
    root = hands(tmp_path / "table", {"a": 2, "b": 2, "c": 2}, 7)
    rows = [(f"{who}/{n}.png", who, role, ring) for who, role, ring in (("a", "train", ""), ("b", "train", "yes"))
            for n in range(2)]  # fmt: skip
    rows += [("c/0.png", "c", "query", ""), ("c/1.png", "c", "gallery", "")]
    frame = pd.DataFrame(rows, columns=["path", "identity", "role", "accessories"])
    frame.assign(draw=[0 if row[2] in ("query", "gallery") else "" for row in rows]).to_csv(
        root / "manifest.csv", index=False
    )
    (extra,) = opened(own, f"csv:{root}")[3].extra
    assert extra.split.identities("train") == {"a"}
    assert "2 images with accessories left out" in extra.split.meta["notes"]
    frame[frame["role"] == "train"].assign(role="", accessories="yes").to_csv(root / "manifest.csv", index=False)
    with pytest.raises(DataError, match=r"extra_data='csv:.*nothing of .* trains: of 4 photographs 4 show accessories"):
        opened(own, f"csv:{root}")


@pytest.mark.parametrize("role", ["test", "train"])
def test_a_photograph_of_both_sets_is_refused(own, tmp_path, role):
    _, _, split, _ = opened(own)
    path = split.paths(role)[0]
    root = hands(tmp_path / "more", {"x": 2}, 8)
    (root / "y").mkdir()
    (root / "y" / "copy.png").write_bytes((own / path).read_bytes())
    words = "1 of 60 tested photographs trained the model" if role == "test" else "1 of its 3 photographs are in the"
    with pytest.raises(DataError, match=f"extra_data='folder:.*{words}") as told:
        opened(own, f"folder:{root}")
    assert "y/copy.png" in str(told.value)
    with pytest.raises(DataError, match=r"are in folder:.* too, such as"):
        opened(hands(tmp_path / "six", SIX, 2, mode="L"), f"folder:{root} | folder:{own}", protocol="proportional")


@pytest.mark.usefixtures("reports")
def test_what_cannot_be_is_refused_before_it_starts_with_all_other_faults(own, others, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(own)
    empty = tmp_path / "empty"
    empty.mkdir()
    backs = hands(tmp_path / "backs", {"a": 2}, 9, "dorsal_l")
    sets = ["folders:x", "11k", "drawn:x", "drawn", "drawn:palmar_r", f"folder:{link}:all", f"folder:{empty}",
            f"folder:{others}", f"folder:{others}/../hands", f"folder:{backs}", "folder:nowhere:palmr_r"]  # fmt: skip
    given = {
        "dataset": "folder",
        "data_root": str(own),
        "folds": 2,
        "validation": "val",
        "extra_data": " | ".join(sets),
    }
    notebook = Path(__file__).parents[2] / "notebooks" / "03_image_finetune.ipynb"
    with pytest.raises(ConfigError) as told:
        plan(notebook, given)
    lines = str(told.value).splitlines()
    wanted = (
        "folds=2: folds are of people", "no data set 'folders'; did you mean folder?", "'11k': it needs the folder",
        "extra_data='drawn:x': drawn hands have no folder", "'drawn:palmar_r': drawn is named before it",
        "is the folder of data_root too", f"{empty} ", "is the folder of folder:", "no photograph of aspect 'dorsal_r'",
        "'nowhere:palmr_r' does not exist",
    )  # fmt: skip
    assert [words for words in wanted if sum(words in line for line in lines) != 1] == [], told.value
    with pytest.raises(ConfigError, match="11k is the notebook's own data set, and each of its people would be two"):
        resolve(ImageFinetune, {"dataset": "11k", "data_root": "a", "extra_data": "11k:b:palmar_r"})
    with pytest.raises(ConfigError, match=r"prompt_run='latest': 02 learnt no prompt of the people of extra_data"):
        resolve(JointTraining, {"extra_data": "folder:b", "prompt_run": "latest"})


def test_other_photographs_beside_it_make_another_run(own, others, tmp_path):
    def read(extra: str) -> dict[str, str]:
        return what_is_read(ImageFinetune(dataset="folder", data_root=str(own), extra_data=extra), progress=False)

    assert "extra_data" not in read("drawn:palmar_r")
    root = hands(tmp_path / "one", {"a": 2}, 10)
    before = read(f"folder:{root}")
    assert before["data_root"] == read("")["data_root"]
    Image.new("RGB", (SIDE, SIDE)).save(root / "a" / "0.png")
    assert before["extra_data"] != read(f"folder:{root}")["extra_data"]


def put_run(folder: Path, lineage: tuple[TrainedOn, ...]) -> str:
    """What a training leaves of what trained it; the file of its weights."""
    lineage[0].split.write(folder)
    write_lineage(folder, lineage)
    return str(folder / "best.safetensors")


def test_a_run_from_anothers_weights_knows_whom_they_know(own, others, tmp_path):
    config, _, split, sets = opened(own, f"folder:{others}")
    folds = choose_folds(split)
    folds.write(tmp_path)
    weights = put_run(tmp_path, sets.lineage(split, folds, config))
    read = read_lineage(tmp_path)
    assert [one.split.checksum for one in read] == [split.checksum, sets.extra[0].split.checksum]
    assert [one.how for one in read] == ["own", BESIDE] and read[0].held_out == folds.left_out
    assert {name.split("/")[0] for name in contents(tmp_path)} == {"split.csv", "split.json", "trained_on"}

    again = opened(own, weights=weights)
    assert [one.how for one in again[3].before] == [BEFORE, BEFORE]
    assert again[3].known == split.identities("train") - set(folds.left_out)
    assert choose_folds(split, known=again[3].known).held_out == folds.held_out, "the same strangers, or none"
    cautions = cautions_of(again[3].lineage(split, folds, again[0]))
    assert cautions == [
        "The weights it began with had been trained on folder unspecified (16 people, 2.0 photographs each) + folder "
        "unspecified (4 people, 1.8 photographs each)."
    ]
    said = choose_folds(split, known=split.identities("train"))
    assert said.validation == "val" and "did not train the weights it begins with, as 20 did" in said.reason
    with pytest.raises(DataError, match=r"weights='.*': \d+ of \d+ tested photographs trained the model"):
        opened(hands(tmp_path / "six", SIX, 2, mode="L"), weights=weights, protocol="proportional")
    with pytest.raises(DataError, match=r"weights='.*': \d+ of 60 tested photographs trained the model"):
        opened(own, weights=weights, seed=1)
    assert lineage_beside("") == () and lineage_beside(str(tmp_path / "elsewhere" / "best.safetensors")) == ()


def test_weights_that_test_images_chose_are_refused_where_it_would_not_be_said(own, tmp_path):
    config, _, split, sets = opened(own, validation="test")
    weights = put_run(tmp_path, sets.lineage(split, Folds("test"), config))
    (tmp_path / "run.json").write_text('{"parameters": {"validation": "test"}}')
    with pytest.raises(DataError, match="images that are tested chose their epoch"):
        opened(own, weights=weights)
    assert opened(own, weights=weights, validation="test")[3].before


def test_the_leak_checks_look_at_every_set_that_trained(own, others):
    config, images, split, sets = opened(own, f"folder:{others}")
    tested = images.select(split.evaluated_paths())
    lineage = sets.lineage(split, Folds("val"), config)
    seen = [seen_photographs(one.split, one.opened, images, config) for one in lineage]
    assert sorted(seen[1].paths) == sorted(sets.extra[0].images.paths)
    pixels = Features.normalised(tested.paths, np.eye(len(tested.paths)))
    given = {"selected_on": "val", "pixel_features": pixels, "images": tested}
    found = leak_checks(split, trained=[one.split for one in lineage], seen=seen, **given).set_index("check")
    assert found.loc["people", "passed"] == found.loc["copies", "passed"] == "yes"
    assert "Looked at: 67 of 67 photographs that trained" in found.loc["copies", "detail"]
    assert "20 people trained, 20 are tested" in found.loc["people", "detail"]
    assert "one of the 7 that trained" in found.loc["people", "detail"]
    rows = sets.extra[0].split.images
    leak = Split.build(sets.extra[0].split.meta, rows.assign(content=rows["content"].where(
        rows.index > 0, split.images.loc[split.images["role"] == "test", "content"].iloc[0])))  # fmt: skip
    with pytest.raises(EvaluationError, match="1 of 60 tested photographs trained the model"):
        leak_checks(split, trained=[split, leak], seen=seen, **given)
    copied = replace(seen[1], pixels=images.pixels[images.rows(split.paths("test")[:7])])
    copies = leak_checks(split, trained=[split, lineage[1].split], seen=[seen[0], copied], **given)
    assert copies.set_index("check").loc["copies", "passed"] == "no"
    assert refuse_leak(split, split)[0]


def test_a_private_report_names_nobody_of_another_set(own, others, tmp_path):
    config, _, split, sets = opened(own, f"folder:{others}")
    lineage = sets.lineage(split, Folds("val"), config)
    assert cautions_of(lineage) == [
        "Trained on folder unspecified (20 people, 2.0 photographs each) + folder unspecified (4 people, 1.8 "
        "photographs each); validated and tested on folder alone."
    ]
    put_run(tmp_path, lineage)
    redaction = redaction_of(tmp_path, {"parameters": config.model_dump()})
    for name in ("folder:004", "004"):
        assert redaction.cell(name).startswith("person-")
    assert redaction.value("extra_data", config.extra_data) == "withheld"
    assert str(others) not in redaction.text(f"read {others}")
    assert redaction.cell("folder") == "folder", "a word of the library's own"
