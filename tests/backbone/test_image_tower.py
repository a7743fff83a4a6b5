import pytest
import torch

from handclip_lib.backbone.image_tower import (
    ALL,
    QuickGELU,
    attends,
    attention_relevance,
    blocks_of,
    frozen_part,
    learning_part,
    learning_tokens,
    resize_input,
    train_mode,
    unfreeze,
)
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import ConfigError


def tower(kind: str):
    torch.manual_seed(0)
    layers, width, patch = (4, 128, 16) if kind == "vit" else ((1, 2, 1, 1), 16, None)
    visual = clip_package().model.CLIP(48, 64, layers, width, patch, 77, 100, 64, 1, 1).visual.eval()
    for parameter in visual.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    return visual


def gradients(visual, embeddings):
    visual.zero_grad(set_to_none=True)
    (embeddings * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return {name: p.grad.clone() for name, p in visual.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("last", [ALL, 0, 1, 2, 3, 4])
def test_the_two_parts_and_the_first_token_are_the_tower_with_its_gradients(kind, last):
    visual = tower(kind)
    unfreeze(visual, last)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    if kind == "resnet":  # what is left of its pooling's keys is a difference that float32 has lost, each way
        visual, images = visual.double(), images.double()
    plain = visual(images)
    wanted = gradients(visual, plain)
    held = frozen_part(visual, images, last)
    assert not held.requires_grad
    parts = learning_part(visual, held, last)
    torch.testing.assert_close(parts, plain, rtol=1e-5, atol=1e-4)
    found = gradients(visual, parts)
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-5, name
    torch.testing.assert_close(learning_part(visual, held, last), parts)
    tokens = learning_tokens(visual, held, last)
    assert tokens.shape == (3, 1 + (16 if kind == "vit" else 4), 48)
    assert ((tokens[:, 0] - plain).norm() / plain.norm()).item() < 1e-5
    assert tokens[:, 1:].sum().requires_grad
    found = gradients(visual, tokens[:, 0])
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-5, name


def test_a_vits_places_are_its_patches_in_the_embeddings_space():
    visual, images = tower("vit"), torch.randn(2, 3, 64, 64)
    seen = []
    handle = visual.transformer.register_forward_hook(lambda module, given, out: seen.append(out))
    visual(images)
    handle.remove()
    with torch.no_grad():
        expected = visual.ln_post(seen[0].permute(1, 0, 2)) @ visual.proj
        torch.testing.assert_close(learning_tokens(visual, images), expected, rtol=1e-4, atol=1e-4)


def test_a_resnets_places_are_the_values_its_pooling_weighs():
    """The embedding by hand: of each head, the mean's attention over itself and the places, times the values."""
    visual, images = tower("resnet"), torch.randn(2, 3, 64, 64)
    pool, seen = visual.attnpool, []
    handle = visual.layer4.register_forward_hook(lambda module, given, out: seen.append(out))
    visual(images)
    handle.remove()
    with torch.no_grad():
        tokens = learning_tokens(visual, images)
        for number, columns in enumerate(seen[0].flatten(2).transpose(1, 2)):
            positions = torch.cat([columns.mean(dim=0)[None], columns]) + pool.positional_embedding
            query, key, value = (positions @ p.weight.T + p.bias for p in (pool.q_proj, pool.k_proj, pool.v_proj))
            mean, *places = (pool.c_proj.weight @ one + pool.c_proj.bias for one in value)
            torch.testing.assert_close(tokens[number, 1:], torch.stack(places), rtol=1e-4, atol=1e-4)
            size, embedding = query.shape[1] // pool.num_heads, pool.c_proj.bias.clone()
            for start in range(0, query.shape[1], size):
                head = slice(start, start + size)
                share = torch.softmax(key[:, head] @ query[0, head] / size**0.5, dim=0)
                embedding += pool.c_proj.weight[:, head] @ (share @ value[:, head])
            torch.testing.assert_close(tokens[number, 0], embedding, rtol=1e-4, atol=1e-4)
            assert (mean - embedding).norm() > 1e-3 * embedding.norm()


def test_quick_gelu_and_its_gradient_are_the_formula_s():
    x = torch.linspace(-60, 60, 2001, dtype=torch.float64, requires_grad=True)
    plain = x * torch.sigmoid(1.702 * x)
    torch.testing.assert_close(QuickGELU.apply(x), plain, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(QuickGELU.apply, x.detach()[::100].clone().requires_grad_())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        few = x.detach()[::50].to(dtype)
        torch.testing.assert_close(QuickGELU.apply(few), (few * torch.sigmoid(1.702 * few)))


@pytest.fixture(params=["vit", "resnet"])
def visual(request):
    vit = request.param == "vit"
    layers = 3 if vit else (1, 1, 1, 1)
    return clip_package().model.CLIP(32, 32, layers, 64 if vit else 8, 16 if vit else None, 77, 100, 64, 1, 1).visual


def learns(visual) -> set[str]:
    return {name.split(".")[0] for name, p in visual.named_parameters() if p.requires_grad}


def test_everything_or_the_last_blocks_learn(visual):
    vit, count = hasattr(visual, "transformer"), len(blocks_of(visual))
    assert unfreeze(visual, ALL) == [visual]
    assert all(p.requires_grad for p in visual.parameters())
    unfreeze(visual, 0)
    assert learns(visual) == ({"ln_post", "proj"} if vit else {"attnpool"})
    unfreeze(visual, 2)
    names = {name for name, p in visual.named_parameters() if p.requires_grad}
    blocks = {".".join(name.split(".")[:3]) for name in names if "resblocks" in name} if vit else learns(visual)
    assert blocks == (
        {"transformer.resblocks.1", "transformer.resblocks.2"} if vit else {"layer3", "layer4", "attnpool"}
    )
    unfreeze(visual, count)
    assert not visual.conv1.weight.requires_grad, "the patches or the stem learn with ALL only"


def test_frozen_batch_norms_count_nothing():
    visual = clip_package().model.CLIP(32, 32, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1).visual
    train_mode(visual, unfreeze(visual, 1))
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    visual(torch.randn(4, 3, 32, 32))
    moved = {name.split(".")[0] for name, value in visual.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"layer4"}


@pytest.mark.parametrize("last", [13, -2])
def test_more_blocks_than_there_are_is_refused(visual, last):
    with pytest.raises(ConfigError, match=f"unfreeze_blocks={last}: this image tower has {len(blocks_of(visual))}"):
        unfreeze(visual, last)


def relevance_one_head_at_a_time(visual, image, direction, sign: float) -> torch.Tensor:
    """Chefer et al.'s rule as they write it: every token's relevance, of every block, from the first on."""
    x = visual.conv1(image).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], 1) + visual.positional_embedding
    x, attentions = visual.ln_pre(x)[0], []
    for block in visual.transformer.resblocks:
        normed, attention = block.ln_1(x), block.attn
        size, mixed, maps = x.shape[1] // attention.num_heads, [], []
        query, key, value = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).split(x.shape[1], dim=1)
        for head in range(attention.num_heads):
            own = slice(head * size, (head + 1) * size)
            maps.append((query[:, own] @ key[:, own].T / size**0.5).softmax(dim=1))
            mixed.append(maps[-1] @ value[:, own])
        attentions.append(maps)
        x = x + attention.out_proj(torch.cat(mixed, 1))
        x = x + block.mlp(block.ln_2(x))
    embedding = visual.ln_post(x[0]) @ visual.proj
    torch.testing.assert_close(embedding, visual(image)[0], rtol=1e-4, atol=1e-4)
    score = sign * embedding @ direction / embedding.norm()
    relevance = torch.eye(x.shape[0])
    for maps in attentions:
        gradients = torch.autograd.grad(score, maps, retain_graph=True)
        step = sum((g * a).clamp(min=0) for g, a in zip(gradients, maps, strict=True)) / len(maps)
        relevance = relevance + step.detach() @ relevance
    return relevance[0, 1:]


def test_relevance_is_what_is_for_a_direction_less_what_is_against_it():
    visual, generator = tower("vit"), torch.Generator().manual_seed(3)
    image, direction = torch.randn(1, 3, 64, 32, generator=generator), torch.randn(48, generator=generator)
    resize_input(visual, (64, 64), (64, 32))
    spoken = [relevance_one_head_at_a_time(visual, image, direction, sign) for sign in (1, -1)]
    assert all(relevance.min() > 0 for relevance in spoken)
    with torch.no_grad():
        found = attention_relevance(visual, image, direction)
    assert found.shape == (4, 2)
    torch.testing.assert_close(found.flatten(), spoken[0] - spoken[1], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(attention_relevance(visual, image, -direction), -found)
    assert attends(visual) and not attends(tower("resnet"))
