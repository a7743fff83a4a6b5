import base64

import numpy as np
import pytest
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.data.images import decode_images
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.studies.prompts import PromptTask
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.parameters.parts import Prompts, PromptTraining
from handclip_lib.training.prompt import fit_prompt, try_prompt
from handclip_lib.widgets import browsers
from handclip_lib.widgets.browsers import identity_inspector, similarity_over_epochs, training_panel


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("hands"), np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 3)
    paths = [f"{number}.png" for number in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(root / path)
    features = Features.normalised(paths, rng.normal(size=(4, 24))[labels] + 0.3 * rng.normal(size=(12, 24)))
    task = PromptTask(("a", "b", "c", "$d$"), tuple(paths), labels, (), np.array([], np.int64), features)
    torch.manual_seed(0)
    model = clip_package().model.CLIP(24, 32, 1, 64, 32, 77, 49408, 64, 1, 2).eval()
    backbone = Backbone("random", model, 32, 24, 77, torch.device("cpu"), "")
    learner = PromptLearner(backbone, task.identities, Prompts(n_ctx=2))
    result = fit_prompt(
        learner, task.images, task.labels,
        PromptTraining(epochs=6, n_identities=4, learning_rate=0.05, temperature=0.1, select_by="image_to_text@1"),
        validate=task.accuracy, progress=False,
    )  # fmt: skip
    return result, task, decode_images(root, paths, 32, cache=root / "cache", progress=False), backbone


def test_the_slider_holds_start_and_end_and_few_epochs_between_for_the_report(trained, monkeypatch):
    monkeypatch.setattr(browsers, "MOST_FRAMES", 4)
    result, task, _, _ = trained
    panel = similarity_over_epochs(result, task)
    frames = panel._repr_mimebundle_()[1]["image/png"]["frames"]
    assert [epoch for epoch, _ in frames] == ["0", "2", "4", "6"]
    assert len({png for _, png in frames}) == 4
    panel.controls["epoch"].value = 0
    assert "epoch: 0" in panel.alt
    assert base64.b64decode(panel._repr_mimebundle_()[0]["image/png"])


def test_the_inspector_lists_everybody_the_least_recognised_first_and_shows_each(trained):
    panel = identity_inspector(*trained)
    names = panel.controls["identity"].options
    assert sorted(names) == ["$d$", "a", "b", "c"]
    for name in names:
        panel.controls["identity"].value = name
        assert not panel._error
        assert len(panel.figure.axes) == 3 + 1
        title = panel.figure._suptitle.get_text()
        assert title.startswith(f"{name}: nearest words")
        title.encode("cp1252")  # what the font of a figure has: CLIP's words hold emojis


def test_the_training_panel_trains_at_once_and_then_on_the_button(trained):
    _, task, _, backbone = trained
    calls = []

    def train(tried, **watched):
        calls.append(tried)
        return try_prompt(backbone, task.identities, task.images, task.labels, tried, validate=task.accuracy, **watched)

    config = PromptLearning(
        n_ctx=2, temperature=1.0, template="a {} hand", trial_epochs=1, n_identities=4, select_by="image_to_text@1"
    )
    panel = training_panel(train, config)
    assert calls == [config]
    panel.controls["n_ctx"].value = 3
    assert len(calls) == 1
    panel.job.button.click()
    panel.job.wait()
    assert calls[1].n_ctx == 3
    assert not panel._error
    panel.controls["template"].value = "no slot"
    panel.job.button.click()
    panel.job.wait()
    assert "0 slots" in panel._picture.value, "a fault is shown in the panel"
    panel.controls["template"].value = ""
    panel.controls["n_ctx"].value = 100
    assert panel.controls["n_ctx"].value == 100
    assert "n_ctx=100: input should be less than or equal to 75" in panel._hint.value, "and no command"
    panel.job.button.click()
    panel.job.wait()
    assert "n_ctx=100" in panel._picture.value
    assert len(calls) == 2, "nothing is trained"


def test_a_cancelled_training_shows_what_it_learnt_until_then(trained):
    _, task, _, backbone = trained
    said = []

    def train(tried, watch=None, **watched):
        def slow(history, best_epoch, last):
            watch(history, best_epoch, last)
            said.append(panel.job._said.value)
            if len(history) == 3:
                panel.job.cancel.click()

        watched |= {"watch": slow} if watch else {"progress": False}
        return try_prompt(backbone, task.identities, task.images, task.labels, tried, validate=task.accuracy, **watched)

    panel = training_panel(train, PromptLearning(n_ctx=2, trial_epochs=30, n_identities=4, select_by="loss"))
    assert panel.figure._suptitle.get_text() == "n_ctx 2, temperature 0.07, λ 0, “A photo of a {} hand.”"
    panel.job.button.click()
    panel.job.wait()
    assert panel.figure._suptitle.get_text().endswith(", cancelled after epoch 2")
    assert "epoch 1 of 30" in said[1]
    assert "epoch 2 of 30" in said[2]
