from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import BackboneError, ConfigError
from handclip_lib.models.prompt_learner import PromptLearner, nearest_words
from handclip_lib.parameters.parts import Prompts

TEMPLATES = {
    "identity": ("A photo of a {} hand.", "{}", "{} hand", "the back of a {}"),
    "shared": ("A photo of a {} hand of {name}.", "{name} {}", "{} {name}", "{name}, a {} hand seen from behind"),
}
NAMES = ["0000012", "7", "somebody with a long name"]


def text_clip(width: int, layers: int, embedding: int, seed: int = 0) -> Backbone:
    """A CLIP with a real text tower, random weights of a trained one's size, and hardly any image tower."""
    torch.manual_seed(seed)
    model = clip_package().model.CLIP(embedding, 32, 1, 64, 32, 77, 49408, width, max(1, width // 64), layers)
    for parameter in model.transformer.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.3, 0.3)  # biases and norms matter too
    return Backbone("random", model.eval(), 32, embedding, 77, torch.device("cpu"), "")


@pytest.fixture(scope="module")
def small() -> Backbone:
    return text_clip(128, 3, 96)


def gradients(learner: PromptLearner, rows: torch.Tensor, plainly: bool) -> tuple[torch.Tensor, torch.Tensor]:
    learner.context.grad = None
    features = learner.encode_text_plainly(rows) if plainly else learner.encode_text(rows)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    (features * weights).sum().backward()
    return features.detach(), learner.context.grad.clone()


def assert_equal_ways(learner: PromptLearner, rows: torch.Tensor):
    for fast, plain in zip(gradients(learner, rows, False), gradients(learner, rows, True), strict=True):
        assert ((fast - plain).norm() / plain.norm()).item() < 1e-5


@pytest.mark.parametrize("context", ["identity", "shared"])
@pytest.mark.parametrize("n_ctx", [1, 2, 4, 8, 16])
def test_features_and_gradients_are_those_of_the_plain_way(small, context, n_ctx):
    for template in (*TEMPLATES[context], " | ".join(TEMPLATES[context][:3])):
        learner = PromptLearner(small, NAMES, Prompts(n_ctx=n_ctx, context=context, template=template, seed=1))
        assert_equal_ways(learner, torch.tensor([2, 0]))


@pytest.mark.slow
def test_they_are_for_the_true_text_tower_of_vit_b16_and_every_file_template():
    files = sorted((Path(__file__).parents[2] / "params").glob("*/*.yml"))
    files = [
        file for file in files if file.parent.name not in ("promptsg", "handid")
    ]  # one token each: test_prompt_inversion.py
    given = {yaml.safe_load(file.read_text()).get("template", "").replace("X X X X", "{}") for file in files}
    true = text_clip(512, 12, 512)
    for context, templates in (("identity", sorted(filter(None, given))), ("shared", TEMPLATES["shared"][:1])):
        for template in templates:
            for n_ctx in (1, 5, 16):
                learner = PromptLearner(true, NAMES, Prompts(n_ctx=n_ctx, context=context, template=template, seed=1))
                assert_equal_ways(learner, torch.tensor([2, 0]))


def test_several_templates_average_the_features(small):
    both = PromptLearner(small, NAMES, Prompts(template=" | ".join(TEMPLATES["identity"][:2]), seed=1))
    parts = [PromptLearner(small, NAMES, Prompts(template=template, seed=1)) for template in TEMPLATES["identity"][:2]]
    rows = torch.arange(3)
    expected = (parts[0].encode_text(rows) + parts[1].encode_text(rows)) / 2
    torch.testing.assert_close(both.encode_text(rows), expected)


def test_identities_with_another_context_have_other_features_and_with_the_same_the_same(small):
    learner = PromptLearner(small, NAMES, Prompts(seed=0))
    features = learner.text_features()
    distances = np.linalg.norm(features[:, None] - features, axis=2)[np.triu_indices(3, 1)]
    assert distances.min() > 1e-3 * np.linalg.norm(features[0])
    learner.context.data[1] = learner.context.data[0]
    same = learner.text_features()
    np.testing.assert_allclose(same[0], same[1], rtol=1e-4, atol=1e-5)


def test_a_gradient_reaches_only_the_identities_that_were_asked_for(small):
    learner = PromptLearner(small, NAMES, Prompts())
    small.model.zero_grad(set_to_none=True)  # the plain way of another test left some
    _, gradient = gradients(learner, torch.tensor([2, 0]), False)
    assert (gradient.abs().sum(dim=(1, 2)) > 0).tolist() == [True, False, True]
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    assert all(parameter.grad is None for parameter in small.model.parameters())


def test_what_stands_after_the_end_token_changes_nothing(small):
    learner = PromptLearner(small, NAMES, Prompts())
    before = learner.encode_text_plainly(torch.arange(3)).detach()
    text = learner._texts[0]
    text._tokens[:, 20:] = torch.randint(1, 40_000, (3, 57), generator=torch.Generator().manual_seed(0))
    after = learner.encode_text_plainly(torch.arange(3)).detach()
    torch.testing.assert_close(before, after)


def test_words_as_context_give_what_clip_gives_for_the_text(small):
    learner = PromptLearner(small, NAMES, Prompts(n_ctx=3, template="a photo of a {} hand"), "small left soft")
    expected = small.encode_text(["a photo of a small left soft hand"])
    np.testing.assert_allclose(learner.text_features(), np.repeat(expected, 3, axis=0), rtol=1e-4, atol=1e-5)
    words, distances = nearest_words(small, learner.context.detach().numpy(), k=2)
    assert words[1, :, 0].tolist() == ["small", "left", "soft"]
    assert words.shape == distances.shape == (3, 3, 2)
    assert distances[..., 0].max() < 1e-2 < distances[..., 1].min()


def test_the_seed_decides_the_first_context(small):
    one, again, other = (PromptLearner(small, NAMES, Prompts(seed=seed)).context for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == (3, 4, 128)
    assert PromptLearner(small, NAMES, Prompts(context="shared")).context.shape == (4, 128)
    assert one.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("identities", "options", "words"),
    [
        (NAMES, {"options": Prompts(n_ctx=75)}, "lower n_ctx by 6"),
        (["1"], {}, "1 identities: prompts are learnt to tell at least two"),
        (["1", "1"], {}, "at least two different ones"),
        (NAMES, {"ctx_init": "a photo"}, r"is 2 tokens \(\['a', 'photo'\]\) and n_ctx=4"),
    ],
)
def test_what_cannot_be_learnt_is_refused(small, identities, options, words):
    with pytest.raises(ConfigError, match=words):
        PromptLearner(small, identities, **({"options": Prompts()} | options))


def test_a_model_without_clips_vocabulary_is_refused():
    model = clip_package().model.CLIP(32, 32, 1, 64, 32, 77, 100, 64, 1, 1)
    with pytest.raises(BackboneError, match="can embed images, not texts"):
        PromptLearner(Backbone("foreign", model, 32, 32, 77, torch.device("cpu"), ""), NAMES, Prompts())


def test_tiny_learns_prompts_too():
    tiny = load_backbone("tiny", device="cpu")
    assert_equal_ways(PromptLearner(tiny, NAMES, Prompts()), torch.arange(3))
