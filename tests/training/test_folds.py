"""Trainings without some people, by plain functions on a CLIP of a few thousand weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.data.folds import Folds, choose_folds
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable, identity_order
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import PROMPTS, TRAINING, save_texts
from handclip_lib.parameters.notebooks import ImageFinetune
from handclip_lib.training import folds as module
from handclip_lib.training.encoding import BatchEncoder
from handclip_lib.training.folds import FoldHistory, choose, fit_folds, mean_history
from handclip_lib.training.generalisation import Generalisation, generalisation
from handclip_lib.training.image import ImageResult, fit_image
from handclip_lib.training.sets import ExtraSet
from handclip_lib.training.state import load_checkpoint
from handclip_lib.training.validation import TrainingImages, training_images

NO_SHARES = pd.DataFrame()
OPTIONS = ImageFinetune(epochs=3, n_identities=8, n_images=2, views=1, folds=2, learning_rate=1e-3, interpolation=1.0)

OTHERS = [{"path": f"o{n}_{k}.jpg", "identity": f"p{n}", "aspect": "dorsal_r"} for n in range(4) for k in range(2)]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    model = clip_package().model.CLIP(16, 32, 1, 64, 16, 77, 100, 64, 1, 1).eval()
    return Backbone("random", model, 32, 16, 77, torch.device("cpu"), "")


@pytest.fixture(scope="module")
def hands() -> tuple[DecodedImages, Split]:
    """Sixty people, half of whom train; each has a colour."""
    rng = np.random.default_rng(0)
    rows = [{"path": f"{n}_{k}.jpg", "identity": f"p{n}", "aspect": "dorsal_r"} for n in range(60) for k in range(3)]
    split = make_split(HandTable.build("folder", Path("/photographs"), rows, {}), draws=2)
    paths = tuple(split.images["path"])
    colour = {f"p{n}": rng.integers(40, 216, 3) for n in range(60)}
    noise = rng.integers(-40, 40, (len(paths), 32, 32, 3))
    pixels = np.stack([colour[who] + own for who, own in zip(split.images["identity"], noise, strict=True)])
    return DecodedImages(paths, pixels.astype(np.uint8), {}, paths), split


def test_nobody_of_a_fold_is_in_its_batches_and_everybody_is_measured_once(backbone, hands, monkeypatch):
    images, split = hands
    folds = choose_folds(split, folds=2)
    person = {pixels.tobytes(): who for pixels, who in zip(images.pixels, split.images["identity"], strict=True)}
    trained, measured = [], []

    plainly = BatchEncoder.inputs

    def inputs(self, rows, own, seeds):
        trained[-1].update(person[one.tobytes()] for one in self._pixels[rows])
        return plainly(self, rows, own, seeds)

    def watched(*given, validate, **more):
        trained.append(set())
        measured.append(set())

        def looked(encode):
            def encoded(some):
                measured[-1].update(person[one.tobytes()] for one in some)
                return encode(some)

            return validate(encoded)

        return fit_image(*given, validate=looked, **more)

    monkeypatch.setattr(BatchEncoder, "inputs", inputs)
    monkeypatch.setattr(module, "fit_image", watched)
    found = fit_folds(backbone, images, split, folds, OPTIONS.model_copy(update={"epochs": 1}), progress=False)
    for seen, asked, fold in zip(trained, measured, folds.held_out, strict=True):
        assert seen == split.identities("train") - set(fold)
        assert asked - seen == set(fold)
    assert found.each["fold"].tolist() == [1, 1, 2, 2]
    assert not (set().union(*trained, *measured) & split.identities("test"))


def test_without_a_last_training_there_is_no_fold(backbone, hands):
    images, split = hands
    for folds in (choose_folds(split), Folds("val"), Folds("test")):
        found = fit_folds(backbone, images, split, folds, OPTIONS)
        assert (found.best_epoch, len(found.history), len(found.each)) == (None, 0, 0)


def test_a_killed_training_goes_on_in_its_fold_to_the_same_figures(backbone, hands, tmp_path, monkeypatch):
    """Two data sets train in each fold."""
    images, split = hands
    folds = choose_folds(split, folds=2)
    others = make_split(HandTable.build("folder", Path("/others"), OTHERS, {}), draws=2)
    photographs = DecodedImages(images.paths[:8], images.pixels[:8] // 2, {}, images.paths[:8])
    given = {"extra": (ExtraSet("others", others, replace(photographs, paths=tuple(others.images["path"])), {}),)}
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    whole = fit_folds(backbone, images, split, folds, OPTIONS, progress=False, **given)
    measure, count = TrainingImages.validate, 0

    def dies(self, encode):
        nonlocal count
        count += 1
        if count == 7:  # the first fold's four, and two of the second
            raise KeyboardInterrupt
        return measure(self, encode)

    monkeypatch.setattr(TrainingImages, "validate", dies)
    with pytest.raises(KeyboardInterrupt):
        fit_folds(backbone, images, split, folds, OPTIONS, folder=tmp_path, progress=False, **given)
    tensors, _ = load_checkpoint(tmp_path / "folds" / "1" / TRAINING)
    assert not tensors, "of a fold that has ended the history is kept, and no weights"
    found = fit_folds(backbone, images, split, folds, OPTIONS, folder=tmp_path, progress=False, **given)
    assert count == 7 + 2, "the epochs that were missing are measured, and no other"
    pd.testing.assert_frame_equal(found.each.drop(columns="seconds"), whole.each.drop(columns="seconds"))
    assert found.best_epoch == whole.best_epoch
    again = fit_folds(backbone, images, split, folds, OPTIONS, folder=tmp_path, progress=False, **given)
    pd.testing.assert_frame_equal(again.each, found.each)
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_last_training_keeps_the_epoch_of_the_whole_schedule_that_folds_chose(backbone, hands, kept, tmp_path):
    images, split = hands
    people = training_images(images, split, choose_folds(split, folds=2))

    def fit(folder: Path, **more):
        encoder = ReidEncoder(backbone.copy(), len(people.identities), OPTIONS)
        some = {"validate": people.validate, "folder": folder, "progress": False} | more
        return encoder, fit_image(encoder, people.pixels, people.labels, OPTIONS, **some)

    encoder, result = fit(tmp_path / "kept", keep_epoch=kept)
    ends = iter([*[False] * (kept - 1), True])
    other = tmp_path / "stopped"  # a training of all epochs, stopped there
    measured = {"val_map": 0.0}

    def rises(encode):
        measured["val_map"] += 1
        return measured

    if kept:
        stopped, whole = fit(other, validate=rises, stop=lambda: next(ends))
        assert whole.best_epoch == kept
        rates = [one.history["learning_rate"].tolist()[1:] for one in (result, whole)]
        assert rates[0] == rates[1]
    else:
        stopped = ReidEncoder(backbone.copy(), len(people.identities), OPTIONS)
    for name, value in stopped.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value), name
    assert result.best_epoch == kept
    assert result.learnt == ("yes" if kept else "no: epoch 0 was best")
    assert "val_map" not in result.history, "there are no strangers left"
    _, again = fit(tmp_path / "kept", keep_epoch=kept)
    pd.testing.assert_frame_equal(again.history, result.history)


def test_a_fold_takes_the_prompts_of_its_own_people(backbone, hands, tmp_path, monkeypatch):
    images, split = hands
    folds = choose_folds(split, folds=2)
    everybody = sorted(split.identities("train"), key=identity_order)
    texts = np.arange(len(everybody) * 16, dtype=np.float32).reshape(-1, 16)
    own = tuple(name for name in everybody if name not in folds.held_out[1])
    save_texts(tmp_path / "folds" / "2" / PROMPTS, np.full((len(own), 16), 7, np.float32), own, backbone)
    given = []

    def taken(*_, text, **__):
        given.append(text)
        return ImageResult(pd.DataFrame({"epoch": [0], "val_map": [0.5]}), 0, "yes", 1.0, NO_SHARES)

    monkeypatch.setattr(module, "fit_image", taken)
    monkeypatch.setattr(module, "keep_history", lambda _: None)
    fit_folds(backbone, images, split, folds, OPTIONS, texts=texts, folder=tmp_path)
    first = [number for number, name in enumerate(everybody) if name not in folds.held_out[0]]
    np.testing.assert_array_equal(given[0], texts[first])
    np.testing.assert_array_equal(given[1], np.full((len(own), 16), 7))


def test_the_mean_over_folds_chooses_and_its_interval_is_that_of_a_mean():
    one = pd.DataFrame({"epoch": [0, 1, 2, 3], "val_rank1": [0.5, 0.6, 0.9, 1.0], "loss": [np.nan, 3, 2, 1]})
    other = pd.DataFrame({"epoch": [0, 1, 2], "val_rank1": [0.5, 0.8, 0.4], "loss": [np.nan, 3, 2]})
    for frame, width in ((one, 0.3), (other, 0.4)):
        frame["val_rank1_low"], frame["val_rank1_high"] = frame["val_rank1"] - width, frame["val_rank1"] + width
    mean = mean_history([one, other])
    np.testing.assert_allclose(mean["val_rank1"], [0.5, 0.7, 0.65])  # epoch 3 only one has reached
    np.testing.assert_allclose(mean["val_rank1_high"] - mean["val_rank1"], 0.25)  # √(0.3² + 0.4²) / 2
    np.testing.assert_allclose(mean["val_rank1_low"], mean["val_rank1"] - 0.25)
    assert (choose(mean, "val_rank1"), choose(mean, "loss")) == (1, 2)
    mean["val_rank1"] = [0.8, 0.7, 0.65]
    assert choose(mean, "val_rank1") == 0, "the frozen model may be the best"


class Summary:
    """What is asked of a result on the people who are tested."""

    def __init__(self, model: str, rank1: float):
        self.model, self.gallery, self.n_people, self.rank1, self.whose = model, "aspect", 70, rank1, "people"

    def summary(self) -> dict[str, float]:
        return {"rank1": self.rank1}


def curve(strangers: list[float], epoch: int) -> Generalisation:
    frame = pd.DataFrame({"epoch": range(len(strangers)), "trained_rank1": 0.9, "strangers_rank1": strangers})
    return Generalisation(frame, epoch, "14 held-out people", pd.DataFrame())


def test_training_that_did_not_help_strangers_is_told_with_its_figures():
    better, worse = ([Summary("tiny, joint", rank1), Summary("tiny, frozen", 0.8)] for rank1 in (0.9, 0.797))
    assert curve([0.5, 0.6], 1).unhelped(better) == ""
    assert curve([0.5, 0.4, 0.45], 2).unhelped(better) == (
        "rank-1 of 14 held-out people is 45.0 % at epoch 2, 50.0 % by the frozen model"
    )
    assert curve([0.5, 0.4, 0.45], 0).unhelped(worse) == (
        "the frozen model finds 50.0 % of the photographs of 14 held-out people first, 45.0 % at the best of 2 later "
        "epochs"
    )
    assert curve([0.5, 0.6], 1).unhelped(worse) == (
        "rank-1 of the 70 people tested is 79.7 %, 80.0 % by the frozen model"
    )
    assert curve([0.5, 0.6], 1).unhelped(worse[:1]) == ""


def test_the_gap_is_that_of_trained_people_and_strangers():
    table = curve([0.5, 0.6, 0.7], 2).table
    assert table["model"].tolist() == ["frozen", "epoch 2"]
    np.testing.assert_allclose(table["rank1_gap"], [0.4, 0.2])
    assert curve([0.5, 0.6], 0).table["model"].tolist() == ["frozen"]


def test_runs_are_chosen_by_the_mean_and_the_worst_fold_of_people_held_out():
    folds = Folds("people", (("a",), ("b",), ("c",)), True)
    rows = [
        {"fold": fold, "epoch": epoch, "val_rank1": before + epoch * gain, "val_map": 0.5 + epoch / 10}
        for fold, before, gain in ((1, 0.5, 0.1), (2, 0.6, -0.02), (3, 0.7, 0.04))
        for epoch in (0, 1, 2)
    ]
    each = pd.DataFrame(rows)
    last = ImageResult(pd.DataFrame({"epoch": [0, 1], "val_rank1": [0.9, 1.0]}), 1, "yes", 1.0, NO_SHARES)
    measured = FoldHistory(each.groupby("epoch", as_index=False).mean(), each, 1)
    figures = generalisation(measured, last, folds).figures
    assert {name: round(value, 6) for name, value in figures.items()} == {
        "strangers_rank1": 0.64, "strangers_map": 0.6, "strangers_gain": 0.04, "strangers_worst": -0.02,
        "strangers_gain_low": -0.109048, "strangers_gain_high": 0.189048,  # 0.04 ± 4.302653 · 0.06 / √3
    }  # fmt: skip
    assert set(generalisation(replace(measured, best_epoch=0), last, folds).figures.values()) >= {0.0, 0.6, 0.5}
    single = FoldHistory(pd.DataFrame(), pd.DataFrame(), None)
    result = replace(last, history=each[each["fold"] == 2].drop(columns="fold"))
    figures = generalisation(single, result, Folds("people", (("b",),))).figures
    assert figures.keys() == {"strangers_rank1", "strangers_map", "strangers_gain", "strangers_worst"}
    assert figures["strangers_gain"] == figures["strangers_worst"] == pytest.approx(-0.02)
    for other in ("val", "test"):  # nobody is held out
        assert generalisation(single, result, Folds(other)).figures == {}


@pytest.mark.parametrize(
    ("validation", "columns"),
    [
        ("people", ["trained_rank1", "strangers_rank1"]),
        ("val", ["trained_rank1"]),
        ("test", ["trained_rank1", "strangers_rank1"]),
    ],
)
def test_with_validation_images_nobody_measured_is_a_stranger(validation, columns):
    measured = {"epoch": [0, 1], "val_rank1": [0.5, 0.6]} | (
        {} if validation == "val" else {"trained_rank1": [0.7, 0.8]}
    )
    nothing = FoldHistory(pd.DataFrame(), pd.DataFrame(), None)
    told = generalisation(nothing, ImageResult(pd.DataFrame(measured), 1, "yes", 1.0, NO_SHARES), Folds(validation))
    assert sorted(told.curve.columns.drop("epoch")) == sorted(columns)
    assert ("strangers" in told.of_whom, told.of_whom.startswith("trained people")) == (len(columns) == 2, True)
    folds = FoldHistory(pd.DataFrame(measured), pd.DataFrame(), 0)
    of_folds = generalisation(
        folds, ImageResult(pd.DataFrame({"epoch": [0]}), 0, "no", 1.0, NO_SHARES), Folds(validation)
    )
    assert (len(of_folds.curve), of_folds.epoch) == (2, 0)


@pytest.mark.parametrize(
    ("epoch", "share", "whitened", "said"),
    [
        (5, 0.5, "yes", "50 % of the way from the frozen ones to those of epoch 5; what they embed is whitened by the "
                       "photographs that trained"),
        (5, 1.0, "no", "those of epoch 5; what they embed is not whitened"),
        (5, 0.0, "no", "as they were before training; what they embed is not whitened"),
        (0, 1.0, "no", "as they were before training; what they embed is not whitened"),
    ],
)  # fmt: skip
def test_what_was_done_to_the_weights_is_said_of_what_was_done(epoch, share, whitened, said):
    result = ImageResult(pd.DataFrame(), epoch, "yes", share, NO_SHARES, whitened)
    assert result.after_training == f"The weights are {said}."
