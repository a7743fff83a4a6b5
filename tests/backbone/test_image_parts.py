import pytest
import torch

from handclip_lib.backbone.freeze import ALL, blocks_of, unfreeze
from handclip_lib.backbone.image_parts import frozen_part, learning_part
from handclip_lib.backbone.openai_clip import clip_package


def tower(kind: str):
    torch.manual_seed(0)
    layers, width, patch = (4, 128, 16) if kind == "vit" else ((1, 2, 1, 1), 16, None)
    visual = clip_package().model.CLIP(48, 64, layers, width, patch, 77, 100, 64, 1, 1).visual.eval()
    for parameter in visual.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    return visual


def gradients(visual, embeddings):
    visual.zero_grad(set_to_none=True)
    (embeddings * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return {name: p.grad.clone() for name, p in visual.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("last", [ALL, 0, 1, 2, 4])
def test_the_two_parts_are_the_tower_with_its_gradients(kind, last):
    visual = tower(kind)
    unfreeze(visual, last)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    plain = visual(images)
    wanted = gradients(visual, plain)
    held = frozen_part(visual, images, last)
    assert not held.requires_grad
    parts = learning_part(visual, held, last)
    torch.testing.assert_close(parts, plain, rtol=1e-5, atol=1e-4)
    found = gradients(visual, parts)
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-5, name
    again = learning_part(visual, held, last)
    torch.testing.assert_close(again, parts)


def test_every_number_of_blocks_splits_the_tower():
    visual = tower("vit")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for last in range(len(blocks_of(visual)) + 1):
            torch.testing.assert_close(
                learning_part(visual, frozen_part(visual, images, last), last), visual(images), rtol=1e-4, atol=1e-4
            )
