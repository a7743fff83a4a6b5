import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from handclip_lib.backbone.load import TINY_WEIGHTS, load_backbone
from handclip_lib.data.images import decode_images
from handclip_lib.data.labels import read_hands11k
from handclip_lib.drawn.dataset import DRAWN_ASPECTS, draw_dataset, sitting_of, subject_seed
from handclip_lib.errors import BackboneError
from handclip_lib.evaluation.studies.prompts import PROMPTS, zero_shot
from tools import pretrain_tiny
from tools.pretrain_tiny import (  # fmt: skip
    TINY_SEED,
    Photographs,
    Recipe,
    draw_batch,
    embed,
    image_losses,
    main,
    new_clip,
    train_images,
    train_text,
    whiten,
)

SMALL = Recipe(subjects=4, images=4, steps=4, hands=4, text_steps=3, captions=8, bf16=False)


def coloured(hands: int = 16, images: int = 4, side: int = 128) -> Photographs:
    """Hands that are told by their colour alone, four photographs in two sittings each."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (hands, 1, 1, 1, 3))
    pixels = (colours + rng.integers(-20, 20, (hands, images, side, side, 3))).clip(0, 255).astype(np.uint8)
    hand = np.repeat(np.arange(hands), images)
    photograph = np.tile(np.arange(images), hands)
    aspect = np.array(DRAWN_ASPECTS)[hand % 4]
    facts = np.zeros((len(hand), 6), np.int64)
    facts[:, 0], facts[:, 1] = hand % 4 >= 2, hand % 2  # side and view of DRAWN_ASPECTS
    return Photographs(pixels.reshape(-1, side, side, 3), facts, aspect, hand, hand * 2 + photograph // 2, photograph)


def test_other_sittings_of_a_hand_are_neither_positive_nor_negative_to_the_sitting_loss():
    hand, sitting = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 2, 2])
    image, headed = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)).unbind()
    found = image_losses(image, headed, hand, sitting)
    near, far = F.normalize(image, dim=1), F.normalize(headed, dim=1)

    def share(embedding: torch.Tensor, row: int, other: int, among: list[int]) -> float:
        scores = {k: math.exp(float(embedding[row] @ embedding[k]) / 0.07) for k in among}
        return -math.log(scores[other] / sum(scores.values()))

    sitting_parts = [share(near, 0, 1, [1, 3, 4]), share(near, 1, 0, [0, 3, 4])]
    sitting_parts += [share(near, 3, 4, [0, 1, 2, 4]), share(near, 4, 3, [0, 1, 2, 3])]
    assert found["sitting"].item() == pytest.approx(np.mean(sitting_parts), rel=1e-4)
    hand_parts = []
    for row, group in ((0, [1, 2]), (1, [0, 2]), (2, [0, 1]), (3, [4]), (4, [3])):
        among = [k for k in range(5) if k != row]
        hand_parts.append(np.mean([share(far, row, other, among) for other in group]))
    assert found["hand"].item() == pytest.approx(np.mean(hand_parts), rel=1e-4)


def test_a_batch_has_three_photographs_of_each_hand_of_one_side_and_two_sittings_of_it():
    photographs = coloured(32)
    groups = {a: list(np.flatnonzero(photographs.aspect == a).reshape(-1, 4)) for a in DRAWN_ASPECTS}
    for seed in range(5):
        rows = draw_batch(photographs, groups, 8, np.random.default_rng(seed))
        first, second, third = rows.reshape(3, -1)
        assert len(set(rows)) == 24
        assert len({photographs.aspect[row].split("_")[1] for row in rows}) == 1
        assert len({photographs.aspect[row].split("_")[0] for row in rows}) == 2
        np.testing.assert_array_equal(photographs.hand[first], photographs.hand[second])
        np.testing.assert_array_equal(photographs.hand[first], photographs.hand[third])
        np.testing.assert_array_equal(photographs.sitting[first], photographs.sitting[second])
        assert (photographs.sitting[first] != photographs.sitting[third]).all()


@pytest.mark.slow
def test_training_brings_photographs_of_a_hand_together():
    photographs, backbone = coloured(8), new_clip("resnet", 0)
    train_images(backbone, photographs, replace(SMALL, steps=8))
    images = F.normalize(embed(backbone.model.visual, photographs.pixels), dim=1)
    similarity = (images @ images.T).numpy()
    same = np.equal.outer(photographs.hand, photographs.hand)
    assert similarity[same].mean() > similarity[~same].mean() + 0.2


@pytest.mark.parametrize("tower", ["resnet", "vit"])
def test_whitening_makes_the_spread_of_every_direction_alike_within_an_aspect(tower):
    photographs, visual = coloured(24), new_clip(tower, 0).model.visual.eval()
    aspect = photographs.aspect

    def spread() -> np.ndarray:
        images = embed(visual, photographs.pixels).double().numpy()
        for name in DRAWN_ASPECTS:
            images[aspect == name] -= images[aspect == name].mean(axis=0)
        return np.linalg.eigvalsh(images.T @ images / len(images))[::-1][:12]

    before = spread()
    whiten(visual, embed(visual, photographs.pixels), aspect)
    after = spread()
    assert after[0] <= 1.01
    if tower == "resnet":
        assert embed(visual, photographs.pixels).mean(dim=0).abs().max() < 1e-3
    assert after[0] / after[11] < min(0.5 * before[0] / before[11], 50)


@pytest.mark.slow
def test_text_is_trained_to_tell_the_aspect_and_the_image_tower_stays():
    photographs, backbone = coloured(16, 2), new_clip("resnet", 0)
    photographs.pixels[...] = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)[
        photographs.hand % 4, None, None
    ]  # an aspect is its colour
    whiten(backbone.model.visual.eval(), embed(backbone.model.visual, photographs.pixels), photographs.aspect)
    before = {name: value.clone() for name, value in backbone.model.visual.state_dict().items()}
    train_text(backbone, photographs, replace(SMALL, text_steps=40, captions=16))
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.visual.state_dict().items())
    images = F.normalize(embed(backbone.model.visual, photographs.pixels), dim=1).numpy()
    assert (zero_shot(images, backbone.encode_text, PROMPTS) == photographs.aspect).mean() > 0.9


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_tiny, "CHECKPOINT_EVERY", 2)
    photographs = coloured(8)
    whole, cut, again = (new_clip("resnet", 0) for _ in range(3))
    train_images(whole, photographs, SMALL)
    steps = itertools.count()

    def killed(*arguments):
        if next(steps) == 3:
            raise KeyboardInterrupt
        return draw_batch(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pretrain_tiny, "draw_batch", killed)
        train_images(cut, photographs, SMALL, tmp_path / "run.pt")
    train_images(again, photographs, SMALL, tmp_path / "run.pt")
    for name, value in whole.model.visual.state_dict().items():
        torch.testing.assert_close(again.model.visual.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    with pytest.raises(BackboneError, match="belongs to another recipe"):
        train_images(again, photographs, replace(SMALL, seed=1), tmp_path / "run.pt")
    for damaged in (b"", b"half", (tmp_path / "run.pt").read_bytes()[:5000]):
        (tmp_path / "run.pt").write_bytes(damaged)
        with pytest.raises(BackboneError, match=r"(?s)no checkpoint of a pretraining .*; delete it and start again"):
            train_images(again, photographs, SMALL, tmp_path / "run.pt")


def test_a_gradient_that_is_no_number_is_refused_before_its_step():
    backbone = new_clip("resnet", 0)
    backbone.model.visual.bn1.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(BackboneError, match=r"the gradient is .* at step 0: lower the learning rate"):
        train_images(backbone, coloured(8), SMALL)
    assert all(parameter.isfinite().all() for parameter in backbone.model.visual.parameters())


def test_a_loss_that_is_no_number_is_refused():
    photographs, backbone = coloured(8), new_clip("resnet", 0)
    backbone.model.visual.conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(BackboneError, match="the loss is nan at step 0"):
        train_images(backbone, photographs, SMALL)


@pytest.mark.parametrize("tower", ["resnet", "vit"])
def test_the_command_draws_trains_and_writes_weights_that_load(tower, tmp_path):
    arguments = ["--subjects", "4", "--images", "2", "--steps", "2", "--hands", "4", "--text-steps", "2"]
    arguments += ["--captions", "4", "--tower", tower, "--work", str(tmp_path)]
    arguments += ["--out", str(tmp_path / "w.safetensors")]
    main(arguments)
    backbone = load_backbone(str(tmp_path / "w.safetensors"), device="cpu")
    assert backbone.encode_image(np.zeros((1, 128, 128, 3), np.uint8)).shape == (1, 128)
    stored = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert stored["token_embedding.weight"].dtype == torch.float8_e4m3fn
    assert not list(tmp_path.glob("*.pt")), "the checkpoint is gone once the weights are written"


def test_sittings_of_the_drawings_are_those_they_were_drawn_with(tmp_path):
    recipe = replace(SMALL, subjects=2, images=4)
    photographs = pretrain_tiny.drawn_photographs(tmp_path / "drawn", recipe)
    assert len(photographs.hand) == 2 * 4 * 4
    for row in range(len(photographs.hand)):
        person, aspect, k = row // 16, DRAWN_ASPECTS[row // 4 % 4], row % 4
        sitting, burst = sitting_of(subject_seed(TINY_SEED, person), aspect, k, pretrain_tiny.STAYS)
        assert photographs.aspect[row] == aspect
        assert photographs.hand[row] == row // 4
        assert photographs.sitting[row] == row // 4 * 4 + sitting
        assert photographs.burst[row] == burst


def test_nobody_of_the_default_data_set_is_pretrained_on():
    default = {subject_seed(0, number) for number in range(5_000)}
    assert not default & {subject_seed(TINY_SEED, number) for number in range(5_000)}


def test_the_shipped_weights_are_small_and_are_what_the_recipe_makes():
    assert TINY_WEIGHTS.stat().st_size < 8_000_000
    shipped = {name: tuple(value.shape) for name, value in safetensors.torch.load_file(TINY_WEIGHTS).items()}
    assert shipped == {name: tuple(value.shape) for name, value in new_clip("resnet", 0).model.state_dict().items()}


def test_tiny_knows_people_it_never_saw_and_what_prompts_say_of_them(tmp_path):
    seed = 20_000
    assert seed not in (0, TINY_SEED)
    table = read_hands11k(draw_dataset(tmp_path / "drawn", 6, 3, seed, progress=False, workers=1)).images
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
    assert (zero_shot(images, tiny.encode_text, PROMPTS) == table["aspect"]).mean() > 0.9
