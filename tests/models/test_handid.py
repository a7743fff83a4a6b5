"""CLIP-HandID beside a slow way: one photograph's prompt at a time, by openai-clip's own modules, and sums by hand."""

import copy
import math

import numpy as np
import pytest
import torch

from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.backbone.properties import Properties
from handclip_lib.losses import WeightedLoss, image_losses
from handclip_lib.models.handid import HandID
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import Training, image_encoder, load_trained, save_trained
from handclip_lib.parameters.parts import Guidance, ImageTraining
from handclip_lib.training.image import fit_image

IDS, TEMPLATE = torch.tensor([0, 0, 1, 2, 3]), "A photo of a {} hand"
OPTIONS = Guidance(method="handid", template=TEMPLATE)
FIT = ImageTraining(
    epochs=3, n_identities=3, n_images=2, views=1, augmentation=0, learning_rate=1e-3, head_learning_rate=1e-2,
    identity_weight=1, supcon_weight=0, text_supcon_weight=1, select_by="loss",
)  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Backbone:
    torch.manual_seed(0)
    model = clip_package().model.CLIP(24, 32, 1, 64, 16, 77, 49408, 64, 1, 1).eval()
    for parameter in model.transformer.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.3, 0.3)
    return Backbone("random", model, 32, 24, 77, torch.device("cpu"), "0123", Properties("quick_gelu", 1, 1))


@pytest.fixture
def encoder(clip) -> HandID:
    made = image_encoder(copy.deepcopy(clip), 4, OPTIONS)
    assert isinstance(made, HandID)
    return made


def images(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def data() -> tuple[np.ndarray, np.ndarray]:
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(4), [4, 3, 3, 1])
    colours = rng.integers(0, 256, (4, 1, 1, 3))
    return (colours[labels] + rng.integers(-40, 40, (11, 32, 32, 3))).clip(0, 255).astype(np.uint8), labels


def fit(encoder: HandID, **more):
    changed = {name: more.pop(name) for name in set(more) & set(ImageTraining.model_fields)}
    return fit_image(encoder, *data(), FIT.model_copy(update=changed), progress=False, **more)


def plain_texts(clip: Backbone, inversion, embeddings: torch.Tensor) -> torch.Tensor:
    model, found = clip.model, []
    prompt = clip.tokenize([TEMPLATE.replace("{}", "X")])[0]
    (slot,) = (prompt == clip.encode_words("X")[0]).nonzero().flatten().tolist()
    for token in inversion.network(embeddings):
        embedded = torch.cat(
            [model.token_embedding(prompt[:slot]), token[None], model.token_embedding(prompt[slot + 1 :])]
        )
        x = model.ln_final(model.transformer((embedded + model.positional_embedding)[:, None])[:, 0])
        found.append(x[prompt.argmax()] @ model.text_projection)
    return torch.stack(found)


def test_the_embedding_is_the_towers_and_each_image_fills_its_own_prompt(clip, encoder):
    encoder.eval()
    with torch.no_grad():
        made = encoder.for_losses(encoder.frozen_part(images()))
        own = encoder.visual(images())
        texts = plain_texts(clip, encoder.inversion, own)
    torch.testing.assert_close(made["embeddings"], own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.encode_image(images()), made["embeddings"])
    assert (made["text"] - texts).norm() < 1e-5 * texts.norm()
    assert (made["text"][0] - made["text"][1]).norm() > 1e-4 * texts.norm(), "no two photographs have one text"


def test_the_loss_is_that_of_the_identities_and_of_the_texts_both_ways(clip, encoder):
    """Sums over photographs one at a time; and what it teaches: tower, inversion and head, not the text tower."""
    encoder.train()
    made = encoder.for_losses(encoder.frozen_part(images()))
    losses = image_losses(encoder.logits, encoder.centers, None, 0.1, 0.3, 0.07)
    loss, terms = WeightedLoss(losses, FIT.loss_weights)(ids=IDS, **made)
    assert set(terms) == {"identity", "text_supcon"}
    logits = encoder.logits(made["embeddings"], IDS).detach().double()
    wanted = 0.0
    for row, own in zip(logits, IDS, strict=True):
        shares = [value - math.log(sum(math.exp(v) for v in row)) for value in row.tolist()]
        wanted -= (0.9 * shares[own] + 0.1 * sum(shares) / len(shares)) / len(IDS)
    unit = {
        name: value.detach().double() / value.detach().double().norm(dim=1, keepdim=True)
        for name, value in made.items()
    }
    for one, other in (("embeddings", "text"), ("text", "embeddings")):
        for i, anchor in enumerate(unit[one]):
            scores = [(anchor @ column).item() / 0.07 for column in unit[other]]
            total = math.log(sum(math.exp(score) for score in scores))
            alike = [j for j in range(len(IDS)) if IDS[j] == IDS[i]]
            wanted -= sum(scores[j] - total for j in alike) / len(alike) / len(IDS)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    loss.backward()
    unreached = {name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert unreached <= {"neck.bias", "centers"}


def test_training_moves_tower_and_inversion_and_leaves_the_text_tower_bit_for_bit(clip, encoder):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    backbone = copy.deepcopy(clip)
    encoder = HandID(backbone, 4, OPTIONS)
    result = fit(encoder, epochs=6)
    assert result.learnt == "yes"
    assert result.history["text_supcon"].iloc[-1] < result.history["text_supcon"].iloc[1]
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert {"inversion.network.0.weight", "visual.conv1.weight", "classifier"} <= moved
    for name, value in backbone.model.state_dict().items():
        assert name.startswith("visual.") or torch.equal(value, clip.model.state_dict()[name]), name


def test_an_inversion_that_moves_alone_taught_no_embedding_anything(encoder):
    """Nothing of it reaches an embedding, so an epoch in which it alone moved is none to choose."""
    assert fit(encoder, learning_rate=1e-30).learnt.startswith("no: learning_rate=1e-30 moved no weight")


def test_an_interrupted_training_goes_on_to_the_same_weights(clip, tmp_path):
    whole, again = (HandID(copy.deepcopy(clip), 4, OPTIONS) for _ in range(2))
    expected = fit(whole, encoded_at_once=4)
    fit(again, encoded_at_once=4, folder=tmp_path, stop=lambda: True)
    goes_on = HandID(copy.deepcopy(clip), 4, OPTIONS)
    result = fit(goes_on, encoded_at_once=4, folder=tmp_path)
    assert result.history.drop(columns="seconds").equals(expected.history.drop(columns="seconds"))
    for name, value in whole.state_dict().items():
        assert torch.equal(goes_on.state_dict()[name], value), name
    other = ReidEncoder(copy.deepcopy(clip), 4, OPTIONS)
    with pytest.raises(Exception, match="of a training with other encoder"):
        fit(other, encoded_at_once=4, folder=tmp_path, text=np.ones((4, 24), np.float32))


def test_what_is_saved_is_a_clip_that_needs_no_text(clip, tmp_path):
    backbone = copy.deepcopy(clip)
    encoder = HandID(backbone, 4, OPTIONS)
    fit(encoder, folder=tmp_path)
    tuned = save_trained(encoder, backbone, tmp_path, "mine")
    pixels, _ = data()
    plain = load_backbone(str(tmp_path / "best.safetensors"), device="cpu")
    parameters = {"backbone": "tiny", "method": "handid", "weights": ""}
    loaded = load_trained(Training(tmp_path, parameters, None, "yes"), "cpu")
    assert (plain.fingerprint, loaded.fingerprint, loaded.name) == (
        tuned.fingerprint,
        tuned.fingerprint,
        "random, joint",
    )
    for found in (plain, loaded):
        np.testing.assert_allclose(found.encode_image(pixels), tuned.encode_image(pixels), rtol=1e-5, atol=1e-6)
    assert plain.reads_text
