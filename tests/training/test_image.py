from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import ConfigError, TrainingError
from handclip_lib.models.promptsg import PromptSG
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import encode_images
from handclip_lib.parameters.parts import Guidance, ImageTraining, ReidHead
from handclip_lib.training.image import fit_image
from handclip_lib.training.optimizer import groups, one_cycle, warm_up_cosine
from handclip_lib.training.state import load_checkpoint

WEIGHTS = {"identity": 1.0, "triplet": 1.0, "supcon": 0.5}
TERMS = {"image_to_text": "text_weight"}  # the others are called as their weight


def small_vit() -> Backbone:
    torch.manual_seed(0)
    model = clip_package().model.CLIP(16, 32, 2, 64, 16, 77, 100, 64, 1, 1).eval()
    return Backbone("random", model, 32, 16, 77, torch.device("cpu"), "")


def small() -> Backbone:
    torch.manual_seed(0)
    model = clip_package().model.CLIP(16, 32, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1)
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.ones_(parameter)
    return Backbone("random", model.eval(), 32, 16, 77, torch.device("cpu"), "")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Identities that are told by their colour; one has a single image."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), [5, 4, 4, 3, 1])
    colours = rng.integers(0, 256, (5, 1, 1, 3))
    return (colours[labels] + rng.integers(-40, 40, (17, 32, 32, 3))).clip(0, 255).astype(np.uint8), labels


def nearest(data):
    def validate(encode) -> dict[str, float]:
        unit = encode(data[0])
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        similarity = unit @ unit.T - 2 * np.eye(len(unit))
        return {"val_rank1": float((data[1][similarity.argmax(axis=1)] == data[1])[:16].mean())}

    return validate


def fit(data, encoder=None, **options):
    encoder = encoder or ReidEncoder(small(), 5, ReidHead())
    weights = options.pop("weights", WEIGHTS)
    given = {TERMS.get(name, f"{name}_weight"): weights.get(name, 0.0) for name in ImageTraining().loss_weights}
    given |= {"epochs": 4, "n_identities": 3, "n_images": 2, "learning_rate": 2e-3, "select_by": "val_rank1"}
    given |= {"interpolation": 1.0, "whitening": 0.0}
    given |= {name: options.pop(name) for name in set(options) & set(ImageTraining.model_fields)}
    options = {"validate": nearest(data), "progress": False} | options
    return encoder, fit_image(encoder, *data, ImageTraining().model_copy(update=given), **options)


def test_training_lowers_the_loss_and_holds_the_best_epoch(data):
    encoder, result = fit(data, epochs=12, select_by="loss")
    history = result.history
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[1]
    assert result.best_epoch == history["loss"].idxmin()
    wanted = {"identity", "triplet", "supcon", "gradient_norm", "learning_rate", "val_rank1", "seconds"}
    assert wanted <= set(history.columns)
    total = history["identity"] + history["triplet"] + 0.5 * history["supcon"]
    np.testing.assert_allclose(history["loss"][1:], total[1:], rtol=1e-5)
    assert not encoder.training


def test_frozen_tensors_are_identical_and_the_rest_moves(data):
    encoder = ReidEncoder(small(), 5, ReidHead(head="arcface", unfreeze_blocks=1))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    fit(data, encoder, epochs=2, select_by="loss")
    after = encoder.state_dict()
    learning = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert {"classifier", "neck.weight"} < learning
    counted = ("visual.layer4", "neck.running", "neck.num")
    for name, value in before.items():
        frozen = name not in learning - {"centers"} and not name.startswith(counted)
        assert not frozen or torch.equal(after[name], value), name
    moves = {name for name in learning if "k_proj.bias" not in name and name != "centers"}
    assert all(not torch.equal(after[name], before[name]) for name in moves)


@pytest.mark.parametrize(("optimizer", "schedule"), [("adam", "one_cycle"), ("adamw", "cosine")])
def test_every_loss_together_moves_centers_and_classifier(data, schedule, optimizer):
    texts = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    weights = dict.fromkeys(("identity", "triplet", "supcon", "image_to_text", "text_supcon"), 0.5) | {"center": 5e-4}
    encoder = ReidEncoder(small(), 5, ReidHead(head="arcface"))
    first = encoder.classifier.detach().clone()
    encoder, result = fit(
        data, encoder, weights=weights, text=texts, select_by="loss", epochs=6, optimizer=optimizer, schedule=schedule
    )
    assert set(weights) <= set(result.history.columns)
    assert not torch.equal(encoder.classifier, first)
    assert (encoder.centers.norm(dim=1) > 0.02).all(), "the centres move whatever the weight of their loss"


RATES = ImageTraining(learning_rate=1.0, head_learning_rate=2.0, weight_decay=0.1)


def test_every_tensor_that_learns_is_in_exactly_one_group():
    for blocks in (-1, 0, 2):
        encoder = ReidEncoder(small(), 5, ReidHead(unfreeze_blocks=blocks))
        encoder.centers.requires_grad_(False)
        grouped = [id(p) for group in groups(encoder, RATES) for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in encoder.parameters() if p.requires_grad)
        rates = {id(p): group["lr"] for group in groups(encoder, RATES) for p in group["params"]}
        assert rates[id(encoder.classifier)] == rates[id(encoder.neck.weight)] == 2.0


def same(one, other) -> None:
    (encoder, result), (again, repeated) = one, other
    rows = [found.history.drop(columns="seconds") for found in (repeated, result)]
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    assert repeated.best_epoch == result.best_epoch
    for name, value in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("more", [{}, {"average": 0.5, "precision": "fp16", "weights": {**WEIGHTS, "center": 0.1}}])
def test_an_interrupted_training_goes_on_to_the_same_history_and_weights(data, tmp_path, more):
    whole, expected = fit(data, **more)
    count = 0

    def dies(encode) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return nearest(data)(encode)

    with pytest.raises(KeyboardInterrupt):
        fit(data, folder=tmp_path, validate=dies, **more)
    same((whole, expected), fit(data, folder=tmp_path, **more))
    with pytest.raises(TrainingError, match="other margin; delete it"):
        fit(data, folder=tmp_path, margin=0.5, **more)
    for backbone, count in ((replace(small(), fingerprint="other"), 5), (small(), 6)):
        other = ReidEncoder(backbone, count, ReidHead())
        with pytest.raises(TrainingError, match="other encoder; delete it"):
            fit(data, other, folder=tmp_path, **more)


def test_texts_pull_images_and_stay(data):
    texts = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    options = {"epochs": 15, "augmentation": 0.3, "learning_rate": 5e-3, "select_by": "loss"}
    encoder, result = fit(data, weights={"image_to_text": 1.0}, text=texts, **options)
    assert result.history["image_to_text"].iloc[-1] < 0.7 * result.history["image_to_text"].iloc[1]
    unit = encode_images(encoder, data[0])
    unit, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (unit, texts))
    assert ((unit @ texts.T).argmax(axis=1) == data[1]).mean() > 0.6, "chance is 0.2"


def test_evaluation_sees_the_pictures_as_a_backbone_does(data):
    backbone = small()
    encoder = ReidEncoder(backbone, 5, ReidHead())
    np.testing.assert_allclose(encode_images(encoder, data[0]), backbone.encode_image(data[0]), rtol=1e-4, atol=1e-5)


def finite(encoder) -> bool:
    return all(torch.isfinite(value.double()).all() for value in encoder.state_dict().values())


def test_a_loss_that_is_no_number_stops_at_its_batch_and_the_best_is_kept(data, tmp_path):
    encoder = ReidEncoder(small(), 5, ReidHead())
    first = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 1, batch 2.*lower learning_rate=1e\+30"):
        fit(data, encoder, learning_rate=1e30, warm_up=0, clip_gradient=1e30, folder=tmp_path)
    assert (tmp_path / "image.safetensors").exists()
    assert all(torch.equal(value, first[name]) for name, value in encoder.state_dict().items())
    assert not encoder.training


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gradient_that_is_no_number_stops_it_too_and_the_best_is_kept(data, tmp_path, precision):
    """fp16 lowers its scale first: it takes 16 steps from 65,536 to 1."""
    encoder = ReidEncoder(small(), 5, ReidHead())
    epochs, batches = [], []

    def spoilt(gradient: torch.Tensor) -> torch.Tensor:
        batches.append(len(epochs))
        return gradient * torch.nan if len(epochs) > 2 else gradient

    def measured(encode) -> dict[str, float]:
        epochs.append(encode(data[0]))
        return {"val_rank1": len(epochs)}

    encoder.classifier.register_hook(spoilt)
    with pytest.raises(TrainingError, match=r"the gradient is nan in epoch .*; the best epoch so far is kept"):
        fit(data, encoder, precision=precision, epochs=20, validate=measured, folder=tmp_path)
    assert batches.count(3) == 1 or precision == "fp16"
    assert len(batches) < 30
    if precision != "fp16":
        assert len(epochs) == 3
        np.testing.assert_allclose(encode_images(encoder, data[0]), epochs[-1], rtol=1e-4, atol=1e-5)
    assert finite(encoder)


def test_weights_that_the_last_batch_of_an_epoch_spoils_are_never_the_best(data, tmp_path):
    """One batch an epoch: its loss is still a number, and the embeddings after its step are none."""
    encoder = ReidEncoder(small(), 5, ReidHead())
    options = {"n_identities": 5, "n_images": 5, "learning_rate": 1e30, "warm_up": 0, "select_by": "loss"}
    with pytest.raises(TrainingError, match=r"embeddings after epoch 1 are no numbers: lower learning_rate=1e\+30"):
        fit(data, encoder, clip_gradient=1e30, folder=tmp_path, **options)
    facts = load_checkpoint(tmp_path / "image.safetensors")[1]
    assert [row["epoch"] for row in facts["history"]] == [0]
    assert finite(encoder)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_rates_change_with_every_batch_and_end_where_the_schedule_does(data, schedule, monkeypatch):
    rates, ends = [], []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *args, **kwargs)

    def measured(encode) -> dict[str, float]:
        ends.append(len(rates))
        return {"val_rank1": 0.0}

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    options = {"schedule": schedule, "learning_rate": 1e-4, "head_learning_rate": 1e-3, "validate": measured}
    _, result = fit(data, epochs=5, **options)
    count, warm_up = ends[-1], ends[2]
    assert count > 10
    steps = range(count)
    cosine = [warm_up_cosine(number, count, warm_up) for number in steps]
    factors = np.array([one_cycle(number, count) for number in steps] if schedule == "one_cycle" else cosine)
    for found, factor in zip(rates, factors, strict=True):
        assert set(found) == {1e-4 * factor, 1e-3 * factor}
    np.testing.assert_allclose(result.history["learning_rate"][1:], 1e-4 * factors[np.array(ends[1:]) - 1])


def test_weight_decay_is_on_matrices_and_filters_alone():
    for backbone in (small(), small_vit()):
        encoder = ReidEncoder(backbone, 5, ReidHead(neck_dim=4))
        names = {id(p): name for name, p in encoder.named_parameters()}
        decayed, plain = set(), set()
        for group in groups(encoder, RATES):
            (decayed if group["weight_decay"] else plain).update(names[id(p)] for p in group["params"])
        assert {"classifier", "reduction.weight", "visual.conv1.weight"} <= decayed
        assert "neck.weight" in plain
        assert not any("bias" in name or ".bn" in name or "ln_" in name for name in decayed)
        assert "centers" not in decayed | plain


def test_a_batch_norm_counts_an_image_once_though_pieces_are_encoded_twice(data):
    encoder, _ = fit(data, epochs=1, n_identities=5, n_images=5, views=1, encoded_at_once=5, select_by="loss")
    assert encoder.visual.bn1.num_batches_tracked == 4, "pieces of 5, 5, 5 and 2 images"
    assert encoder.neck.num_batches_tracked == 1


def test_no_piece_of_a_batch_is_a_single_image(data):
    """Batch norm takes none; PromptSG's has one value of each channel an image."""
    torch.manual_seed(0)
    model = clip_package().model.CLIP(16, 32, 1, 64, 16, 77, 49408, 64, 1, 1).eval()
    backbone = Backbone("random", model, 32, 16, 77, torch.device("cpu"), "")
    options = {"epochs": 1, "n_identities": 5, "n_images": 5, "views": 1, "select_by": "loss"}
    encoder, _ = fit(data, PromptSG(backbone, 5, Guidance()), encoded_at_once=8, **options)
    assert encoder.inversion.network[-1].num_batches_tracked == 2, "pieces of 8 and 9 images, not of 8, 8 and 1"
    with pytest.raises(TrainingError, match=r"encoded_at_once=1: .* give 0, for the whole batch, or at least 2"):
        fit(data, PromptSG(backbone, 5, Guidance()), encoded_at_once=1, **options)


def test_the_file_holds_nothing_twice_and_nothing_that_does_not_learn(data, tmp_path):
    encoder = ReidEncoder(small(), 5, ReidHead(unfreeze_blocks=0))
    measures = iter((0.1, 0.2, 0.9))
    fit(data, encoder, folder=tmp_path, epochs=2, validate=lambda encode: {"val_rank1": next(measures)})
    tensors, facts = load_checkpoint(tmp_path / "image.safetensors")
    assert facts["best_epoch"] == 2
    assert not any(name.startswith("best.") for name in tensors), "the best weights are those of now"
    learning = {name for name, p in encoder.named_parameters() if p.requires_grad}
    buffers = {name for name, _ in encoder.named_buffers()}
    assert {name[4:] for name in tensors if name.startswith("now.")} == learning | buffers
    assert "visual.attnpool.c_proj.weight" in learning
    assert "visual.layer4.0.conv1.weight" not in learning


@pytest.mark.parametrize(("best", "more"), [(0, {}), (1, {"average": 0.5}), (2, {})])
def test_the_best_weights_come_back_wherever_the_best_epoch_was(data, tmp_path, best, more):
    """Stopped after epoch 2, whose weights may be the best or not; the best is what a whole training keeps."""

    def measured(encode) -> dict[str, float]:
        number = next(count)
        return {"val_rank1": float(number == best)}

    count = iter(range(99))
    whole, expected = fit(
        data, ReidEncoder(small(), 5, ReidHead(unfreeze_blocks=2)), validate=measured, patience=2, **more
    )
    count = iter(range(99))
    asked = iter((False, True))
    options = {"validate": measured, "patience": 2, "folder": tmp_path} | more
    part, stopped = fit(data, ReidEncoder(small(), 5, ReidHead(unfreeze_blocks=2)), stop=lambda: next(asked), **options)
    assert (stopped.history["epoch"].tolist(), part.training) == ([0, 1, 2], False)
    resumed, result = fit(data, ReidEncoder(small(), 5, ReidHead(unfreeze_blocks=2)), **options)
    assert result.best_epoch == expected.best_epoch == best
    assert result.history["epoch"].tolist() == list(range(best + 3))
    pd.testing.assert_frame_equal(
        result.history.drop(columns="seconds"), expected.history.drop(columns="seconds"), check_exact=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_file_of_other_labels_is_refused(data, tmp_path):
    fit(data, folder=tmp_path, epochs=1)
    with pytest.raises(TrainingError, match="of a training with other labels; delete it"):
        fit((data[0], np.roll(data[1], 5)), folder=tmp_path, epochs=1)


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        (lambda p, i: (p[:5], i[:5]), {}, TrainingError, "images of 1 identities"),
        (lambda p, i: (p, i + 1), {}, TrainingError, "identity number 5: the classifier has 5"),
        (lambda p, i: (p[1:], i), {}, TrainingError, "16 images and 17 identities"),
        (lambda p, i: (p, i), {"weights": {"image_to_text": 1}}, TrainingError, "need.* a text for each of 5"),
        (lambda p, i: (p, i), {"weights": {}}, ConfigError, "every loss has weight 0"),
        (lambda p, i: (p, i), {"select_by": "val_map"}, TrainingError, "'val_map' is not measured"),
    ],
)
def test_what_cannot_be_trained_is_refused(data, change, options, error, words):
    with pytest.raises(error, match=words):
        fit(change(*data), **options)


@pytest.mark.parametrize("blocks", [0, 3])
def test_keeping_what_is_frozen_changes_nothing(data, blocks, monkeypatch):
    runs = []
    for _ in range(2):
        encoder = ReidEncoder(small(), 5, ReidHead(unfreeze_blocks=blocks))
        # a small rate: Adam makes whole steps of gradients that differ in their rounding alone
        options = {"learning_rate": 1e-5, "head_learning_rate": 1e-5, "augmentation": 0.0, "select_by": "loss"}
        _, result = fit(data, encoder, **options)
        monkeypatch.setattr("handclip_lib.training.encoding.BatchEncoder.keep_frozen", lambda *_: None)
        runs.append((encoder.state_dict(), result.history))
    # convolutions of other batch sizes round another way; the parts themselves are held to 1e-5 elsewhere
    np.testing.assert_allclose(runs[0][1]["loss"][1:], runs[1][1]["loss"][1:], rtol=1e-4)
    np.testing.assert_allclose(runs[0][1]["gradient_norm"][1:], runs[1][1]["gradient_norm"][1:], rtol=1e-3)
    for name, value in runs[0][0].items():
        if value.is_floating_point():
            torch.testing.assert_close(runs[1][0][name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("vit", "blocks", "precision"), [(True, 1, "fp16"), (False, -1, "bf16")])
def test_half_precision_learns_and_keeps_float32_weights(data, vit, blocks, precision):
    backbone = small_vit() if vit else small()
    encoder = ReidEncoder(backbone, 5, ReidHead(unfreeze_blocks=blocks))
    augmentation = 0.0 if blocks == 1 else 1.0
    _, result = fit(data, encoder, precision=precision, select_by="loss", augmentation=augmentation)
    assert result.history["loss"].iloc[-1] < result.history["loss"].iloc[1]
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def gentle(folder, **more):
    """Rates at which a rounding stays one: Adam makes whole steps of gradients that are nearly nothing."""
    folder.mkdir()
    weights = dict.fromkeys(("identity", "triplet", "supcon"), 0.5) | {"center": 0.1}
    # one view: the distance of equal images is a root of rounding errors
    rates = {"learning_rate": 2e-6, "head_learning_rate": 2e-6, "center_learning_rate": 1e-3, "views": 1}
    return {"weights": weights, "select_by": "loss", "validate": None, "folder": folder} | rates | more


def compare(one, other, folders):
    (_, result), (_, repeated) = one, other
    for name in ("loss", "identity", "triplet", "supcon", "center", "gradient_norm"):
        np.testing.assert_allclose(repeated.history[name][1:], result.history[name][1:], rtol=1e-4, err_msg=name)
    gradients, again = (load_checkpoint(folder / "image.safetensors")[0] for folder in folders)
    moments = [name for name in gradients if name.endswith(".exp_avg")]
    assert len(moments) > 10
    largest = max(gradients[name].norm() for name in moments)
    for name in moments:
        assert (again[name] - gradients[name]).norm() <= 1e-4 * gradients[name].norm() + 1e-7 * largest, name


@pytest.mark.parametrize(("blocks", "augmentation"), [(-1, 1.0), (1, 0.0)])  # the second keeps what is frozen
def test_encoding_a_batch_in_pieces_changes_nothing(data, tmp_path, blocks, augmentation):
    folders = [tmp_path / "whole", tmp_path / "pieces"]
    runs = [
        fit(
            data, ReidEncoder(small_vit(), 5, ReidHead(unfreeze_blocks=blocks)),
            **gentle(folder, augmentation=augmentation, encoded_at_once=n),
        )
        for folder, n in zip(folders, (0, 5), strict=True)
    ]  # fmt: skip
    compare(*runs, folders)


@pytest.mark.parametrize("blocks", [-1, 1])
def test_computing_activations_again_changes_nothing(data, tmp_path, blocks):
    folders = [tmp_path / "kept", tmp_path / "again"]
    runs = [
        fit(data, ReidEncoder(small_vit(), 5, ReidHead(unfreeze_blocks=blocks, recompute=again)), **gentle(folder))
        for folder, again in zip(folders, (False, True), strict=True)
    ]
    compare(*runs, folders)
    with pytest.raises(ConfigError, match="a ResNet's batch norms would count every image twice"):
        ReidEncoder(small(), 5, ReidHead(recompute=True))


def test_the_average_is_that_of_the_weights_after_each_step(data):
    """One batch an epoch, so that the weights after each step are those of trainings of as many epochs."""
    options = {"n_identities": 5, "n_images": 5, "learning_rate": 1e-3, "warm_up": 0, "schedule": "cosine"}

    averaged = []
    fit(
        data, ReidEncoder(small_vit(), 5, ReidHead()), epochs=3, average=0.75,
        validate=lambda encode: averaged.append(encode(data[0])) or {"val_rank1": 0.0}, **options,
    )  # fmt: skip
    states = [_weights_after(data, steps, options) for steps in (1, 2, 3)]
    wanted = states[0]
    for state in states[1:]:
        wanted = {n: 0.75 * wanted[n] + 0.25 * v if v.is_floating_point() else v for n, v in state.items()}
    encoder = ReidEncoder(small_vit(), 5, ReidHead())
    encoder.load_state_dict(wanted)
    np.testing.assert_allclose(encode_images(encoder, data[0]), averaged[-1], rtol=1e-4, atol=1e-5)


def _weights_after(data, steps: int, options) -> dict[str, torch.Tensor]:
    """The weights of the training of three epochs after some of them: kept by naming that epoch the best."""
    count = -1

    def best_at(encode) -> dict[str, float]:
        nonlocal count
        count += 1
        return {"val_rank1": float(count == steps)}

    encoder, result = fit(data, ReidEncoder(small_vit(), 5, ReidHead()), epochs=3, validate=best_at, **options)
    assert result.best_epoch == steps
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def falling():
    """A validation that finds every epoch worse than the one before."""
    seen = []

    def validate(encode) -> dict[str, float]:
        seen.append(0)
        return {"val_rank1": -len(seen)}

    return validate


def rising():
    count = iter(range(99))
    return lambda encode: {"val_rank1": next(count)}


def as_before(encoder) -> bool:
    first = ReidEncoder(small(), 5, ReidHead()).state_dict()
    return all(torch.equal(v, w) for v, w in zip(encoder.state_dict().values(), first.values(), strict=True))


ALONE = {"n_images": 1, "views": 1, "weights": {"supcon": 1.0}}


@pytest.mark.parametrize(
    ("select_by", "options", "why"),
    [
        ("val_rank1", ALONE, "no: every gradient was 0, as where no batch holds a pair"),
        ("loss", {"learning_rate": 1e-13, "weight_decay": 0.0}, "no: learning_rate=1e-13 moved no weight"),
    ],
)
def test_what_taught_nothing_is_told_and_leaves_the_weights_alone(data, tmp_path, options, why, select_by, caplog):
    """Weight decay and batch norms move without a gradient: no later epoch may be taken for the best."""
    more = options | {"select_by": select_by, "validate": rising(), "folder": tmp_path}
    encoder, result = fit(data, **more)
    assert (result.best_epoch, result.learnt) == (0, why)
    assert as_before(encoder)
    assert f"learnt {why}" in caplog.text
    encoder, result = fit(data, **more)
    assert (result.best_epoch, result.learnt) == (0, why), "a training that is found done says the same"


def test_an_epoch_0_that_was_best_is_told(data):
    encoder, result = fit(data, validate=falling())
    assert (result.best_epoch, result.learnt) == (0, "no: epoch 0 was best")
    assert as_before(encoder)
    assert fit(data, validate=rising())[1].learnt == "yes"


SPOILT = [(99, "no: all {} fp16 steps were skipped"), (2, "in part: "), (0, "yes")]


@pytest.mark.parametrize(("spoilt", "learnt"), SPOILT)
def test_fp16_steps_that_are_skipped_are_counted(data, spoilt, learnt):
    encoder, epochs, batches = ReidEncoder(small(), 5, ReidHead()), [], []

    def measured(encode) -> dict[str, float]:
        epochs.append(0)
        return {"val_rank1": len(epochs)}

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        batches.append(0)
        return gradient * torch.nan if len(epochs) <= spoilt else gradient

    encoder.classifier.register_hook(spoil)
    encoder, result = fit(data, encoder, precision="fp16", epochs=3 if spoilt else 12, validate=measured)
    skipped = result.history["skipped_steps"].fillna(0)
    assert result.learnt.startswith(learnt.format(len(batches)))
    assert skipped.sum() < len(batches) or spoilt == 99, "and some at first, for the scale is too high"
    if spoilt == 99:
        assert result.best_epoch == 0 and skipped.sum() == len(batches) and as_before(encoder)
    assert "skipped_steps" not in fit(data, epochs=1)[1].history


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_numbers_that_are_none_are_not_put_down_to_the_learning_rate(data, precision):
    spoilt = ReidEncoder(small(), 5, ReidHead())
    with torch.no_grad():
        spoilt.visual.conv1.weight[0, 0, 0, 0] = torch.nan
    words = r"the weights, before the first step, tensor visual\.conv1\.weight: 1 of \d+ values are not finite \(1 NaN"
    with pytest.raises(TrainingError, match=words):
        fit(data, spoilt, precision=precision)
    huge = ReidEncoder(small(), 5, ReidHead())
    with torch.no_grad():
        huge.visual.attnpool.c_proj.weight.fill_(3e38)
    remedy = "train with precision=bf16 or fp32" if precision == "fp16" else "no step was taken yet.*load others"
    with pytest.raises(TrainingError, match=remedy):
        fit(data, huge, precision=precision, validate=None, select_by="loss")
