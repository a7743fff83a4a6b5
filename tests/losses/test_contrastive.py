import math

import pytest
import torch

from handclip_lib.losses import group_cross_entropy, supervised_contrastive


def written(anchors, others, anchor_ids, other_ids, temperature, normalize) -> float:
    """The formula, number by number."""
    if normalize:
        anchors, others = (rows / rows.norm(dim=1, keepdim=True) for rows in (anchors, others))
    total = 0.0
    for i in range(len(anchors)):
        scores = [float(anchors[i] @ other) / temperature for other in others]
        top = max(scores)
        normaliser = top + math.log(sum(math.exp(score - top) for score in scores))
        positives = [p for p in range(len(others)) if other_ids[p] == anchor_ids[i]]
        total += sum(scores[p] - normaliser for p in positives) / len(positives)
    return -total / len(anchors)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 1, 2], [3, 3, 3, 3, 3, 3]])
@pytest.mark.parametrize(("temperature", "normalize"), [(1.0, False), (0.07, True), (0.5, False)])
def test_the_loss_is_the_written_formula(labels, temperature, normalize):
    generator = torch.Generator().manual_seed(1)
    image, text = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64).unbind()
    ids = torch.tensor(labels)
    for anchors, others in ((image, text), (text, image)):
        loss = supervised_contrastive(anchors, others, ids, ids, temperature, normalize)
        assert loss.item() == pytest.approx(written(anchors, others, ids, ids, temperature, normalize), rel=1e-9)


def test_unique_labels_are_the_ordinary_clip_loss_and_not_zero():
    image, text = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2)).unbind()
    ids = torch.arange(5)
    expected = torch.nn.functional.cross_entropy(image @ text.T, ids)
    assert supervised_contrastive(image, text, ids, ids).item() == pytest.approx(expected.item(), rel=1e-6)
    assert expected > 0.1


def test_distinct_columns_differ_from_repeated_ones():
    image, text = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(3)).unbind()
    ids = torch.tensor([0, 0, 0, 1])
    repeated = supervised_contrastive(image, text[[0, 0, 0, 3]], ids, ids)
    once = supervised_contrastive(image, text[[0, 3]], ids, torch.tensor([0, 1]))
    assert repeated.item() != pytest.approx(once.item(), rel=1e-3), "so the batch's repetition is part of the loss"


def test_a_row_without_a_positive_is_left_out_and_pairs_at_minus_infinity_do_not_count():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.5, -torch.inf, 3.0], [1.0, 1.0, 1.0]], requires_grad=True)
    positive = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    first = [math.exp(2), math.exp(1), math.exp(-1)]
    second = [math.exp(0.5), 0, math.exp(3)]
    expected = (
        -(math.log(first[0] / sum(first)) + math.log(first[1] / sum(first))) / 2 - math.log(second[2] / sum(second))
    ) / 2
    loss = group_cross_entropy(logits, positive)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert group_cross_entropy(logits, torch.zeros_like(positive)).item() == 0
