from copy import deepcopy

import pytest
import torch

from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.models.drift import layer_drift
from handclip_lib.models.low_rank import adapt, merge


@pytest.mark.parametrize(("layers", "patch", "kind"), [(3, 16, "block"), ((1, 2, 1, 1), None, "layer")])
def test_each_part_is_measured_by_its_own_parameters(layers, patch, kind):
    torch.manual_seed(0)
    visual = clip_package().model.CLIP(16, 32, layers, 64, patch, 77, 100, 64, 1, 1).visual
    before = deepcopy(visual)
    still = layer_drift(visual, before)
    assert (still["drift"] == 0).all()
    assert still["parameters"].sum() == sum(p.numel() for p in visual.parameters())
    assert list(still["part"]) == ["input", *(f"{kind} {n}" for n in range(1, len(still) - 1)), "output"]
    last = visual.transformer.resblocks[1] if patch else visual.layer2
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(1.1)  # ‖0.1 w‖ / ‖w‖ = 0.1
        (visual.proj if patch else visual.attnpool.c_proj.weight).add_(1)
    moved = layer_drift(visual, before).set_index("part")["drift"]
    assert moved[f"{kind} 2"] == pytest.approx(0.1, rel=1e-5)
    assert moved["output"] > 0
    assert (moved.drop([f"{kind} 2", "output"]) == 0).all()


@pytest.mark.parametrize(("layers", "patch"), [(2, 16), ((1, 2, 1, 1), None)])
def test_merged_adapters_are_measured_where_they_are(layers, patch):
    torch.manual_seed(0)
    visual = clip_package().model.CLIP(16, 32, layers, 64, patch, 77, 100, 64, 1, 1).visual
    before = deepcopy(visual)
    adapt(visual, 2, 16.0, 0)
    merge(visual)
    assert (layer_drift(visual, before)["drift"] == 0).all()
