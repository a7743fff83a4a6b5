"""Which backbones parameters take: short names, and models of other libraries by library and name."""

import pytest

from handclip_lib.errors import ConfigError
from handclip_lib.parameters.backbones import folder_of, of_library
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import Evaluation, ImageFinetune, JointTraining
from handclip_lib.parameters.parts import choices_of
from handclip_lib.report.private import Redaction
from handclip_lib.runs.identity import run_id
from handclip_lib.widgets.parameter_panel import ParameterPanel

SIGLIP = "open_clip:ViT-B-16-SigLIP2"


def test_a_librarys_model_is_named_by_library_and_name_or_folder():
    assert of_library(SIGLIP) == ("open_clip", "ViT-B-16-SigLIP2")
    assert [of_library(name) for name in ("vitb16", "timm:", "openclip:ViT-B-16")] == [None] * 3
    assert [folder_of(name) for name in (SIGLIP, "hf:siglip", "timm:~/dino", "tiny")] == ["", "siglip", "~/dino", ""]
    assert resolve(Evaluation, {"backbone": SIGLIP, "weights": "a.bin"}).backbone == SIGLIP
    assert {"tiny", str} <= set(choices_of(Evaluation.model_fields["backbone"].annotation))


@pytest.mark.parametrize(
    ("model", "given", "reason"),
    [
        (Evaluation, {"backbone": "vitb61"}, "did you mean vitb16? choose from tiny, vitb16"),
        (Evaluation, {"backbone": "openclip:ViT-B-16"}, "another library's model: open_clip:NAME, timm:NAME, hf:"),
        (Evaluation, {"backbone": 16}, "backbone=16: text is wanted"),
        (Evaluation, {"backbone": SIGLIP, "activation": "gelu", "heads": 3}, "activation and heads: backbone='open"),
        (ImageFinetune, {"backbone": SIGLIP, "recompute": True}, "recompute=True: backbone="),
        (JointTraining, {"backbone": SIGLIP, "method": "promptsg"}, "takes prompts_then_image"),
    ],
)  # fmt: skip
def test_what_is_no_backbone_or_does_not_go_with_one_is_refused_once(model, given, reason):
    with pytest.raises(ConfigError) as refused:
        resolve(model, given)
    assert reason in str(refused.value)
    assert str(refused.value).startswith("1 parameter is wrong")


def test_mean_and_deviation_may_be_said_of_a_folder_without_a_file():
    assert resolve(Evaluation, {"backbone": "hf:siglip", "mean_std": "half"}).mean_std == "half"


def test_a_folder_names_its_runs_and_no_private_report_says_where_it_is():
    config = Evaluation(backbone="hf:/home/erin/models/siglip2-base")
    assert run_id(config, "", {}).startswith("05_evaluation-siglip2_base-drawn-")
    assert run_id(Evaluation(backbone=SIGLIP), "", {}).startswith("05_evaluation-open_clip_ViT_B_16_SigLIP2-drawn-")
    redaction = Redaction({})
    assert redaction.value("parameters", config.model_dump())["backbone"] == "hf:withheld"
    assert redaction.value("backbone", SIGLIP) == SIGLIP
    assert config.selected_on == "unknown"


def test_the_panel_takes_other_text_for_the_backbone():
    panel = ParameterPanel(Evaluation(backbone=SIGLIP, weights="a.bin"))
    control = panel.controls["backbone"]
    assert control.value == SIGLIP
    assert "vitb16" in control.options
