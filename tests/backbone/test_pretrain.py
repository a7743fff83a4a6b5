import math

import numpy as np
import pytest
import torch

from handclip_lib.backbone.load import load_backbone
from handclip_lib.backbone.pretrain import SEED, augment, caption, draw_batch, pretrain, same_group_loss
from handclip_lib.data.drawn import draw_dataset
from handclip_lib.data.hands11k import read_hands11k
from handclip_lib.data.images import decode_images


def test_a_caption_says_what_the_metadata_say():
    record = {
        "side": "left", "view": "palmar", "skin_color": "dark", "gender": "female", "age": 31,
        "accessories": True, "nail_polish": False,
    }  # fmt: skip
    assert caption(record) == "a photo of a left palmar hand with dark skin, female, 31 years old, jewellery"


def test_the_loss_is_the_papers_formula_pair_by_pair():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.5, -torch.inf, 3.0]])
    positive = torch.tensor([[True, True, False], [False, False, True]])
    first = [math.exp(2), math.exp(1), math.exp(-1)]
    second = [math.exp(0.5), 0, math.exp(3)]
    expected = (
        -(math.log(first[0] / sum(first)) + math.log(first[1] / sum(first))) / 2 - math.log(second[2] / sum(second))
    ) / 2
    assert same_group_loss(logits, positive).item() == pytest.approx(expected, rel=1e-6)


def test_augmentation_moves_a_mark_a_little_and_never_mirrors_it():
    pixels = torch.zeros(200, 64, 64, 3, dtype=torch.uint8)
    pixels[:, 28:36, 44:56] = 255  # a mark in the right half
    images = augment(pixels, torch.Generator().manual_seed(0))
    light = (images - images.amin(dim=(2, 3), keepdim=True)).sum(dim=1)
    across = (light * torch.arange(64)).sum(dim=(1, 2)) / light.sum(dim=(1, 2))
    assert across.min() > 40
    assert across.std() > 0.5


def test_a_batch_has_two_photographs_of_each_hand_in_two_aspects():
    groups = {(aspect, str(person)): np.arange(4) for aspect in "abcd" for person in range(30)}
    groups = {key: rows + 4 * number for number, (key, rows) in enumerate(groups.items())}
    rows = draw_batch(groups, np.random.default_rng(0))
    hands, counts = np.unique(rows // 4, return_counts=True)
    assert len(rows) == len(set(rows)) == 96
    assert set(counts) == {2}
    assert len(set(hands // 30)) == 2


def test_training_brings_photographs_of_a_hand_together():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (8, 1, 1, 1, 3))
    noise = rng.integers(-20, 20, (8, 4, 64, 64, 3))
    pixels = (colours + noise).clip(0, 255).astype(np.uint8).reshape(32, 64, 64, 3)
    identities = [str(number // 4) for number in range(32)]
    model, steps = pretrain(pixels, ["dorsal_r"] * 32, identities, ["a hand"] * 32, minutes=0.06)
    assert steps > 3
    images = augment(torch.from_numpy(pixels), torch.Generator().manual_seed(1))
    with torch.inference_mode():
        embedded = torch.nn.functional.normalize(model.encode_image(images), dim=1)
    similarity = (embedded @ embedded.T).numpy()
    same = np.equal.outer(identities, identities)
    assert similarity[same].mean() > similarity[~same].mean() + 0.2


def test_tiny_knows_people_it_never_saw(tmp_path):
    seed = 20_000
    assert seed not in (0, SEED)
    table = read_hands11k(draw_dataset(tmp_path / "drawn", 12, 3, seed, progress=False, workers=1)).images
    tiny = load_backbone("tiny", device="cpu")
    decoded = decode_images(tmp_path / "drawn", list(table["path"]), tiny.resolution, cache=tmp_path)
    images = tiny.encode_image(np.array(decoded.pixels))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    similarity = images @ images.T
    hand = table["identity"] + table["aspect"]
    aspect = np.equal.outer(table["aspect"].to_numpy(), table["aspect"].to_numpy())
    same = np.equal.outer(hand.to_numpy(), hand.to_numpy())
    np.fill_diagonal(aspect, False)
    np.fill_diagonal(same, False)
    assert similarity[same].mean() > similarity[aspect & ~same].mean() + 0.1
