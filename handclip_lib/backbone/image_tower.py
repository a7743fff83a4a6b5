"""CLIP's image tower: which blocks learn, the pass in two parts, and images of another size.

`frozen_part` and `learning_part` together are the tower. A ViT's last block computes the class token alone, since
nothing else of it is used; `visual(images)` is the plain twin, and the tests hold the two together.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from handclip_lib.backbone.library.tower import LibraryTower
from handclip_lib.errors import BackboneError, ConfigError

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
ALL = -1
RESNET_STEP = 32  # pixels of an image that one cell of a ResNet's last map covers, each way


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where products are taken in bf16 or fp16, weights staying as they are; with fp32 nothing changes."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, HALF[precision])


def blocks_of(visual: Any) -> list[Any]:
    """Blocks from the input on: a ViT's residual blocks, a ResNet's four layers; a library's as it has them."""
    if isinstance(visual, LibraryTower):
        return visual.blocks
    if hasattr(visual, "transformer"):
        return list(visual.transformer.resblocks)
    return [visual.layer1, visual.layer2, visual.layer3, visual.layer4]


def after_blocks(visual: Any) -> list[torch.nn.Module]:
    """Modules that come after the blocks; a ViT's projection, which is none, is `visual.proj`."""
    if isinstance(visual, LibraryTower):
        return visual.after
    return [visual.ln_post] if hasattr(visual, "transformer") else [visual.attnpool]


def kind_of(visual: Any) -> tuple[bool, int]:
    """Whether it is a ViT, and its width, or that of a ResNet's first layer: what `rates_of` takes."""
    if isinstance(visual, LibraryTower):
        return visual.is_vit, visual.width
    is_vit = hasattr(visual, "transformer")
    return is_vit, (visual.conv1 if is_vit else visual.layer1[0].conv1).out_channels


def can_recompute(visual: Any) -> bool:
    """Whether activations can be computed twice: a convolutional tower's batch norms would count each image twice."""
    return hasattr(visual, "transformer")


def splits(visual: Any) -> bool:
    """Whether `frozen_part` does any work; of a library's tower the whole pass is one."""
    return not isinstance(visual, LibraryTower)


def depths(visual: Any) -> dict[int, int]:
    """How deep each parameter (its `id`) lies: 0 after the blocks, 1 in the last one, and most before the first."""
    blocks = blocks_of(visual)
    found = {id(p): len(blocks) - number for number, block in enumerate(blocks) for p in block.parameters()}
    after = {id(p): 0 for module in after_blocks(visual) for p in module.parameters()}
    before = {id(p): len(blocks) + 1 for p in visual.parameters()}
    return before | after | {id(getattr(visual, "proj", None)): 0} | found


def unfreeze(visual: Any, last: int = ALL) -> list[torch.nn.Module]:
    """Let the last blocks of an image tower learn, and what comes after them; freeze the rest.

    Args:
        last: Number of blocks; 0: only what comes after the blocks (a ViT's last norm and projection, a ResNet's
            attention pooling, a library's norm and head); `ALL` (−1): everything, patches or stem included.

    Returns:
        The modules that learn, for `train_mode`.

    Raises:
        ConfigError: More blocks than there are, or no more than a norm comes after them.
    """
    blocks = blocks_of(visual)
    if not ALL <= last <= len(blocks):
        raise ConfigError(f"unfreeze_blocks={last}: this image tower has {len(blocks)}; give 0 to {len(blocks)}, or -1")
    visual.requires_grad_(last == ALL)
    if last == ALL:
        return [visual]
    learning = [*(blocks[-last:] if last else []), *after_blocks(visual)]
    for module in learning:
        module.requires_grad_(True)
    if getattr(visual, "proj", None) is not None:
        visual.proj.requires_grad_(True)
    if not any(parameter.requires_grad and parameter.ndim > 1 for parameter in visual.parameters()):
        raise ConfigError(
            f"unfreeze_blocks={last}: after this tower's blocks comes at most a norm; give 1 to {len(blocks)}, or -1"
        )
    return learning


def train_mode(visual: Any, learning: list[torch.nn.Module]) -> None:
    """Training mode for what learns, evaluation mode for what is frozen: a frozen batch norm counts nothing."""
    visual.eval()
    for module in learning:
        module.train()


def frozen_part(visual: Any, images: Tensor, last: int = ALL) -> Tensor:
    """Activations of normalised images (n, 3, height, width) before the `last` blocks, without a graph.

    Tokens (n, tokens, width) of a ViT, maps (n, channels, h, w) of a ResNet, or, with `ALL` and where the tower is a
    library's, the images themselves.
    """
    if last == ALL or not splits(visual):
        return images
    with torch.no_grad():
        blocks = blocks_of(visual)
        return _through(visual, _entrance(visual, images), blocks[: len(blocks) - last])


def learning_part(visual: Any, activations: Tensor, last: int = ALL, recompute: bool = False) -> Tensor:
    """Embeddings from what `frozen_part` gave with the same `last`, shape (n, embedding_dim), with gradients.

    With `recompute` a ViT's blocks are computed again for the gradient; what is inside them is not kept.
    """
    if isinstance(visual, LibraryTower):
        return visual(activations)
    x, blocks = _learning(visual, activations, last)
    if not hasattr(visual, "transformer"):
        return _pooled(visual.attnpool, _through(visual, x, blocks))
    if blocks:
        x = _kept(recompute)(blocks[-1], _through(visual, x, blocks[:-1], recompute), 1)
    return _projected(visual, x[:, 0])


def learning_tokens(visual: Any, activations: Tensor, last: int = ALL, recompute: bool = False) -> Tensor:
    """The embedding and a token of every place in the image, in the embedding's space, with gradients.

    A ViT's patch tokens go through its last norm and projection, as the class token does. A ResNet's places are the
    projected values of its attention pooling, of which each head's part of the embedding is a weighted mean; to let
    every position ask instead, as the mean does, would blur them into one another.

    Returns:
        Shape (n, 1 + places, embedding_dim): first what `learning_part` gives, then the places, row by row.

    Raises:
        ConfigError: The tower is another library's, whose places are not in the embedding's space.

    Source of a ResNet's places: Zhou et al., "Extract Free Dense Labels from CLIP", ECCV 2022.
    """
    if isinstance(visual, LibraryTower):
        raise ConfigError("promptsg asks every place of an image, which CLIP's own towers alone have in its space")
    x = _through(visual, *_learning(visual, activations, last), recompute)
    if hasattr(visual, "transformer"):
        return _projected(visual, x)
    pool, positions = visual.attnpool, x.flatten(2).transpose(1, 2)
    positions = positions + pool.positional_embedding[1:].to(x.dtype)
    return torch.cat([_pooled(pool, x)[:, None], pool.c_proj(pool.v_proj(positions))], dim=1)


def attends(visual: Any) -> bool:
    """Whether `attention_relevance` knows its attention: it is CLIP's own ViT."""
    return hasattr(visual, "transformer") and not isinstance(visual, LibraryTower)


@torch.no_grad()
def attention_relevance(visual: Any, image: Tensor, direction: Tensor) -> Tensor:
    """How much each patch of a ViT's image speaks for a direction of its embeddings: above 0 for it, below against.

    The attention of every block, by how much it raises the cosine with the direction, is followed from the class token
    back to the patches; what lowers it is followed by itself, and taken off. One pass and one gradient.

    Args:
        image: Normalised, (1, 3, height, width).
        direction: What the embedding of unit length is multiplied with, (embedding_dim,).

    Returns:
        Without a unit, (rows, columns).

    Source: Chefer, Gur & Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers", ICCV 2021, eqs. 5 and 6, of what is positive; they do not subtract what is negative.
    """
    shares: list[Tensor] = []

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shares.append((query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1))
        return shares[-1] @ value

    with torch.enable_grad():
        tokens = _entrance(visual, image).detach().requires_grad_()
        *blocks, last = blocks_of(visual)
        for block in blocks:
            tokens = _block(block, tokens, tokens.shape[1], attend)
        embedding = _projected(visual, _block(last, tokens, 1, attend)[:, 0])
        gradients = torch.autograd.grad((F.normalize(embedding, dim=1) @ direction).sum(), shares)
    found = torch.zeros(tokens.shape[1], device=image.device)
    for sign in (1, -1):
        reached = F.one_hot(torch.tensor(0, device=image.device), tokens.shape[1]).to(found.dtype)
        for share, gradient in zip(reversed(shares), reversed(gradients), strict=True):
            step = (sign * gradient * share).clamp(min=0).mean(1)[0]  # (kept tokens, tokens), the mean over heads
            reached = reached + reached[: len(step)] @ step
        found += sign * reached
    return found[1:].unflatten(0, grid_of(visual, (image.shape[2], image.shape[3])))


def _projected(visual: Any, tokens: Tensor) -> Tensor:
    """A ViT that has no projection embeds in its own width."""
    normed = visual.ln_post(tokens)
    return normed if visual.proj is None else normed @ visual.proj


def _learning(visual: Any, activations: Tensor, last: int) -> tuple[Tensor, list[Any]]:
    """What goes into the blocks that learn, and those."""
    blocks = blocks_of(visual)
    if last == ALL:
        return _entrance(visual, activations), blocks
    return activations, blocks[len(blocks) - last :]


def _entrance(visual: Any, images: Tensor) -> Tensor:
    if hasattr(visual, "transformer"):
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([visual.class_embedding.to(patches.dtype).expand(images.shape[0], 1, -1), patches], dim=1)
        return visual.ln_pre(tokens + visual.positional_embedding.to(patches.dtype))
    x = images
    for number in (1, 2, 3):
        convolution, norm, act = (getattr(visual, f"{kind}{number}") for kind in ("conv", "bn", "relu"))
        x = act(norm(convolution(x)))
    return visual.avgpool(x)


def _through(visual: Any, x: Tensor, blocks: list[Any], recompute: bool = False) -> Tensor:
    is_vit = hasattr(visual, "transformer")
    for block in blocks:
        x = _kept(recompute)(block, x, x.shape[1]) if is_vit else block(x)
    return x


def _pooled(pool: Any, maps: Tensor) -> Tensor:
    """A ResNet's attention pooling, of which the mean alone asks: openai-clip's lets every place ask, and uses one."""
    x = maps.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding.to(x.dtype)
    asked = (pool.q_proj(x[:, :1]), pool.k_proj(x), pool.v_proj(x))
    query, key, value = (part.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for part in asked)
    return pool.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1))


def _kept(recompute: bool) -> Callable[..., Tensor]:
    return partial(checkpoint, _block, use_reentrant=False) if recompute and torch.is_grad_enabled() else _block


def _block(block: Any, tokens: Tensor, n_kept: int, attend: Attend = F.scaled_dot_product_attention) -> Tensor:
    """One residual attention block, of which the first `n_kept` tokens come out."""
    attention, normed = block.attn, block.ln_1(tokens)
    if n_kept == tokens.shape[1]:
        query, key, value = _linear(attention, normed, "in_proj_").chunk(3, dim=-1)
    else:
        query = _linear(attention, normed[:, :n_kept], "in_proj_", slice(0, 1))
        key, value = _linear(attention, normed, "in_proj_", slice(1, 3)).chunk(2, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    attended = attend(query, key, value).transpose(1, 2).flatten(2)
    kept = tokens[:, :n_kept] + _linear(attention.out_proj, attended)
    hidden = _linear(block.mlp.c_fc, block.ln_2(kept))
    return kept + _linear(block.mlp.c_proj, F.gelu(hidden) if has_gelu(block) else QuickGELU.apply(hidden))


def _linear(module: Any, x: Tensor, prefix: str = "", parts: slice | None = None) -> Tensor:
    """Tokens through a matrix and its bias, or through some of the three `parts` that are stacked in it.

    Where an adapter is on it, the tokens go through its factors beside the frozen matrix: neither the changed matrix
    nor a gradient of its size, a third of a step's work, is made.
    """
    name, bias = f"{prefix}weight", getattr(module, f"{prefix}bias")
    adapter = getattr(getattr(module, "parametrizations", None), name, None)
    weight = getattr(module, name) if adapter is None else adapter.original
    if parts is not None:
        weight, bias = (value.unflatten(0, (3, -1))[parts].flatten(0, 1) for value in (weight, bias))
    found = F.linear(x, weight, bias)
    return found if adapter is None else found + adapter[0].added(x, parts or slice(None))


def has_gelu(block: Any) -> bool:
    """Whether a block has GELU, and not openai-clip's QuickGELU."""
    return isinstance(block.mlp.gelu, torch.nn.GELU)


class QuickGELU(torch.autograd.Function):
    """x · sigmoid(1.702 x), in half the passes over memory and with a third of what autograd would keep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x)
        return F.silu(1.702 * x, inplace=True).div_(1.702)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: D102
        (x,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient, 1.702 * x)


def positions(visual: Any) -> Any:
    """The module of an image tower that holds its position embeddings, shape (1 + cells, width)."""
    return visual if hasattr(visual, "transformer") else visual.attnpool


def grid_of(visual: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the patches (ViT) or of the last map's cells (ResNet) of images of this height and width.

    Raises:
        BackboneError: A side is no multiple of what one of them covers.
    """
    return whole_cells(visual.conv1.kernel_size[0] if hasattr(visual, "transformer") else RESNET_STEP, size)


def whole_cells(step: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of cells of `step` pixels; raises as `grid_of`."""
    if size[0] < step or size[1] < step or size[0] % step or size[1] % step:
        near = "x".join(str(max(step, round(side / step) * step)) for side in size)
        raise BackboneError(
            f"input_size={size[0]}x{size[1]}: this image tower takes multiples of {step} pixels; try {near}"
        )
    return size[0] // step, size[1] // step


@torch.no_grad()
def resize_input(visual: Any, now: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Let an image tower take images of another height and width, in place: bicubic between the cells.

    Raises:
        BackboneError: See `grid_of`.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, §3.2 (interpolation by place).
    """
    old, new = grid_of(visual, now), grid_of(visual, wanted)
    if old == new:
        return
    holder = positions(visual)
    whole, cells = holder.positional_embedding[:1], holder.positional_embedding[1:]
    image = cells.T.reshape(1, -1, *old)
    image = F.interpolate(image, new, mode="bicubic", align_corners=False, antialias=True)
    embedding = torch.cat([whole, image.flatten(2)[0].T]).contiguous()
    holder.positional_embedding = torch.nn.Parameter(embedding, requires_grad=holder.positional_embedding.requires_grad)
