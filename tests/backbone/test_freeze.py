import pytest
import torch

from handclip_lib.backbone.image_tower import ALL, blocks_of, train_mode, unfreeze
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import ConfigError


@pytest.fixture(params=["vit", "resnet"])
def visual(request):
    vit = request.param == "vit"
    layers = 3 if vit else (1, 1, 1, 1)
    return clip_package().model.CLIP(32, 32, layers, 64 if vit else 8, 16 if vit else None, 77, 100, 64, 1, 1).visual


def learns(visual) -> set[str]:
    return {name.split(".")[0] for name, p in visual.named_parameters() if p.requires_grad}


def test_everything_or_the_last_blocks_learn(visual):
    vit, count = hasattr(visual, "transformer"), len(blocks_of(visual))
    assert unfreeze(visual, ALL) == [visual]
    assert all(p.requires_grad for p in visual.parameters())
    unfreeze(visual, 0)
    assert learns(visual) == ({"ln_post", "proj"} if vit else {"attnpool"})
    unfreeze(visual, 2)
    names = {name for name, p in visual.named_parameters() if p.requires_grad}
    blocks = {".".join(name.split(".")[:3]) for name in names if "resblocks" in name} if vit else learns(visual)
    assert blocks == (
        {"transformer.resblocks.1", "transformer.resblocks.2"} if vit else {"layer3", "layer4", "attnpool"}
    )
    unfreeze(visual, count)
    assert not visual.conv1.weight.requires_grad, "the patches or the stem learn with ALL only"


def test_frozen_batch_norms_count_nothing():
    visual = clip_package().model.CLIP(32, 32, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1).visual
    train_mode(visual, unfreeze(visual, 1))
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    visual(torch.randn(4, 3, 32, 32))
    moved = {name.split(".")[0] for name, value in visual.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"layer4"}


@pytest.mark.parametrize("last", [13, -2])
def test_more_blocks_than_there_are_is_refused(visual, last):
    with pytest.raises(ConfigError, match=f"unfreeze_blocks={last}: this image tower has {len(blocks_of(visual))}"):
        unfreeze(visual, last)
