import math

import pytest
import torch
import torch.nn.functional as F

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.losses import image_losses
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import ReidHead

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
    terms = image_losses(encoder.logits, encoder.centers, texts_1, SMOOTHING, MARGIN, TEMPERATURE)
    values = {name: term(ids=torch.tensor(IDS), embeddings=embeddings).item() for name, term in terms.items()}
    return values | {"encoder": encoder, "rows": embeddings, "texts": texts}


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
    rows, terms = [unit(row) for row in found["rows"]], []
    for i, own in enumerate(IDS):
        away = [math.dist(rows[i], row) for row in rows]
        positives = [away[j] for j in range(6) if j != i and IDS[j] == own]
        negatives = [away[j] for j in range(6) if IDS[j] != own]
        if positives:
            terms.append(max(0.0, MARGIN + max(positives) - min(negatives)))
    assert len(terms) == 5, "the single image of identity 2 is left out"
    assert found["triplet"] == pytest.approx(sum(terms) / 5, rel=1e-9)


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
    rows, texts = [unit(row) for row in found["rows"]], [unit(found["texts"][own]) for own in IDS]
    total = 0.0
    for anchors, others in ((rows, texts), (texts, rows)):
        for anchor, own in zip(anchors, IDS, strict=True):
            scores = [dot(anchor, other) / TEMPERATURE for other in others]
            positives = [j for j in range(6) if IDS[j] == own]
            total -= sum(log_share(scores, j) for j in positives) / len(positives) / 6
    assert found["text_supcon"] == pytest.approx(total, rel=1e-9)
