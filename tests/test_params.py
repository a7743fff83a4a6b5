"""Parameter files: each is accepted by its notebook and says how it is run; every version of CLIP-FH trains."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from handclip_lib.backbone.image_tower import resize_input
from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.launch.launcher import find_notebook
from handclip_lib.launch.plan import read_points
from handclip_lib.models.trained import image_encoder
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS, JointTraining
from handclip_lib.training.image import fit_image

PARAMS = Path(__file__).parents[1] / "params"
MODELS = {name[3:]: model for name, model in NOTEBOOKS.items()} | dict.fromkeys(("promptsg", "handid"), JointTraining)
FILES = sorted(PARAMS.rglob("*.yml"))
VERSIONS = [
    file for file in FILES if file.parent.name in ("joint_training", "promptsg") and re.match(r"v\d", file.stem)
]
TRAINED = [*VERSIONS, *(file for file in FILES if file.parent.name == "handid")]


def values_of(file: Path) -> dict:
    """A file's values; a version of joint training is a delta over base.yml."""
    base = file.with_name("base.yml")
    merged = yaml.safe_load(base.read_text()) if base.exists() else {}
    merged |= yaml.safe_load(file.read_text())
    needs_folder = merged["dataset"] != "drawn" and "data_root" in MODELS[file.parent.name].model_fields
    return merged | ({"data_root": "/anywhere"} if needs_folder else {})


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_file_is_accepted_and_says_command_minutes_machine_and_expected_figures(file):
    text = file.read_text()
    if file.parent.name == "sweeps":
        (notebook,) = re.findall(r"^# command:  handclip sweep (\d+) ", text, re.MULTILINE)
        assert len(read_points(find_notebook(notebook), yaml.safe_load(text))) > 1
    else:
        resolve(MODELS[file.parent.name], values_of(file))
    for word in ("command", "minutes", "machine", "expected"):
        assert f"# {word}:" in text
    assert str(file.relative_to(PARAMS.parent)) in text
    assert "TO_FILL" not in text


def test_every_version_that_clipfh_describes_is_there():
    for folder, prefix, last in (("joint_training", "", 10), ("promptsg", "promptsg ", 11)):
        files = [file for file in VERSIONS if file.parent.name == folder]
        assert {file.stem.removesuffix("_rn50") for file in files} == {f"v{number}" for number in range(1, last + 1)}
        for file in files:
            assert values_of(file)["version"] == prefix + file.stem.removesuffix("_rn50")
            assert "# described as:" in file.read_text()
            assert "# its code:" in file.read_text()


def test_joint_training_and_fine_tune_have_the_settings_that_clipfh_reports(clipfh_versions):
    rows = pd.read_csv(clipfh_versions)
    compared = 0
    for _, row in rows[rows["stage"].str.match("stage2|stage1-frozen")].iterrows():
        stage_1, rn50 = row["stage"] != "stage2", "_rn50" if row["backbone"] == "rn50" else ""
        file = PARAMS / "image_finetune" / f"11k_{row['backbone']}.yml"
        if not stage_1:
            files = [PARAMS / "joint_training" / f"{row['version']}{end}.yml" for end in (rn50, "")]
            file = next(file for file in files if file.exists())
        values, compared = values_of(file), compared + 1
        assert values["backbone"] == row["backbone"], file
        assert values["optimizer"] == row["optimizer"].lower(), file
        assert values["learning_rate"] == float(row["lr_visual"]), file
        assert values["head_learning_rate"] == float(row["lr_prompt_or_modules"].removeprefix("classifier ")), file
        assert values["weight_decay"] == float(row["weight_decay"].split()[0]), file
        assert values["epochs"] == int(row["epochs_cfg"].removeprefix("30 prompt + ").split()[0]), file
        assert values["patience"] == int(row["early_stop_patience"].split()[0]), file
        assert (values["triplet_weight"] > 0) == row["loss_triplet"].startswith("1"), file
        if stage_1:
            assert values["clip_gradient"] == float(row["grad_clip_reported"].split()[0]), file
            continue
        assert values["schedule"] == ("one_cycle" if "OneCycle" in row["scheduler_reported"] else "cosine"), file
        assert values["warm_up"] == 0, "none is reported"
        assert values["n_ctx"] == int(row["n_ctx"]), file
        if file.stem != "v4_rn50":  # whose log is v5's
            assert values["center_weight"] == float(row["loss_center_weight"]), file
            assert values["arcface_scale"] == float(row["arcface_scale"]), file
            assert values["arcface_margin"] == float(row["arcface_margin"]), file
        if row["version"] == "v1":
            assert values["template"] == row["prompt_template"].replace("{aspect}", "dorsal right")
    assert compared == 19


@pytest.mark.parametrize("file", TRAINED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_version_trains_an_epoch(file):
    config = resolve(
        JointTraining, values_of(file) | {"epochs": 1, "precision": "fp32", "n_identities": 2, "n_images": 2}
    )
    vit, guided = config.backbone == "vitb16", config.method != "prompts_then_image"
    side = 32 if vit else 64
    height, width = (side, side // 2) if config.size else (side, side)
    torch.manual_seed(0)
    layers = 12 if vit else (1, 1, 1, 1)
    # the whole vocabulary where a template is read
    model = (
        clip_package()
        .model.CLIP(16, side, layers, 64 if vit else 8, 16 if vit else None, 77, 49408 if guided else 100, 64, 1, 1)
        .eval()
    )
    resize_input(model.visual, (side, side), (height, width))
    backbone = Backbone("random", model, (height, width), 16, 77, torch.device("cpu"), "")
    encoder = image_encoder(backbone, 4, config)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 255, (12, height, width, 3), np.uint8), np.repeat(np.arange(4), 3)
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    text = None if guided else rng.normal(size=(4, 16))
    config = config.model_copy(update={"select_by": "loss"})
    result = fit_image(encoder, pixels, labels, config, text=text, progress=False)
    wanted = {name for name, weight in config.loss_weights.items() if weight}
    assert wanted <= set(result.history.columns)
    moved = {
        name.removeprefix("hand.") for name, value in encoder.named_parameters() if not torch.equal(value, before[name])
    }
    assert ("classifier" in moved) == (config.identity_weight > 0)
    assert ("centers" in moved) == (config.center_weight > 0)
    assert any(name.startswith("visual") for name in moved)
    assert ("visual.conv1.weight" in moved) == (config.unfreeze_blocks == -1)
    if guided:
        assert any(name.startswith("inversion") for name in moved)
        assert any(name.startswith("guidance") for name in moved) == (config.method == "promptsg")
