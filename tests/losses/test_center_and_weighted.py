import pytest
import torch

from handclip_lib.errors import ConfigError
from handclip_lib.losses import WeightedLoss, center_loss


def test_centers_are_pulled_and_pull():
    embeddings = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    centers = torch.zeros(3, 2, requires_grad=True)
    loss = center_loss(embeddings, centers, torch.tensor([2, 0]))
    assert loss.item() == pytest.approx(0.5 * (5 + 25) / 2)
    loss.backward()
    assert centers.grad.tolist() == [[-1.5, -2.0], [0.0, 0.0], [-0.5, -1.0]]
    assert embeddings.grad.tolist() == [[0.5, 1.0], [1.5, 2.0]]


def test_the_sum_is_weighted_and_terms_are_named():
    loss = WeightedLoss({"a": lambda x: x, "b": lambda x: x**2, "c": lambda x: 1 / 0}, {"a": 2.0, "b": 0.5, "c": 0.0})
    total, terms = loss(x=torch.tensor(3.0))
    assert total.item() == 2 * 3 + 0.5 * 9
    assert {name: value.item() for name, value in terms.items()} == {"a": 3, "b": 9}


def test_weights_of_which_none_counts_are_refused():
    with pytest.raises(ConfigError, match="every loss has weight 0"):
        WeightedLoss({"a": lambda x: x}, {"a": 0.0})
