import pytest
import torch

from handclip_lib.losses import batch_hard_triplet


def written(embeddings, identities, margin):
    terms = []
    for i in range(len(embeddings)):
        away = [float((embeddings[i] - other).norm()) for other in embeddings]
        positives = [away[j] for j in range(len(away)) if j != i and identities[j] == identities[i]]
        negatives = [away[j] for j in range(len(away)) if identities[j] != identities[i]]
        if positives and negatives:
            terms.append(max(0.0, margin + max(positives) - min(negatives)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 1, 1]])
def test_it_is_the_written_formula_and_singles_are_left_out(labels):
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor(labels)
    for margin in (0.0, 0.3, 5.0):
        assert batch_hard_triplet(embeddings, ids, margin).item() == pytest.approx(written(embeddings, ids, margin))


def test_a_batch_without_pairs_or_without_others_gives_zero_and_a_gradient():
    for ids in (torch.arange(4), torch.zeros(4, dtype=torch.long)):
        embeddings = torch.randn(4, 3, requires_grad=True)
        loss = batch_hard_triplet(embeddings, ids)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(embeddings.grad, torch.zeros(4, 3))


def test_equal_embeddings_have_a_finite_gradient():
    embeddings = torch.ones(4, 3, requires_grad=True)
    batch_hard_triplet(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(embeddings.grad).all()
