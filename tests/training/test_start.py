"""Trainings that stay near the frozen model: interpolation, the distance to the start, distillation, rates by depth."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.backbone.properties import Given
from handclip_lib.data.batches import augment
from handclip_lib.errors import TrainingError
from handclip_lib.models.low_rank import LowRank, merge, merged_state
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import classify, encode_images, save_trained
from handclip_lib.models.whitening import within_person_whitening
from handclip_lib.parameters.parts import ImageTraining, ReidHead
from handclip_lib.training import encoding
from handclip_lib.training.encoding import BatchEncoder
from handclip_lib.training.image import fit_image
from handclip_lib.training.optimizer import groups
from handclip_lib.training.start import SHARES, Start
from handclip_lib.training.state import load_checkpoint

LABELS = np.repeat(np.arange(3), 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
each_tower = pytest.mark.parametrize("vit", [True, False], ids=["ViT", "ResNet"])
each_rank = pytest.mark.parametrize("rank", [0, 2], ids=["whole", "adapters"])


def backbone_of(vit: bool) -> Backbone:
    torch.manual_seed(0)
    size = (2, 64, 16) if vit else ((1, 1, 1, 1), 8, None)
    model = clip_package().model.CLIP(16, 32, *size, 77, 100, 64, 1, 1).eval()
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.ones_(parameter)
    return Backbone("random", model, 32, 16, 77, torch.device("cpu"), "")


def encoder_of(vit: bool, **head) -> ReidEncoder:
    return ReidEncoder(backbone_of(vit), 3, ReidHead(**head))


def rising():
    count = iter(range(99))
    return lambda encode: {"val_map": float(next(count)) + 0 * encode(PIXELS).sum()}


def fit(encoder: ReidEncoder, validate=None, folder=None, stop=None, **options):
    given = {"epochs": 2, "n_identities": 3, "n_images": 2, "views": 1, "learning_rate": 2e-3, "triplet_weight": 0.5}
    given |= {"interpolation": 1.0, "whitening": 0.0}
    options = ImageTraining(**given | options)
    validate = validate or rising()
    more = {"validate": validate, "folder": folder, "stop": stop, "progress": False}
    return fit_image(encoder, PIXELS, LABELS, options, **more)


def tower(encoder: ReidEncoder) -> dict[str, torch.Tensor]:
    return {name.removeprefix("visual."): v for name, v in merged_state(encoder).items() if name.startswith("visual.")}


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@each_rank
@each_tower
def test_shares_0_and_1_are_both_ends_to_the_bit_and_others_lie_between(vit, rank):
    ends = [tower(encoder_of(vit, lora_rank=rank)) for _ in range(2)]
    tuned = encoder_of(vit, lora_rank=rank)
    assert fit(tuned).share == 1
    ends[1] = tower(tuned)
    assert not equal(*ends)
    for share in (0.0, 0.3):
        encoder = encoder_of(vit, lora_rank=rank)
        result = fit(encoder, interpolation=share)
        found = tower(encoder)
        assert result.share == share
        assert result.shares["interpolation"].tolist() == sorted({0, share, 1})
        assert result.learnt == ("yes" if share else "no: the interpolation took the frozen weights")
        if not share:
            assert equal(found, ends[0])
        for name, value in found.items():
            if value.is_floating_point():
                between = (1 - share) * ends[0][name] + share * ends[1][name]
                torch.testing.assert_close(value, between, rtol=1e-5, atol=1e-7)
    start, best = (
        Start(tuned, tuned.state_dict()),
        {name: (1e3 * torch.randn(v.shape)).to(v.dtype) for name, v in tuned.state_dict().items()},
    )
    for share, end in ((0.0, start.towards(best, 0.0)), (1.0, start.towards(best, 1.0))):
        wanted = best if share else tuned.state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in end.items())


@pytest.mark.parametrize(("best", "taken"), [(0.4, 0.4), (None, 0.0)])
def test_validation_chooses_the_share_and_of_equals_the_one_nearest_the_start(best, taken):
    """Validation knows a share by how far the embeddings went, which rises with it."""
    start, seen = encode_images(encoder_of(True), PIXELS), []

    def validate(encode) -> dict[str, float]:
        seen.append(np.abs(encode(PIXELS) - start).sum())
        if len(seen) <= 3:  # the epochs, of which the last is the best, and all that was tuned
            return {"val_map": float(len(seen) - 3)}
        return {"val_map": 9.0 if best is None or SHARES[len(seen) - 4] == best else 0.0}

    encoder = encoder_of(True)
    result = fit(encoder, validate, interpolation=-1)
    assert result.share == taken
    assert result.shares["interpolation"].tolist() == list(SHARES)
    assert seen[3] == 0 and np.all(np.diff([*seen[3:], seen[2]]) > 0)
    assert len(seen) == 3 + 5, "the last share is the best epoch as it was validated, and not validated again"
    assert result.shares["val_map"].iloc[-1] == 0
    assert (np.abs(encode_images(encoder, PIXELS) - start).sum() == 0) == (taken == 0)


@pytest.mark.parametrize(("vit", "rank", "average"), [(True, 2, 0.5), (False, 0, 0.0)])
def test_every_epoch_is_validated_as_it_would_be_kept(vit, rank, average):
    seen = []

    def validate(encode) -> dict[str, float]:
        seen.append(encode(PIXELS))
        return {"val_map": float(len(seen))}

    encoder = encoder_of(vit, lora_rank=rank)
    result = fit(encoder, validate, interpolation=0.4, whitening=0.5, average=average)
    kept, tried = encode_images(encoder, PIXELS), seen[3:]
    np.testing.assert_allclose(seen[2], kept, atol=1e-3 * np.abs(kept).max())
    assert len(tried) == 2, "the share that is asked for was validated with its epoch"
    assert result.shares.to_numpy().tolist() == [[0, 4], [0.4, 3], [1, 5]]


def test_each_photograph_is_embedded_once_a_validation_however_often_it_is_searched(monkeypatch):
    """Trained people are searched, and the same photographs whiten: against each way by itself."""
    sizes, plainly = [], encoding.encode_images

    def counted(encoder, images):
        sizes.append(len(images))
        return plainly(encoder, images)

    monkeypatch.setattr(encoding, "encode_images", counted)
    more = np.concatenate([PIXELS[3:], 255 - PIXELS[:2], PIXELS[:1]])
    seen = []

    def validate(encode) -> dict[str, float]:
        seen.append((encode(more), encode(PIXELS[::-1])))
        return {"val_map": float(len(seen))}

    encoder = encoder_of(True)
    fit(encoder, validate, epochs=1, whitening=0.5)
    assert [sum(sizes[:2]), sum(sizes[2:4]), sum(sizes[4:])] == [11, 11, 9], "before, after, and to whiten at last"
    raw = encoder_of(True)
    fit(raw, epochs=1)
    mean, matrix = within_person_whitening(plainly(raw, PIXELS), LABELS, 0.5)
    for model, place, by in ((encoder_of(True), 0, (0, np.eye(16))), (raw, 1, (mean, matrix))):
        for found, images in zip(seen[place], (more, PIXELS[::-1]), strict=True):
            np.testing.assert_allclose(found, (plainly(model, images) - by[0]) @ by[1], rtol=1e-5, atol=1e-5)


def test_a_rate_that_is_not_given_is_ten_times_as_high_for_adapters():
    rates = []
    for rank in (0, 2):
        encoder = encoder_of(True, lora_rank=rank)
        rates.append(fit(encoder, learning_rate=0.0, epochs=1, warm_up=0).history["learning_rate"].iloc[-1])
    assert rates[1] == pytest.approx(10 * rates[0])


def test_a_share_that_nothing_can_choose_is_refused():
    with pytest.raises(TrainingError, match="interpolation=-1 chooses by validation"):
        fit(encoder_of(True), interpolation=-1, select_by="loss")


@each_rank
@each_tower
def test_the_distance_is_half_the_squared_sum_over_what_learns(vit, rank):
    encoder = encoder_of(vit, lora_rank=rank, unfreeze_blocks=1)
    start = Start(encoder, [name for name, p in encoder.named_parameters() if p.requires_grad])
    before = tower(encoder)
    assert start.distance() == 0
    with torch.no_grad():
        for p in encoder.visual.parameters():
            if p.requires_grad:
                p.add_(0.01 * torch.randn_like(p))
    distance = start.distance()
    slow = sum((value.double() - before[name].double()).square().sum().item() for name, value in tower(encoder).items())
    assert distance.item() == pytest.approx(slow / 2, rel=1e-4)
    distance.backward()
    if not rank:
        for name, p in encoder.visual.named_parameters():
            assert p.grad is None or torch.allclose(p.grad, p - before[name], atol=1e-6)


def test_a_heavy_distance_keeps_the_tower_where_it_began():
    went = []
    for weight in (0.0, 1e4):
        encoder = encoder_of(True)
        before = tower(encoder)
        result = fit(encoder, start_weight=weight, clip_gradient=1e6)
        went.append(sum(float((value - before[name]).square().sum()) for name, value in tower(encoder).items()))
    assert "start" in result.history
    assert went[1] < 0.5 * went[0]


@each_tower
@pytest.mark.parametrize("blocks", [-1, 1])
def test_distillation_compares_with_the_frozen_tower_of_the_same_views(vit, blocks):
    encoder = encoder_of(vit, unfreeze_blocks=blocks)
    frozen = deepcopy(encoder).eval()
    images = BatchEncoder(encoder, PIXELS, ImageTraining(distillation_weight=1.0))
    with torch.no_grad():
        for p in encoder.visual.parameters():
            if p.requires_grad:
                p.mul_(1.1)
    seeds = list(range(9))
    outputs = images.encode(images.inputs(np.arange(9), slice(0, 9), seeds))
    wanted = frozen.encode_image(augment(torch.from_numpy(PIXELS), seeds))
    torch.testing.assert_close(outputs["frozen"], wanted, rtol=1e-4, atol=1e-5)
    assert not outputs["frozen"].requires_grad
    assert not torch.allclose(outputs["embeddings"], wanted, rtol=1e-2)


def test_rates_fall_with_depth():
    encoder = encoder_of(True)
    encoder.centers.requires_grad_(False)
    plain = ImageTraining(learning_rate=1.0, head_learning_rate=2.0, weight_decay=0.1)
    decaying = plain.model_copy(update={"layer_decay": 0.5})
    assert [(g["lr"], g["weight_decay"]) for g in groups(encoder, plain)] == [(1, 0.1), (1, 0), (2, 0.1), (2, 0)]
    rates = {id(p): group["lr"] for group in groups(encoder, decaying) for p in group["params"]}
    found = {name: rates[id(p)] for name, p in encoder.named_parameters() if p.requires_grad}
    for name, rate in found.items():
        if not name.startswith("visual."):
            assert rate == 2, name
        elif ".resblocks." in name:
            assert rate == (0.25 if ".resblocks.0." in name else 0.5), name
        else:
            assert rate == (1 if "ln_post" in name or name == "visual.proj" else 0.125), name
    assert groups(encoder, decaying)[0]["lr"] == 1, "the highest, which the history shows"


def test_rates_of_a_resnet_fall_by_layers():
    encoder = encoder_of(False)
    options = ImageTraining(learning_rate=1.0, head_learning_rate=2.0, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in groups(encoder, options) for p in group["params"]}
    visual = encoder.visual
    parts = (visual.attnpool, visual.layer4, visual.layer3, visual.layer2, visual.layer1, visual.bn1)
    assert [{rates[id(p)] for p in part.parameters()} for part in parts] == [{0.5**n} for n in range(6)]


EVERYTHING = {"start_weight": 0.1, "distillation_weight": 0.5, "layer_decay": 0.8, "interpolation": -1.0}


def nearness(encode) -> dict[str, float]:
    unit = F.normalize(torch.from_numpy(encode(PIXELS)), dim=1)
    return {"val_map": float((unit @ unit.T)[LABELS[:, None] == LABELS].mean())}


PIECES = {"precision": "fp16", "average": 0.5, "encoded_at_once": 2}


@pytest.mark.parametrize(
    ("vit", "rank", "more"), [(True, 0, PIECES), (True, 2, {}), (False, 0, {}), (False, 2, PIECES)]
)
def test_a_stopped_training_goes_on_to_the_same_bits(vit, rank, more, tmp_path):
    head = {"lora_rank": rank, "unfreeze_blocks": 1 if more else -1}
    whole, again = encoder_of(vit, **head), encoder_of(vit, **head)
    expected = fit(whole, nearness, epochs=3, **EVERYTHING, **more)
    fit(encoder_of(vit, **head), nearness, tmp_path, epochs=3, stop=lambda: True, **EVERYTHING, **more)
    if rank:
        names = {name.removeprefix("now.") for name in load_checkpoint(tmp_path / "image.safetensors")[0]}
        weights = {name for name in names if name.startswith("visual.") and not name.split(".")[-1].startswith(
            ("running", "num_batches"))}  # fmt: skip
        assert weights and all(name.endswith((".down", ".up")) for name in weights), "adapters alone"
    result = fit(again, nearness, tmp_path, epochs=3, **EVERYTHING, **more)
    assert equal(whole.state_dict(), again.state_dict())
    assert (result.share, result.best_epoch) == (expected.share, expected.best_epoch)
    assert result.shares.equals(expected.shares)
    assert {"start", "distillation"} <= set(result.history)


@each_rank
def test_pieces_and_activations_computed_again_change_nothing(rank, tmp_path):
    moments = []
    for number, (again, at_once) in enumerate([(False, 0), (True, 0), (False, 4)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        encoder = encoder_of(True, lora_rank=rank, recompute=again)
        fit(encoder, nearness, folder, epochs=1, learning_rate=1e-6, head_learning_rate=1e-6, encoded_at_once=at_once,
            **EVERYTHING)  # fmt: skip
        held = load_checkpoint(folder / "image.safetensors")[0]
        moments.append({name: value for name, value in held.items() if name.endswith(".exp_avg")})
    largest = max(value.norm() for value in moments[0].values())
    for other in moments[1:]:
        assert other.keys() == moments[0].keys()
        for name, value in moments[0].items():
            assert (other[name] - value).norm() <= 1e-4 * value.norm() + 1e-6 * largest, name


@pytest.mark.parametrize(("vit", "precision"), [(True, "fp32"), (True, "bf16"), (False, "fp16")])
def test_adapters_learn_alone(vit, precision):
    encoder = encoder_of(vit, lora_rank=2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    learning = {name for name, p in encoder.named_parameters() if p.requires_grad and name != "centers"}
    assert all(name.endswith((".down", ".up")) or not name.startswith("visual.") for name in learning)
    fit(encoder, epochs=4, precision=precision)
    for name, value in encoder.state_dict().items():
        if name in learning:
            assert not torch.equal(value, before[name]), name
        elif not name.startswith(("neck.", "centers")):
            assert torch.equal(value, before[name]), f"{name}: batch norms count nothing either"
    adapted = {name.split(".parametrizations.")[-1].split(".")[0] for name in learning if name.startswith("visual.")}
    assert adapted == ({"in_proj_weight", "weight"} if vit else {"weight"})
    kinds = [m for m in encoder.modules() if isinstance(m, LowRank)]
    assert len(kinds) == (2 * 4 if vit else 4 * 4 + 4)  # a block's four matrices; three filters, one beside, pooling


@each_tower
def test_merged_adapters_give_what_they_gave_before(vit):
    encoder = encoder_of(vit, lora_rank=2)
    names = set(encoder_of(vit).state_dict())
    fit(encoder, learning_rate=1e-2)
    before, state = encode_images(encoder, PIXELS), merged_state(encoder)
    merge(encoder)
    assert set(encoder.state_dict()) == names and equal(encoder.state_dict(), state)
    assert not any(isinstance(module, LowRank) for module in encoder.modules())
    np.testing.assert_allclose(encode_images(encoder, PIXELS), before, rtol=1e-6, atol=1e-6)
    plain = encoder_of(vit)
    assert not np.allclose(encode_images(plain, PIXELS), before, rtol=1e-3)


@each_tower
def test_what_a_training_of_adapters_leaves_is_a_clip_like_any(vit, tmp_path):
    backbone, seen = backbone_of(vit), []

    def falling_at_last(encode) -> dict[str, float]:
        seen.append(encode(PIXELS))
        return {"val_map": float([0, 1, 2, 1][len(seen) - 1])}

    encoder = ReidEncoder(backbone, 3, ReidHead(lora_rank=2))
    assert fit(encoder, falling_at_last, tmp_path, epochs=3, learning_rate=1e-2).best_epoch == 2
    tuned = save_trained(encoder, backbone, tmp_path)
    assert not any(isinstance(module, LowRank) for module in encoder.modules())
    np.testing.assert_allclose(tuned.encode_image(PIXELS), seen[2], rtol=1e-4, atol=1e-5)
    for file, embeddings in (("best", seen[2]), ("final", seen[3])):
        loaded = load_backbone(str(tmp_path / f"{file}.safetensors"), given=Given(heads=1 if vit else 0))
        np.testing.assert_allclose(loaded.encode_image(PIXELS), embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_go_through_an_adapters_factors_beside_the_frozen_matrix_and_no_changed_one_is_made(monkeypatch, dtype):
    """Against openai-clip's own pass, which makes every changed matrix."""
    encoder, images = encoder_of(True, lora_rank=2), torch.randn(3, 3, 32, 32)
    for name, parameter in encoder.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.1)
    learning, made = [p for p in encoder.visual.parameters() if p.requires_grad], []
    plainly = LowRank.forward
    monkeypatch.setattr(LowRank, "forward", lambda self, weight: made.append(weight) or plainly(self, weight))
    expected = encoder.visual(images)
    assert made
    made.clear()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = encoder.encode_image(images)
    assert not made
    wanted, got = (torch.autograd.grad(some.square().sum(), learning) for some in (expected, found))
    near = 1e-5 if dtype == torch.float32 else 0.1
    for one, other in zip((expected, *wanted), (found, *got), strict=True):
        assert (one - other).norm() <= near * one.norm()


def test_an_adapter_is_the_product_of_its_factors_and_begins_with_no_change():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 5, generator=generator)
    adapter = LowRank(weight, 3, 2, 8.0, generator)
    assert torch.equal(adapter(weight), weight)
    with torch.no_grad():
        adapter.up.copy_(torch.randn(3, 4, 2, generator=generator))
    changed = adapter(weight)
    weight, up, down = weight.tolist(), adapter.up.tolist(), adapter.down.tolist()
    rows = [
        [weight[4 * part + i][j] + 4 * sum(up[part][i][r] * down[part][r][j] for r in range(2))
         for j in range(5)]
        for part in range(3) for i in range(4)
    ]  # fmt: skip
    torch.testing.assert_close(changed, torch.tensor(rows))


def distances(encode) -> np.ndarray:
    found = encode(PIXELS).astype(np.float64)
    return np.linalg.norm(found[:, None] - found[None], axis=2)


@pytest.mark.parametrize(("vit", "rank"), [(True, 2), (False, 0)])
def test_whitening_is_validated_and_kept_and_the_head_sees_what_it_learnt(vit, rank):
    seen, score = {}, iter(range(99))

    def validate(encode):
        place = next(score)
        seen[place] = distances(encode)
        return {"val_map": float(place)}

    plain, whitened = (encoder_of(vit, lora_rank=rank) for _ in range(2))
    assert fit(plain).learnt == "yes"
    assert fit(whitened, validate, whitening=0.5).learnt == "yes"
    before = encode_images(plain, PIXELS)
    mean, matrix = within_person_whitening(before, LABELS, 0.5)
    after = encode_images(whitened, PIXELS)
    np.testing.assert_allclose(after, (before - mean) @ matrix, atol=1e-3 * np.abs(after).max())
    frozen = distances(lambda pixels: encode_images(encoder_of(vit), pixels))
    np.testing.assert_allclose(seen[0], frozen, atol=1e-3)
    np.testing.assert_allclose(seen[2], distances(lambda pixels: after), atol=1e-3 * seen[2].max())
    np.testing.assert_allclose(classify(whitened, PIXELS), classify(plain, PIXELS), atol=1e-2)


def test_nothing_is_whitened_where_the_frozen_model_was_best():
    encoder, score = encoder_of(True), iter(range(99, 0, -1))
    assert fit(encoder, lambda encode: {"val_map": float(next(score))}, whitening=0.5).best_epoch == 0
    assert equal(tower(encoder), tower(encoder_of(True)))


def test_frozen_weights_that_the_interpolation_took_are_whitened():
    encoder = encoder_of(True)
    assert fit(encoder, whitening=0.5, interpolation=0.0).learnt.startswith("in part: ")
    before = encode_images(encoder_of(True), PIXELS)
    mean, matrix = within_person_whitening(before, LABELS, 0.5)
    np.testing.assert_allclose(encode_images(encoder, PIXELS), (before - mean) @ matrix, atol=1e-3)
