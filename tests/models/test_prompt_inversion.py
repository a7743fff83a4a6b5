from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import ConfigError
from handclip_lib.models.promptsg import PromptGuidance, PromptInversion

PARAMS = Path(__file__).parents[2] / "params"
FILES = [file for method in ("promptsg", "handid") for file in sorted((PARAMS / method).glob("*.yml"))]
TEMPLATES = ("A photo of a {} hand.", "{}", *sorted({yaml.safe_load(file.read_text())["template"] for file in FILES}))


def text_clip(size: int = 48, width: int = 128, words: int = 49408) -> Backbone:
    """A CLIP with a real text tower of random weights, and hardly any image tower."""
    torch.manual_seed(0)
    model = clip_package().model.CLIP(size, 32, 1, 64, 32, 77, words, width, width // 64, 2).eval()
    for parameter in model.transformer.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.3, 0.3)  # biases and norms matter too
    return Backbone("random", model, 32, size, 77, torch.device("cpu"), "")


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return text_clip()


def some(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_features(clip: Backbone, template: str, tokens: torch.Tensor) -> torch.Tensor:
    """By openai-clip's own modules: one prompt at a time, all 77 positions, the token put where the X stands."""
    model, found = clip.model, []
    prompt = clip.tokenize([template.replace("{}", "X")])[0]
    (slot,) = (prompt == clip.encode_words("X")[0]).nonzero().flatten().tolist()
    for token in tokens:
        embedded = model.token_embedding(prompt).clone()
        embedded[slot] = token
        x = (embedded + model.positional_embedding)[:, None]
        x = model.ln_final(model.transformer(x)[:, 0])
        found.append(x[prompt.argmax()] @ model.text_projection)
    return torch.stack(found)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_features_are_clips_own_of_the_prompt_with_the_pseudo_token_in_it(clip, template):
    inversion = PromptInversion(clip, template)
    images = some(5, 48)
    inversion.train()
    tokens = inversion.pseudo_tokens(images)
    assert tokens.shape == (5, 128), "the text tower's width, which is neither 512 nor the embedding's"
    with torch.no_grad():
        plain = plain_features(clip, template, tokens)
    found = inversion.text_features(images).detach()
    assert found.shape == (5, 48)
    assert ((found - plain).norm() / plain.norm()).item() < 1e-5


def test_a_gradient_reaches_every_weight_of_the_inversion_and_none_of_the_text_tower(clip):
    clip.model.zero_grad(set_to_none=True)
    inversion = PromptInversion(clip, TEMPLATES[0]).train()
    images = some(6, 48).requires_grad_()
    (inversion.text_features(images) * some(6, 48, seed=2)).sum().backward()
    names = [name for name, parameter in inversion.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert names == []
    assert images.grad.abs().sum() > 0, "and goes on to the image tower"
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def test_a_pseudo_token_begins_as_long_as_a_words():
    tiny = load_backbone("tiny", device="cpu")
    inversion = PromptInversion(tiny, TEMPLATES[0]).train()
    lengths = inversion.pseudo_tokens(some(64, 128)).detach().norm(dim=1)
    words = tiny.model.token_embedding.weight.detach().norm(dim=1)
    assert lengths.mean().item() == pytest.approx(words.mean().item(), rel=0.1)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("A photo of a hand.", "has 0 slots for the learnt tokens"),
        ("A {} photo of a {} hand.", "has 2 slots"),
        ("A photo of a X X hand.", "spells 2 X and n_ctx=1"),
        ("A photo of a {} hand of {name}.", "names the identity"),
        ("A photo of a{}hand.", "the slot must be words of its own"),
        ("{} " + "hand " * 75, "is 78 tokens long"),
    ],
)
def test_a_template_without_room_for_one_token_is_refused(clip, template, words):
    with pytest.raises(ConfigError, match=words):
        PromptInversion(clip, template)


def guidance(layers: int) -> PromptGuidance:
    torch.manual_seed(3)
    return PromptGuidance(24, 4, layers)


def test_attention_and_answer_are_those_of_the_formula():
    own = guidance(0)
    text, places = some(2, 24), some(2, 5, 24, seed=2)
    weight, bias = own.cross.in_proj_weight, own.cross.in_proj_bias
    for number in range(2):
        asked, shown = F.layer_norm(text[number], (24,)), F.layer_norm(places[number], (24,))
        query = weight[:24] @ asked + bias[:24]
        keys, values = (shown @ weight[a:b].T + bias[a:b] for a, b in ((24, 48), (48, 72)))
        shares, answers = [], []
        for head in range(4):  # six values each
            of_head = slice(6 * head, 6 * head + 6)
            share = torch.softmax(torch.stack([query[of_head] @ key[of_head] for key in keys]) / 6**0.5, dim=0)
            shares.append(share)
            answers.append(sum(s * value[of_head] for s, value in zip(share, values, strict=True)))
        answer = F.layer_norm(own.cross.out_proj(torch.cat(answers)), (24,))
        torch.testing.assert_close(own(text, places)[number], answer, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.attention(text, places)[number], torch.stack(shares).mean(dim=0))


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_text_acts_on_several_places_and_cannot_on_one(layers):
    own = guidance(layers).eval()
    places, one, other = some(3, 7, 24), some(3, 24, seed=2), some(3, 24, seed=4)
    several = own(one, places), own(other, places)
    assert ((several[0] - several[1]).norm(dim=1) / several[0].norm(dim=1)).min() > 0.01
    single = own(one, places[:, :1]), own(other, places[:, :1])
    torch.testing.assert_close(*single)
    shares = own.attention(one, places)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
    assert shares.std(dim=1).min() > 0.01
    assert (own.attention(one, places) - own.attention(other, places)).abs().max() > 0.01


def test_self_attention_looks_at_the_places():
    own, text, places = guidance(2), some(1, 24), some(1, 5, 24, seed=2)
    with torch.no_grad():
        own.cross.out_proj.weight.zero_()  # the answer is the same whatever the image is
    assert (own(text, places) - own(text, some(1, 5, 24, seed=6))).abs().max() > 0.01
    assert guidance(2)(text, places).shape == (1, 24)


@pytest.mark.parametrize(("options", "words"), [({"heads": 5}, "heads=5: .* 24"), ({"layers": -1}, "layers=-1")])
def test_what_makes_no_guidance_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        PromptGuidance(24, **({"heads": 4, "layers": 0} | options))
