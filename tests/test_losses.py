import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import ConfigError
from handclip_lib.losses import (
    WeightedLoss,
    arcface_logits,
    batch_hard_triplet,
    center_loss,
    diversity_loss,
    group_cross_entropy,
    image_losses,
    supervised_contrastive,
)
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import ImageTraining, ReidHead


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


def contrastive_by_hand(anchors, others, anchor_ids, other_ids, temperature, normalize) -> float:
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
        assert loss.item() == pytest.approx(
            contrastive_by_hand(anchors, others, ids, ids, temperature, normalize), rel=1e-9
        )


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


def test_it_is_the_mean_cosine_over_pairs():
    texts = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    pairs = [
        float(texts[i] @ texts[j] / (texts[i].norm() * texts[j].norm())) for i in range(5) for j in range(5) if i != j
    ]
    assert diversity_loss(texts).item() == pytest.approx(np.mean(pairs), abs=1e-6)
    assert diversity_loss(texts[:1]).item() == 0


def test_its_gradient_parts_the_texts():
    texts = (torch.ones(4, 6) + 0.1 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = diversity_loss(texts)
    before.backward()
    assert diversity_loss(texts - 0.5 * texts.grad) < before


def triplet_by_hand(embeddings, identities, margin):
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
        assert batch_hard_triplet(embeddings, ids, margin).item() == pytest.approx(
            triplet_by_hand(embeddings, ids, margin)
        )


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


IDS = [0, 0, 1, 1, 1, 2]
SMOOTHING, MARGIN, TEMPERATURE = 0.2, 0.4, 0.25


@pytest.fixture(scope="module")
def found() -> dict:
    """Every term by name, and what they were computed of."""
    torch.manual_seed(0)
    model = clip_package().model.CLIP(8, 32, 1, 64, 32, 77, 100, 64, 1, 1).eval()
    encoder = ReidEncoder(Backbone("random", model, 32, 8, 77, torch.device("cpu"), ""), 4, ReidHead()).double()
    encoder.centers.data = torch.randn(4, 8, dtype=torch.float64)
    encoder.classifier.data = torch.randn(4, 8, dtype=torch.float64)
    embeddings, texts = 3 * torch.randn(6, 8, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)
    texts_1 = F.normalize(texts, dim=1)
    terms = image_losses(
        encoder.logits, encoder.centers, texts_1, SMOOTHING, MARGIN, TEMPERATURE, lambda: torch.tensor(2.5)
    )
    rows = {"embeddings": embeddings, "frozen": torch.randn(6, 8, dtype=torch.float64)}
    values = {name: term(ids=torch.tensor(IDS), **rows).item() for name, term in terms.items()}
    return values | {"encoder": encoder, "rows": embeddings, "frozen": rows["frozen"], "texts": texts}


def unit(row) -> list[float]:
    length = math.sqrt(sum(float(value) ** 2 for value in row))
    return [float(value) / length for value in row]


def dot(one, other) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def log_share(scores: list[float], number: int) -> float:
    return scores[number] - math.log(sum(math.exp(score) for score in scores))


def test_identity_is_the_smoothed_cross_entropy_of_the_bottled_embedding(found):
    rows, weights = found["rows"], found["encoder"].classifier
    centred = rows - rows.mean(dim=0)
    bottled = centred / (centred.square().mean(dim=0) + 1e-5).sqrt()  # the neck's scale begins at 1, without a shift
    total = 0.0
    for row, own in zip(bottled, IDS, strict=True):
        scores = [dot(row.tolist(), weight.tolist()) for weight in weights]
        for number in range(4):
            share = SMOOTHING / 4 + (1 - SMOOTHING) * (number == own)
            total -= share * log_share(scores, number) / len(IDS)
    assert found["identity"] == pytest.approx(total, rel=1e-9)


def test_triplet_takes_the_farthest_and_the_nearest_of_embeddings_of_length_1(found):
    rows = F.normalize(found["rows"], dim=1)
    assert found["triplet"] == pytest.approx(triplet_by_hand(rows, IDS, MARGIN), rel=1e-9)


def test_supcon_compares_an_image_with_all_others_and_never_with_itself(found):
    rows, terms = [unit(row) for row in found["rows"]], []
    for i, own in enumerate(IDS):
        others = [j for j in range(6) if j != i]
        scores = [dot(rows[i], rows[j]) / TEMPERATURE for j in others]
        positives = [number for number, j in enumerate(others) if IDS[j] == own]
        if positives:
            terms.append(-sum(log_share(scores, number) for number in positives) / len(positives))
    assert found["supcon"] == pytest.approx(sum(terms) / 5, rel=1e-9)


def test_center_is_half_the_squared_distance_of_embeddings_of_length_1(found):
    distances = [
        math.dist(unit(row), found["encoder"].centers[own].tolist())
        for row, own in zip(found["rows"], IDS, strict=True)
    ]
    assert found["center"] == pytest.approx(sum(d**2 for d in distances) / 12, rel=1e-9)


def test_image_to_text_is_over_the_texts_of_all_identities(found):
    texts, total = [unit(text) for text in found["texts"]], 0.0
    for row, own in zip(found["rows"], IDS, strict=True):
        total -= log_share([dot(unit(row), text) / TEMPERATURE for text in texts], own) / 6
    assert found["image_to_text"] == pytest.approx(total, rel=1e-9)


def test_text_supcon_is_both_ways_over_the_batchs_own_texts(found):
    ways = [found["rows"], found["texts"][IDS]]
    total = sum(contrastive_by_hand(*way, IDS, IDS, TEMPERATURE, True) for way in (ways, ways[::-1]))
    assert found["text_supcon"] == pytest.approx(total, rel=1e-9)


def test_distillation_is_the_mean_squared_distance_to_the_frozen_embeddings_of_length_1(found):
    distances = [math.dist(unit(row), unit(frozen)) for row, frozen in zip(found["rows"], found["frozen"], strict=True)]
    assert found["distillation"] == pytest.approx(sum(d**2 for d in distances) / 6, rel=1e-9)
    assert found["start"] == 2.5, "what it is given"


def test_every_loss_has_its_weight():
    losses = image_losses(lambda embeddings, ids: embeddings, torch.zeros(2, 2), None, 0.0, 0.3, 1.0)
    assert ImageTraining().loss_weights.keys() == losses.keys()
