import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.data.batches import identity_batches
from handclip_lib.errors import ConfigError, TrainingError
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.parameters.parts import Prompts, PromptTraining
from handclip_lib.training.optimizer import warm_up_cosine
from handclip_lib.training.prompt import fit_prompt, try_prompt
from handclip_lib.training.state import load_checkpoint

HITS = "val_image_to_text@1"
NAMES = ["a", "b", "c", "d", "e"]
SMALL = {"epochs": 6, "n_identities": 3, "n_images": 2, "learning_rate": 0.05, "temperature": 0.1}
REPOSITORY = Path(__file__).parents[2]


def small_clip() -> Backbone:
    torch.manual_seed(0)
    model = clip_package().model.CLIP(24, 32, 1, 64, 32, 77, 49408, 64, 1, 2)
    return Backbone("random", model.eval(), 32, 24, 77, torch.device("cpu"), "")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_clip()


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Image features around one direction an identity; one identity has a single image."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), [6, 4, 3, 5, 1])
    centres = rng.normal(size=(5, 24))
    return (centres[labels] + 0.3 * rng.normal(size=(19, 24))).astype(np.float32), labels


def hits(images: np.ndarray, labels: np.ndarray):
    def validate(text: np.ndarray) -> dict[str, float]:
        unit = text / np.linalg.norm(text, axis=1, keepdims=True)
        return {HITS: float(((images @ unit.T).argmax(axis=1) == labels).mean())}

    return validate


def fit(backbone: Backbone, data, **options):
    learner = PromptLearner(backbone, NAMES, Prompts(n_ctx=3))
    given = SMALL | {name: options.pop(name) for name in set(options) & set(PromptTraining.model_fields)}
    options = {"validate": hits(*data), "progress": False} | options
    return learner, fit_prompt(learner, *data, PromptTraining().model_copy(update=given), **options)


def test_the_context_of_an_identity_moves_towards_its_images(backbone, data):
    learner, result = fit(backbone, data, epochs=25)
    history = result.history
    assert history["loss"].iloc[-1] < 0.6 * history["loss"].iloc[1]
    assert history[HITS].iloc[0] < 0.6
    assert history[HITS].max() > 0.9
    text = result.text_features[-1]
    own = np.array([np.corrcoef(text[k], data[0][data[1] == k].mean(axis=0))[0, 1] for k in range(5)])
    start = result.text_features[0]
    before = np.array([np.corrcoef(start[k], data[0][data[1] == k].mean(axis=0))[0, 1] for k in range(5)])
    assert (own > before).all()
    np.testing.assert_array_equal(learner.context.detach().numpy(), result.best)
    np.testing.assert_array_equal(learner.text_features(), result.best_text)
    assert history[HITS][result.best_epoch] == history[HITS].max()


def test_the_training_is_the_plain_loop_step_by_step(backbone, data):
    images, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    learner = PromptLearner(backbone, NAMES, Prompts(n_ctx=3))
    adam = torch.optim.Adam([learner.context], lr=0.05)
    epochs = [identity_batches(data[1], 3, 2, np.random.default_rng([0, epoch])) for epoch in range(2)]
    steps, step, means = sum(map(len, epochs)), 0, []
    for batches in epochs:
        losses = []
        for batch in batches:
            adam.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * step / steps)) / 2
            rows = torch.from_numpy(batch)
            image = torch.nn.functional.normalize(images[rows], dim=1)
            text = torch.nn.functional.normalize(learner.encode_text_plainly(labels[rows]), dim=1)  # every sample
            logits, same = image @ text.T / 0.1, (labels[rows][:, None] == labels[rows]).float()
            share = same / same.sum(dim=1, keepdim=True)
            loss = -(share * logits.log_softmax(1)).sum(1).mean() - (share * logits.T.log_softmax(1)).sum(1).mean()
            loss = loss + 0.3 * learner.context.square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
            step += 1
        means.append(np.average(losses, weights=[len(batch) for batch in batches]))
    _, result = fit(backbone, data, epochs=2, warm_up=0, context_weight=0.3)
    np.testing.assert_allclose(result.history["loss"][1:], means, rtol=1e-4)
    np.testing.assert_allclose(result.final, learner.context.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_every_quantity_of_an_epoch_is_logged_and_nothing_but_the_context_changes(backbone, data):
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    _, result = fit(backbone, data)
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())
    wanted = {
        "epoch", "loss", "image_to_text", "text_to_image", "mean_square", "positives", HITS, "prompt_norm",
        "prompt_variance", "gradient_norm", "learning_rate", "seconds",
    }  # fmt: skip
    assert wanted <= set(result.history.columns)
    assert result.history["epoch"].tolist() == list(range(7))
    assert result.history["positives"][1:].between(1, 2).all()
    last = result.history.iloc[-1]
    assert last["loss"] == pytest.approx(last["image_to_text"] + last["text_to_image"], rel=1e-5)
    assert result.contexts.shape == (7, 5, 3, 64)
    assert result.text_features.shape == (7, 5, 24)
    norm = np.linalg.norm(result.final, axis=-1).mean()
    assert last["prompt_norm"] == pytest.approx(norm, rel=1e-5)


def same(one, other):
    drop = "seconds"
    pd.testing.assert_frame_equal(one.history.drop(columns=drop), other.history.drop(columns=drop))
    assert one.best_epoch == other.best_epoch
    for name in ("best", "best_text", "final", "contexts", "text_features"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_an_interrupted_training_goes_on_to_the_same_history_and_weights(backbone, data, tmp_path, optimizer):
    _, whole = fit(backbone, data, optimizer=optimizer, weight_decay=0.01)
    count = 0

    def dies(text: np.ndarray) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return hits(*data)(text)

    with pytest.raises(KeyboardInterrupt):
        fit(backbone, data, optimizer=optimizer, weight_decay=0.01, folder=tmp_path, validate=dies)
    assert load_checkpoint(tmp_path / "prompts.safetensors")[1]["history"][-1]["epoch"] == 3
    learner, resumed = fit(backbone, data, optimizer=optimizer, weight_decay=0.01, folder=tmp_path)
    same(whole, resumed)
    np.testing.assert_array_equal(learner.context.detach().numpy(), whole.best)
    _, again = fit(backbone, data, optimizer=optimizer, weight_decay=0.01, folder=tmp_path, validate=dies)
    same(whole, again)
    assert count == 5, "a finished training is only read"


def test_a_stopped_training_gives_what_it_learnt_and_goes_on_to_the_same_history_and_weights(backbone, data, tmp_path):
    _, whole = fit(backbone, data)
    seen = []

    def watch(history: pd.DataFrame, best_epoch: int, last: bool) -> None:
        seen.append((len(history) - 1, last))

    learner, part = fit(backbone, data, folder=tmp_path, watch=watch, stop=lambda: len(seen) == 4)
    assert seen == [(0, False), (1, False), (2, False), (3, False), (3, True)]
    assert part.history["epoch"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(learner.context.detach().numpy(), part.best)
    _, resumed = fit(backbone, data, folder=tmp_path, stop=lambda: False)
    same(whole, resumed)


@pytest.mark.fault
@pytest.mark.matrix("killed", "learning prompts", "goes on to the same weights, bit for bit")
def test_a_killed_process_resumes_to_the_same_history_and_weights(backbone, data, tmp_path):
    script = (
        "import sys; sys.path.insert(0, 'tests/training')\n"
        "import numpy as np, torch, time\n"
        "from test_prompt import fit, hits, small_clip\n"
        "rng = np.random.default_rng(0); labels = np.repeat(np.arange(5), [6, 4, 3, 5, 1])\n"
        "centres = rng.normal(size=(5, 24))\n"
        "data = ((centres[labels] + 0.3 * rng.normal(size=(19, 24))).astype(np.float32), labels)\n"
        "def slow(text): time.sleep(0.2); return hits(*data)(text)\n"
        "from pathlib import Path\n"
        f"fit(small_clip(), data, epochs=12, folder=Path({str(tmp_path)!r}), validate=slow)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "."})
    file, patience = tmp_path / "prompts.safetensors", time.monotonic() + 60
    while not file.exists() or load_checkpoint(file)[1]["history"][-1]["epoch"] < 3:
        assert process.poll() is None
        assert time.monotonic() < patience
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert load_checkpoint(file)[1]["history"][-1]["epoch"] < 12
    _, resumed = fit(backbone, data, epochs=12, folder=tmp_path)
    _, whole = fit(backbone, data, epochs=12)
    same(whole, resumed)


def test_a_checkpoint_of_another_training_is_refused(backbone, data, tmp_path):
    fit(backbone, data, epochs=2, folder=tmp_path)
    with pytest.raises(TrainingError, match="other learning_rate; delete it"):
        fit(backbone, data, epochs=2, folder=tmp_path, learning_rate=0.1)
    other = PromptLearner(backbone, NAMES, Prompts(n_ctx=2))
    with pytest.raises(TrainingError, match="learner; delete it"):
        fit_prompt(other, *data, PromptTraining(epochs=2), folder=tmp_path, progress=False)
    with pytest.raises(TrainingError, match="other labels; delete it"):
        fit(backbone, (data[0], np.roll(data[1], 5)), epochs=2, folder=tmp_path)
    (tmp_path / "prompts.safetensors").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="delete it and train again"):
        fit(backbone, data, epochs=2, folder=tmp_path)


def test_training_stops_when_nothing_gets_better(backbone, data):
    _, result = fit(backbone, data, epochs=30, validate=lambda text: {HITS: 0.5}, patience=3)
    assert result.best_epoch == 0
    assert len(result.history) == 4


def test_the_lowest_loss_may_choose(backbone, data):
    _, result = fit(backbone, data, validate=None, select_by="loss")
    assert result.best_epoch == result.history["loss"].idxmin()


def test_a_gradient_that_is_no_number_stops_it_and_the_best_is_kept(backbone, data, tmp_path):
    learner = PromptLearner(backbone, NAMES, Prompts(n_ctx=3))
    measured = []
    learner.context.register_hook(lambda gradient: gradient * torch.nan if len(measured) == 3 else gradient)

    def validate(text: np.ndarray) -> dict[str, float]:
        measured.append(learner.context.detach().clone())
        return {HITS: float(len(measured))}

    with pytest.raises(TrainingError, match=r"the gradient is nan in epoch 3, batch 1 of identities .* learning_rate"):
        fit_prompt(learner, *data, PromptTraining(**SMALL), validate=validate, folder=tmp_path, progress=False)
    assert torch.equal(learner.context.detach(), load_checkpoint(tmp_path / "prompts.safetensors")[0]["best"])


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_best_context_comes_back_with_patience_too(backbone, data, tmp_path, best):
    def measured(text: np.ndarray) -> dict[str, float]:
        return {HITS: float(next(count) == best)}

    count = iter(range(99))
    _, whole = fit(backbone, data, validate=measured, patience=2)
    count, asked = iter(range(99)), iter((False, True))
    fit(backbone, data, validate=measured, patience=2, folder=tmp_path, stop=lambda: next(asked))
    learner, resumed = fit(backbone, data, validate=measured, patience=2, folder=tmp_path)
    same(whole, resumed)
    assert resumed.best_epoch == best
    np.testing.assert_array_equal(learner.context.detach().numpy(), whole.best)


def test_the_rate_changes_with_every_batch(backbone, data, monkeypatch):
    rates, ends, step = [], [], torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    def measured(text: np.ndarray) -> dict[str, float]:
        ends.append(len(rates))
        return {HITS: 0.0}

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    fit(backbone, data, validate=measured, warm_up=2)
    assert rates == [0.05 * warm_up_cosine(number, ends[-1], ends[2]) for number in range(ends[-1])]
    assert len(rates) > 12


def test_a_shared_context_learns_too(backbone, data):
    learner = PromptLearner(backbone, NAMES, Prompts(n_ctx=3, context="shared"))
    result = fit_prompt(learner, *data, PromptTraining(**SMALL, select_by="loss"), progress=False)
    assert result.history["loss"].iloc[-1] < result.history["loss"].iloc[1]
    assert result.contexts.shape[1:] == (3, 64)


def test_other_settings_can_be_tried(backbone, data):
    tried = PromptLearning(trial_epochs=2, n_identities=3, n_ctx=2, template="{} hand | a {}", context_weight=0.1)
    result = try_prompt(backbone, NAMES, *data, tried, validate=hits(*data), progress=False)
    assert result.contexts.shape == (3, 5, 2, 64)
    with pytest.raises(ConfigError, match="0 slots"):
        try_prompt(backbone, NAMES, *data, tried.model_copy(update={"template": "a hand"}), validate=hits(*data))


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda images, labels: (images[:4], labels[:4]), {}, "images of 1 identities: at least two"),
        (lambda images, labels: (images[:-1], labels), {}, "18 images and 19 identities"),
        (lambda images, labels: (images, labels + 1), {}, "identity number 5: the learner has 5"),
        (lambda images, labels: (images * np.nan, labels), {}, "not finite"),
        (
            lambda images, labels: (images, labels),
            {"select_by": "text_to_image@1"},
            "is not measured; choose from epoch",
        ),
        (lambda images, labels: (images * 3e37, labels), {"normalize": False}, "the loss is .* batch 1 of identities"),
    ],
)
def test_what_cannot_be_trained_is_refused(backbone, data, change, options, words):
    with pytest.raises(TrainingError, match=words):
        fit(backbone, change(*data), **options)


def test_prompts_that_learnt_nothing_are_told(backbone, data, tmp_path):
    def falling(text: np.ndarray, seen: list[int] = []) -> dict[str, float]:  # noqa: B006
        seen.append(0)
        return {HITS: -len(seen)}

    learner, result = fit(backbone, data, validate=falling, folder=tmp_path)
    assert (result.best_epoch, result.learnt) == (0, "no: epoch 0 was best")
    assert result.name == "not learnt (epoch 0 was best)"
    first = PromptLearner(backbone, NAMES, Prompts(n_ctx=3))
    assert torch.equal(learner.context, first.context)
    for select_by in (HITS, "loss"):
        _, result = fit(backbone, data, learning_rate=1e-13, select_by=select_by)
        assert (result.best_epoch, result.learnt) == (0, "no: learning_rate=1e-13 moved no weight")
    learnt = fit(backbone, data, select_by="loss")[1]
    assert (learnt.learnt, learnt.name) == ("yes", "learnt")
