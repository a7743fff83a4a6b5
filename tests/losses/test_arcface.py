import math

import pytest
import torch

from handclip_lib.losses import arcface_logits


def test_only_the_own_logit_has_the_margin():
    generator = torch.Generator().manual_seed(0)
    embeddings, weights = torch.randn(5, 8, generator=generator), torch.randn(4, 8, generator=generator)
    ids = torch.tensor([0, 1, 2, 3, 1])
    logits = arcface_logits(embeddings, weights, ids, scale=20, margin=0.3)
    for i in range(5):
        for j in range(4):
            cosine = float(torch.nn.functional.cosine_similarity(embeddings[i], weights[j], dim=0))
            expected = math.cos(math.acos(cosine) + 0.3) if j == ids[i] else cosine
            assert logits[i, j].item() == pytest.approx(20 * expected, abs=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_are_finite_where_the_cosine_is_one_or_minus_one(sign):
    embeddings = torch.eye(3).requires_grad_()
    weights = (sign * torch.eye(3)).requires_grad_()
    arcface_logits(embeddings, weights, torch.arange(3)).logsumexp(dim=1).sum().backward()
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(weights.grad).all()


def test_the_own_logit_falls_with_the_angle_all_the_way():
    angles = torch.linspace(0.01, math.pi - 0.01, 200)
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    logits = arcface_logits(embeddings, torch.tensor([[1.0, 0.0]]), torch.zeros(200, dtype=torch.long), margin=0.5)
    assert (logits[:, 0].diff() < 0).all()
