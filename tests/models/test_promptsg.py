import copy

import pytest
import safetensors.torch
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import BackboneError, ConfigError
from handclip_lib.files import UNSEALED
from handclip_lib.models.promptsg import PromptSG, load_promptsg, save_promptsg
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import Guidance, ReidHead

KINDS = ("vit", "resnet")
PLACES = {"vit": 16, "resnet": 4}
IDS = torch.tensor([0, 0, 1, 2, 3, 4])


def small(kind: str, size: int = 48, fingerprint: str = "0123") -> Backbone:
    torch.manual_seed(0)
    layers, width, patch = (2, 64, 16) if kind == "vit" else ((1, 1, 1, 1), 8, None)
    model = clip_package().model.CLIP(size, 64, layers, width, patch, 77, 49408, 64, 1, 1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return Backbone("random", model.eval(), 64, size, 77, torch.device("cpu"), fingerprint)


@pytest.fixture(scope="module")
def clips() -> dict[str, Backbone]:
    return {kind: small(kind) for kind in KINDS}


def fresh(clips: dict[str, Backbone], kind: str) -> Backbone:
    return copy.deepcopy(clips[kind])


def images(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def guided(encoder: PromptSG) -> dict[str, torch.Tensor]:
    return encoder.for_losses(encoder.frozen_part(images()))


def step(encoder: PromptSG, others=()) -> None:
    """One step of AdamW on a loss of everything that the losses look at."""
    encoder.train()
    adam = torch.optim.AdamW([*encoder.parameters(), *others], lr=1e-2)
    embeddings, image, text = guided(encoder).values()
    loss = torch.nn.functional.cross_entropy(encoder.logits(embeddings, IDS), IDS)
    (loss - torch.cosine_similarity(image, text).mean()).backward()
    adam.step()


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_gives_and_that_the_tower_is_clips_own(clips, kind):
    backbone = fresh(clips, kind)
    encoder = PromptSG(backbone, 5, Guidance()).eval()
    with torch.no_grad():
        embeddings, image, text = guided(encoder).values()
        assert embeddings.shape == image.shape == text.shape == (6, 48)
        torch.testing.assert_close(image, backbone.model.visual(images()), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.encode_image(images()), embeddings)
        torch.testing.assert_close(encoder.encode_image(images()[2:3]), embeddings[2:3], rtol=1e-4, atol=1e-5)
        shares = encoder.attention(images())
    assert shares.shape == (6, PLACES[kind])
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(6))
    assert shares.std(dim=1).min() > 1e-3, "the prompt looks somewhere"


@pytest.mark.parametrize("kind", KINDS)
def test_another_template_makes_another_embedding(clips, kind):
    backbone = fresh(clips, kind)
    one, other = (
        PromptSG(backbone, 5, Guidance(template=template)).eval()
        for template in ("A photo of a {} hand.", "An X-ray of somebody's {} foot")
    )
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), "all else is the same"
    with torch.no_grad():
        found, wanted = one.encode_image(images()), other.encode_image(images())
    assert ((found - wanted).norm(dim=1) / wanted.norm(dim=1)).min() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_alone_teaches_inversion_guidance_and_tower(clips, kind):
    encoder = PromptSG(fresh(clips, kind), 5, Guidance(neck_dim=16)).train()
    logits = encoder.logits(encoder.encode_image(images()), IDS)
    torch.nn.functional.cross_entropy(logits, IDS).backward()
    unreached = {name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert unreached == {"neck.bias", "centers"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_tower_and_leaves_the_text_tower_bit_for_bit(clips, kind):
    backbone = fresh(clips, kind)
    encoder = PromptSG(backbone, 5, Guidance())
    text = {name: p for name, p in backbone.model.named_parameters() if not name.startswith("visual")}
    before = {name: value.detach().clone() for name, value in backbone.model.named_parameters()}
    step(encoder, text.values())
    moved = {name for name, value in backbone.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert moved <= set(before) - set(text)
    assert "visual.conv1.weight" in moved


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_blocks_stay_and_their_activations_can_be_kept(clips, kind):
    backbone = fresh(clips, kind)
    encoder = PromptSG(backbone, 5, Guidance(unfreeze_blocks=1))
    assert encoder.has_frozen_part
    assert not PromptSG(fresh(clips, kind), 5, Guidance()).has_frozen_part
    step(encoder)
    encoder.eval()
    held = encoder.frozen_part(images())
    assert not held.requires_grad
    torch.testing.assert_close(encoder.learning_part(held), encoder.encode_image(images()))
    torch.testing.assert_close(encoder.for_losses(held), guided(encoder))
    before = clips[kind].model.visual.state_dict()
    moved = {name for name, value in encoder.visual.state_dict().items() if not torch.equal(value, before[name])}
    first, last = ("transformer.resblocks.0", "transformer.resblocks.1") if kind == "vit" else ("layer3", "layer4")
    assert any(name.startswith(last) for name in moved)
    assert not any(name.startswith((first, "conv1", "bn1")) for name in moved)
    if kind == "resnet":
        encoder.train()
        assert encoder.visual.layer4.training
        assert not encoder.visual.layer3.training


def test_half_precision_gives_nearly_the_same_in_float32(clips):
    for kind in KINDS:
        encoder = PromptSG(fresh(clips, kind), 5, Guidance()).train()
        plain = guided(encoder)
        with torch.autocast("cpu", torch.bfloat16):
            half = guided(encoder)
            encoder.attention(images())
        for name, found in half.items():
            assert found.dtype == torch.float32
            assert torch.cosine_similarity(found, plain[name]).min() > 0.98
        sum(part.sum() for part in half.values()).backward()
        assert all(p.grad.isfinite().all() for p in encoder.inversion.parameters())


def test_the_seed_alone_decides_the_first_values(clips):
    state = torch.get_rng_state()
    one, again, other = (PromptSG(fresh(clips, "vit"), 5, Guidance(seed=seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    for name in ("inversion.network.0.weight", "guidance.cross.in_proj_weight", "classifier"):
        assert not torch.equal(one[name], other[name])


def test_the_recipe_tells_everything_that_decides_it(clips):
    options = {
        "template": "a {} hand", "head": "arcface", "unfreeze_blocks": 1, "neck_dim": 16, "guide_layers": 1,
        "arcface_scale": 20.0, "arcface_margin": 0.4, "lora_rank": 2, "lora_alpha": 4.0, "seed": 7,
    }  # fmt: skip
    encoder = PromptSG(fresh(clips, "vit"), 5, Guidance(**options), heads=4)
    assert encoder.recipe == options | {"backbone": "0123", "n_identities": 5, "heads": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_encoder_comes_back_on_the_backbone_it_began_with(clips, kind, tmp_path):
    backbone = fresh(clips, kind)
    encoder = PromptSG(
        backbone, 5, Guidance(template="a {} hand", head="arcface", neck_dim=16, guide_layers=1), heads=4
    )
    step(encoder)
    save_promptsg(encoder.eval(), backbone, tmp_path / "best.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["best.safetensors"]
    loaded = load_promptsg(fresh(clips, kind), tmp_path / "best.safetensors")
    assert loaded.recipe == encoder.recipe
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded.encode_image(images()), encoder.encode_image(images()))
        assert torch.equal(
            loaded.logits(images(5)[:, 0, 0, :48], IDS[1:]), encoder.logits(images(5)[:, 0, 0, :48], IDS[1:])
        )


def test_adapters_are_merged_in_the_file(clips, tmp_path):
    backbone = fresh(clips, "vit")
    encoder = PromptSG(backbone, 5, Guidance(lora_rank=2, guide_layers=1))
    with torch.no_grad():
        for name, parameter in encoder.visual.named_parameters():
            parameter.add_(0.1 * name.endswith(".up"))
    save_promptsg(encoder.eval(), backbone, tmp_path / "best.safetensors")
    loaded = load_promptsg(fresh(clips, "vit"), tmp_path / "best.safetensors")
    assert {name for name in loaded.state_dict() if "parametrizations" in name} == set()
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(images()), encoder.encode_image(images()), rtol=1e-5, atol=1e-5)


def test_a_file_of_another_backbone_or_of_something_else_is_refused(clips, tmp_path):
    backbone, file = fresh(clips, "vit"), tmp_path / "best.safetensors"
    encoder = PromptSG(backbone, 5, Guidance())
    with pytest.raises(BackboneError, match=r"weights 0123, and random is 9999: load the same backbone"):
        save_promptsg(encoder, small("vit", fingerprint="9999"), file)
    save_promptsg(encoder, backbone, file)
    for other in (fresh(clips, "resnet"), small("vit", size=64)):
        with pytest.raises(BackboneError, match="of another shape than random"):
            load_promptsg(other, file)
    with pytest.raises(BackboneError, match=r"best.safetensors was trained on weights 0123, and random is 9999"):
        load_promptsg(small("vit", fingerprint="9999"), file)
    state = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as opened:
        facts = {name: fact for name, fact in opened.metadata().items() if name not in UNSEALED}
    del state["inversion.network.0.weight"]
    safetensors.torch.save_file(state, file, facts)
    with pytest.raises(BackboneError, match=r"(?s)another version of HandCLIP.*inversion.network.0.weight"):
        load_promptsg(backbone, file)
    safetensors.torch.save_file(state, file)
    with pytest.raises(BackboneError, match="holds no guided encoder"):
        load_promptsg(backbone, file)
    with pytest.raises(BackboneError, match=r"none.safetensors holds no guided encoder.*notebook 04"):
        load_promptsg(backbone, tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"options": Guidance(template="a hand")}, "has 0 slots"),
        ({"options": Guidance(), "heads": 7}, "heads=7"),
    ],
)
def test_what_makes_no_encoder_is_refused(clips, options, words):
    with pytest.raises(ConfigError, match=words):
        PromptSG(fresh(clips, "vit"), 5, **options)


def test_the_head_of_a_reid_encoder_can_be_narrow(clips):
    """Also without a prompt: reduction, neck and classifier by hand, in evaluation mode after one batch."""
    encoder = ReidEncoder(fresh(clips, "vit"), 5, ReidHead(neck_dim=16)).train()
    embeddings = torch.randn(6, 48, generator=torch.Generator().manual_seed(3))
    encoder.logits(embeddings, IDS)
    encoder.eval()
    reduced = embeddings @ encoder.reduction.weight.T
    mean, var = 0.1 * reduced.mean(dim=0), 0.9 + 0.1 * reduced.var(dim=0)  # running values of one batch
    expected = ((reduced - mean) / (var + 1e-5).sqrt()) @ encoder.classifier.T
    assert encoder.classifier.shape == (5, 16)
    torch.testing.assert_close(encoder.logits(embeddings, IDS), expected)
