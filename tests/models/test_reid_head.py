import pytest
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import ConfigError
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import ReidHead


def small(layers=(1, 1, 1, 1)) -> Backbone:
    torch.manual_seed(0)
    model = clip_package().model.CLIP(32, 32, layers, 8, None, 77, 100, 64, 1, 1).eval()
    return Backbone("random", model, 32, 32, 77, torch.device("cpu"), "")


def test_the_embedding_is_the_towers_own():
    backbone = small()
    encoder = ReidEncoder(backbone, 5, ReidHead()).eval()
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(encoder.encode_image(images), backbone.model.visual(images))


@pytest.mark.parametrize("head", ["linear", "arcface"])
def test_the_head_learns_and_the_necks_shift_does_not(head):
    encoder = ReidEncoder(small(), 5, ReidHead(head=head)).train()
    ids = torch.tensor([0, 1, 2, 4])
    logits = encoder.logits(encoder.encode_image(torch.randn(4, 3, 32, 32)), ids)
    assert logits.shape == (4, 5)
    torch.nn.functional.cross_entropy(logits, ids).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (encoder.neck.weight, encoder.classifier))
    assert encoder.neck.bias.grad is None
    assert encoder.visual.conv1.weight.grad is not None


def test_arcface_puts_its_margin_on_the_own_logit():
    head = ReidHead(head="arcface", arcface_scale=10, arcface_margin=0.4)
    encoder = ReidEncoder(small(), 5, head).eval()
    embeddings, ids = torch.randn(4, 32), torch.tensor([0, 1, 2, 3])
    with_margin = encoder.logits(embeddings, ids)
    no_margin = head.model_copy(update={"arcface_margin": 0.0})
    without = ReidEncoder(small(), 5, no_margin).eval().logits(embeddings, ids)
    own = torch.nn.functional.one_hot(ids, 5).bool()
    assert (with_margin[own] < without[own]).all()
    torch.testing.assert_close(with_margin[~own], without[~own])


def test_what_is_frozen_stays_in_evaluation_mode():
    encoder = ReidEncoder(small(), 5, ReidHead(unfreeze_blocks=1)).train()
    assert encoder.neck.training
    assert encoder.visual.layer4.training
    assert not encoder.visual.layer3.training
    assert not encoder.visual.bn1.training
    assert ReidEncoder(small(), 5, ReidHead()).train().visual.bn1.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_identities": 1, "options": ReidHead()}, "identities that train: 1;"),
        ({"n_identities": 5, "options": ReidHead(unfreeze_blocks=5)}, "this image tower has 4"),
    ],
)
def test_what_makes_no_encoder_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ReidEncoder(small(), **options)
