"""CLIP's text tower for prompts with learnt tokens: the exact features with as little work as they need.

The plain way is `PromptText.encode_plainly`: all 77 positions through all layers. The fast way gives the same features
and the same gradients, because attention is causal:

- nothing after the end token can reach it, so the sequence is cut there;
- what comes before the first token that is learnt or differs between prompts is the same for all, so its keys and
  values are computed once, when the object is made;
- in the last layer only the end token is looked at, so only it asks;
- weights are detached: no gradient is computed for what does not learn.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.backbone.image_tower import has_gelu
from handclip_lib.backbone.library.tower import LibraryModel, is_clip_shaped


class _Layer(NamedTuple):
    """One of openai-clip's blocks, and keys and values of the constant start: (heads, start, width / heads)."""

    block: Any
    keys: Tensor
    values: Tensor


class PromptText:
    """Text features of prompts, part of whose tokens are learnt embeddings."""

    def __init__(self, model: Any, tokens: Tensor, slots: Tensor, n_ctx: int):
        """Prepare what does not change while the weights and the device of a `clip.model.CLIP` do not.

        Args:
            tokens: The prompts, with any token in the learnt places, int64 (n, context_length).
            slots: Position of the first of the `n_ctx` learnt tokens, which are side by side, int64 (n,).
        """
        self._model = model
        device = model.token_embedding.weight.device
        self._tokens, self._slots, self._n_ctx = tokens.to(device), slots.to(device), n_ctx
        self._end = self._tokens.argmax(dim=1)  # the end token has the highest number
        differs = (self._tokens != self._tokens[0]).any(dim=0).nonzero()
        self._start = min(int(self._slots.min()), *differs[:1].flatten().tolist(), self._tokens.shape[1])
        self._embedded = model.token_embedding.weight.detach()[self._tokens[:, self._start : int(self._end.max()) + 1]]
        self._layers = self._prepared()

    @torch.no_grad()
    def _prepared(self) -> list[_Layer]:
        model, layers = self._model, []
        tokens = self._tokens[:1, : self._start]
        x = model.token_embedding.weight[tokens] + model.positional_embedding[: self._start]
        for block in model.transformer.resblocks:
            attention, width = block.attn, x.shape[-1]
            normed = F.layer_norm(x, (width,), *_frozen(block.ln_1))
            start = F.linear(normed, attention.in_proj_weight[width:], attention.in_proj_bias[width:]).chunk(2, dim=-1)
            keys, values = (_by_head(part, attention.num_heads)[0] for part in start)
            layers.append(_Layer(block, keys, values))
            x = _block(_Layer(block, keys[:, :0], values[:, :0]), x, _causal(self._start, 0, x.device), None)
        return layers

    def encode(self, rows: Tensor, context: Tensor) -> Tensor:
        """Text features, not normalised, (k, embedding_dim), the fast way, of prompts by number, int64 (k,).

        Their learnt token embeddings are the `context`, float32 (k, n_ctx, width).
        """
        model, end = self._model, self._end[rows] - self._start
        length = int(end.max()) + 1
        places = (self._slots[rows] - self._start)[:, None] + torch.arange(self._n_ctx, device=rows.device)
        each = torch.arange(len(rows), device=rows.device)
        x = self._embedded[rows, :length].index_put((each[:, None], places), context)
        x = x + model.positional_embedding.detach()[self._start : self._start + length]
        mask = _causal(length, self._start, x.device)
        for layer in self._layers[:-1]:
            x = _block(layer, x, mask, None)
        x = _block(self._layers[-1], x, mask[end], end)
        x = F.layer_norm(x, (x.shape[-1],), *_frozen(model.ln_final))
        return x @ model.text_projection.detach()

    def encode_plainly(self, rows: Tensor, context: Tensor) -> Tensor:
        """The same by openai-clip's own modules on all positions: slow and obvious."""
        model = self._model
        embedded = model.token_embedding(self._tokens[rows])
        prompts = []
        for row, slot, tokens in zip(embedded, self._slots[rows].tolist(), context, strict=True):
            prompts.append(torch.cat([row[:slot], tokens, row[slot + self._n_ctx :]]))
        x = torch.stack(prompts) + model.positional_embedding
        x = model.ln_final(model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
        return x[torch.arange(len(rows)), self._end[rows]] @ model.text_projection


class LibraryText(PromptText):
    """The same of a library's text tower: fast where that computes what CLIP's does, else by the library's modules.

    Learnt tokens enter where its token embeddings come out; masks, padding and pooling go by the tokens in their place.
    """

    def __init__(self, model: LibraryModel, tokens: Tensor, slots: Tensor, n_ctx: int):
        """As `PromptText`."""
        self._whole, self.is_fast = model, is_clip_shaped(model.text)
        device = model.token_embedding.weight.device
        self._tokens, self._slots, self._n_ctx = tokens.to(device), slots.to(device), n_ctx
        if self.is_fast:
            super().__init__(model.text, tokens, slots, n_ctx)

    def encode(self, rows: Tensor, context: Tensor) -> Tensor:
        """As `PromptText.encode`."""
        return super().encode(rows, context) if self.is_fast else self.encode_plainly(rows, context)

    def encode_plainly(self, rows: Tensor, context: Tensor) -> Tensor:
        """By the library's own modules on all positions."""
        places = self._slots[rows][:, None] + torch.arange(self._n_ctx, device=rows.device)
        each = torch.arange(len(rows), device=rows.device)[:, None]

        def put(_module: Any, _tokens: Any, embedded: Tensor) -> Tensor:
            return embedded.index_put((each, places), context)

        handle = self._whole.token_embedding.register_forward_hook(put)
        try:
            return self._whole.encode_text(self._tokens[rows])
        finally:
            handle.remove()


def prompt_text(model: Any, tokens: Tensor, slots: Tensor, n_ctx: int) -> PromptText:
    """`PromptText` of a CLIP, or of a library's model."""
    return (LibraryText if isinstance(model, LibraryModel) else PromptText)(model, tokens, slots, n_ctx)


def _frozen(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight.detach(), module.bias.detach()


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _causal(length: int, start: int, device: torch.device) -> Tensor:
    """Which keys each position may see: bool, shape (length, start + length)."""
    return torch.ones(length, start + length, dtype=torch.bool, device=device).tril(start)


def _block(layer: _Layer, x: Tensor, mask: Tensor, asked: Tensor | None) -> Tensor:
    """A residual attention block, after the constant start; of all positions, or of one a prompt, (k, width)."""
    width, block, attention = x.shape[-1], layer.block, layer.block.attn
    normed = F.layer_norm(x, (width,), *_frozen(block.ln_1))
    weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
    if asked is None:
        query, key, value = F.linear(normed, weight, bias).chunk(3, dim=-1)
        kept = x
    else:
        each = torch.arange(len(x), device=x.device)
        query = F.linear(normed[each, asked][:, None], weight[:width], bias[:width])
        key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
        kept, mask = x[each, asked][:, None], mask[:, None, None]
    query, key, value = (_by_head(part, attention.num_heads) for part in (query, key, value))
    key = torch.cat([layer.keys.expand(len(x), -1, -1, -1), key], dim=2)
    value = torch.cat([layer.values.expand(len(x), -1, -1, -1), value], dim=2)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
    kept = kept + F.linear(attended, *_frozen(attention.out_proj))
    hidden = F.linear(F.layer_norm(kept, (width,), *_frozen(block.ln_2)), *_frozen(block.mlp.c_fc))
    active = F.gelu(hidden) if has_gelu(block) else hidden * (1.702 * hidden).sigmoid()
    kept = kept + F.linear(active, *_frozen(block.mlp.c_proj))
    return kept if asked is None else kept[:, 0]
