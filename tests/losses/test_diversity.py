import numpy as np
import pytest
import torch

from handclip_lib.losses import diversity_loss


def test_it_is_the_mean_cosine_over_pairs():
    texts = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    pairs = [
        float(texts[i] @ texts[j] / (texts[i].norm() * texts[j].norm())) for i in range(5) for j in range(5) if i != j
    ]
    assert diversity_loss(texts).item() == pytest.approx(np.mean(pairs), abs=1e-6)


def test_by_hand_and_for_one_identity():
    # (1,0) and (0,2) are at right angles: 0; (1,0) and (3,3): 1/√2; (0,2) and (3,3): 1/√2
    texts = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert diversity_loss(texts).item() == pytest.approx(2 / 3 / 2**0.5)
    assert diversity_loss(texts[:1]).item() == 0


def test_its_gradient_parts_the_texts():
    texts = (torch.ones(4, 6) + 0.1 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = diversity_loss(texts)
    before.backward()
    assert diversity_loss(texts - 0.5 * texts.grad) < before
