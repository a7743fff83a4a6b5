"""The last projection, fitted to how photographs of one person differ."""

import numpy as np
import pytest
import torch

from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.models.low_rank import LowRank, adapt
from handclip_lib.models.whitening import projects, whiten, within_person_whitening


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def people_and_embeddings(rng: np.random.Generator, n_people: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Four photographs each, that differ ten times as much in the first value as in the others."""
    people = np.repeat(np.arange(n_people), 4)
    spread = np.array([10.0, 1.0, 1.0, 1.0])
    return people, 3 + rng.normal(size=(n_people, 4))[people] + spread * rng.normal(size=(len(people), 4))


def test_the_spread_within_people_becomes_even(rng: np.random.Generator) -> None:
    people, embeddings = people_and_embeddings(rng)
    mean, matrix = within_person_whitening(embeddings, people, 1 - 1e-9)
    made = (embeddings - mean) @ matrix
    slow = np.zeros((4, 4))
    for person in range(60):
        own = made[people == person]
        slow += (own - own.mean(0)).T @ (own - own.mean(0)) * 4 / 3
    slow /= len(made)
    np.testing.assert_allclose(slow, slow[0, 0] * np.eye(4), atol=1e-6)
    np.testing.assert_allclose(made.mean(0), 0, atol=1e-9)
    assert np.square(made).sum(1).mean() == pytest.approx(np.square(embeddings).sum(1).mean())


def test_strength_goes_from_nothing_to_all(rng: np.random.Generator) -> None:
    people, embeddings = people_and_embeddings(rng)
    _, none = within_person_whitening(embeddings, people, 0.0)
    np.testing.assert_allclose(none, none[0, 0] * np.eye(4), atol=1e-9)
    ratios = []
    for strength in (0.0, 0.5, 0.9, 0.999):
        _, matrix = within_person_whitening(embeddings, people, strength)
        ratios.append(matrix[1, 1] / matrix[0, 0])
    assert ratios == sorted(ratios) and ratios[-1] == pytest.approx(10, rel=0.2)


def test_people_with_one_photograph_shift_the_mean_alone(rng: np.random.Generator) -> None:
    people, embeddings = people_and_embeddings(rng)
    alone = embeddings.mean(0) + rng.normal(size=(3, 4))
    alone += embeddings.mean(0) - alone.mean(0)
    _, matrix = within_person_whitening(embeddings, people, 0.5)
    _, more = within_person_whitening(np.vstack([embeddings, alone]), np.append(people, [91, 92, 93]), 0.5)
    np.testing.assert_allclose(more / more[0, 0], matrix / matrix[0, 0])


@pytest.mark.parametrize("people", [np.arange(6), np.repeat([0, 1], 3)], ids=["one photograph each", "copies"])
def test_nothing_that_differs_gives_nothing(people: np.ndarray) -> None:
    embeddings = np.random.default_rng(0).normal(size=(6, 4))[people]
    assert within_person_whitening(embeddings, people, 0.5) is None


@pytest.mark.parametrize("rank", [0, 2], ids=["whole", "adapters"])
@pytest.mark.parametrize("layers", [(1, 1, 1, 1), 1], ids=["ResNet", "ViT"])
def test_the_tower_itself_gives_whitened_embeddings(layers: tuple[int, ...] | int, rank: int) -> None:
    torch.manual_seed(0)
    patch = None if isinstance(layers, tuple) else 16
    visual = clip_package().model.CLIP(8, 32, layers, 64, patch, 8, 99, 64, 1, 1).visual.eval()
    if rank:
        adapt(visual, rank, 16.0, 0)
        for module in visual.modules():
            if isinstance(module, LowRank):
                torch.nn.init.normal_(module.up, std=0.1)
    images = torch.randn(12, 3, 32, 32)
    before = visual(images).detach().numpy()
    mean, matrix = within_person_whitening(before, np.repeat(np.arange(4), 3), 0.5)
    assert projects(visual)
    whiten(visual, mean, matrix)
    np.testing.assert_allclose(visual(images).detach().numpy(), (before - mean) @ matrix, atol=1e-4)


def test_a_tower_without_a_projection_is_told() -> None:
    assert not projects(torch.nn.Linear(2, 2))
