"""Learnt prompts: context tokens of each identity (CLIP-ReID), or shared ones beside the identity's name (CoOp)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.text_tower import prompt_text
from handclip_lib.errors import ConfigError
from handclip_lib.parameters.parts import NAME, PLACEHOLDER, Prompts, split_template

SPREAD = 0.02  # of the first values, as CoOp and CLIP-ReID have it


class Tokens(NamedTuple):
    """Tokens int64 (n, context_length), and where the learnt tokens begin, int64 (n,)."""

    tokens: Tensor
    slots: Tensor


def build_prompts(backbone: Backbone, template: str, n_ctx: int, context: str, names: Sequence[str]) -> Tokens:
    """The tokens of one template (see `split_template`) for every identity's name.

    Each piece of a template is encoded for itself, so a name may hold anything, `{}` and emoji included.

    Raises:
        ConfigError: See `split_template`; or a prompt does not fit the context length, or its slot is no words of
            its own, both with the tokens.
        BackboneError: The model has no vocabulary.
    """
    before, after = split_template(template, n_ctx, context)
    placeholders = " ".join([PLACEHOLDER] * n_ctx)
    whole = backbone.encode_words(before + placeholders + after)
    pieces = [*backbone.encode_words(before), *backbone.encode_words(placeholders), *backbone.encode_words(after)]
    if whole != pieces:
        raise ConfigError(
            f"template={template!r}: the slot must be words of its own, with blanks around it; its tokens are "
            f"{backbone.words(whole)}"
        )
    rows, slots = [], []
    for name in names:
        head, tail = (_encoded(backbone, part, name) for part in (before, after))
        prompt = [backbone.start_token, *head, *backbone.encode_words(placeholders), *tail, backbone.end_token]
        if len(prompt) > backbone.context_length:
            raise ConfigError(
                f"template={template!r} with n_ctx={n_ctx}"
                + (f" and the name {name!r}" if context == "shared" else "")
                + f" is {len(prompt)} tokens long and {backbone.name} takes {backbone.context_length}: shorten it, or "
                f"lower n_ctx by {len(prompt) - backbone.context_length}; {backbone.words(prompt[:40])} …"
            )
        slots.append(1 + len(head))
        rows.append(prompt + [0] * (backbone.context_length - len(prompt)))
    return Tokens(torch.tensor(rows), torch.tensor(slots))


def _encoded(backbone: Backbone, part: str, name: str) -> list[int]:
    """Tokens of a part of a template, with the name where `{name}` stands."""
    first, *rest = part.split(NAME)
    tokens = backbone.encode_words(first)
    for piece in rest:
        tokens += [*backbone.encode_words(name), *backbone.encode_words(piece)]
    return tokens


class PromptLearner(torch.nn.Module):
    """Text features of identities whose prompts hold `n_ctx` learnt token embeddings.

    Only `context` learns; the backbone is read and never changed. Several templates: their *features* are averaged.

    Attributes:
        context: float32, shape (n_identities, n_ctx, width) or, shared, (n_ctx, width).
        identities: In the order of the rows.
        templates: The templates in use.
        recipe: What it was made of: a training is resumed by the same only.

    Sources: Li et al., "CLIP-ReID", AAAI 2023 (identity); Zhou et al., "Learning to Prompt for Vision-Language
        Models", IJCV 2022 (shared).
    """

    def __init__(self, backbone: Backbone, identities: Sequence[str], options: Prompts, ctx_init: str = ""):
        """Build the prompts and the first context.

        Args:
            identities: At least two, all different; they stand at `{name}`.
            ctx_init: Text whose token embeddings the context starts from; it must have `n_ctx` tokens. Without it
                the start is normal noise of the options' seed.

        Raises:
            ConfigError: A template or `ctx_init` does not fit, or the identities are none to be told apart.
            BackboneError: The backbone has no vocabulary.
        """
        super().__init__()
        if len(set(identities)) != len(identities) or len(identities) < 2:
            raise ConfigError(f"{len(identities)} identities: prompts are learnt to tell at least two different ones")
        self.identities, self.templates = tuple(identities), options.templates
        n_ctx, context, seed = options.n_ctx, options.context, options.seed
        self.recipe = {
            "backbone": backbone.fingerprint, "identities": self.identities, "n_ctx": n_ctx, "context": context,
            "templates": self.templates, "ctx_init": ctx_init, "names": self.identities, "seed": seed,
        }  # fmt: skip
        self._prompts = [build_prompts(backbone, one, n_ctx, context, self.identities) for one in self.templates]
        self._texts = [prompt_text(backbone.model, *prompts, n_ctx) for prompts in self._prompts]
        first = _first_context(backbone, n_ctx, ctx_init, seed, len(self.identities) if context == "identity" else 1)
        self.context = torch.nn.Parameter(first if context == "identity" else first[0])

    @property
    def shared(self) -> bool:
        """Whether all identities have the same context."""
        return self.context.ndim == 2

    @property
    def tokens(self) -> list[Tensor]:
        """Tokens of each template, int64 (n_identities, context_length); learnt places hold that of "X"."""
        return [prompts.tokens for prompts in self._prompts]

    def encode_text(self, rows: Tensor) -> Tensor:
        """Text features, not normalised, float32 (k, embedding_dim), of identities by number, int64 (k,)."""
        rows = rows.to(self.context.device)
        return torch.stack([text.encode(rows, self._contexts(rows)) for text in self._texts]).mean(dim=0)

    def encode_text_plainly(self, rows: Tensor) -> Tensor:
        """The same by openai-clip's own modules: the oracle of `encode_text`."""
        return torch.stack([text.encode_plainly(rows, self._contexts(rows)) for text in self._texts]).mean(dim=0)

    def _contexts(self, rows: Tensor) -> Tensor:
        return self.context.expand(len(rows), -1, -1) if self.shared else self.context[rows]

    @torch.no_grad()
    def text_features(self, block: int = 64) -> np.ndarray:
        """Text features of all identities, not normalised: float32, shape (n_identities, embedding_dim)."""
        rows = torch.arange(len(self.identities))
        return torch.cat([self.encode_text(part) for part in rows.split(block)]).cpu().numpy()


def _first_context(backbone: Backbone, n_ctx: int, ctx_init: str, seed: int, n: int) -> Tensor:
    vocabulary = backbone.model.token_embedding.weight.detach()
    if not ctx_init:
        noise = torch.randn(n, n_ctx, vocabulary.shape[1], generator=torch.Generator().manual_seed(seed))
        return (SPREAD * noise).to(vocabulary.device)
    tokens = backbone.encode_words(ctx_init)
    if len(tokens) != n_ctx:
        raise ConfigError(
            f"ctx_init={ctx_init!r} is {len(tokens)} tokens ({backbone.words(tokens)}) and n_ctx={n_ctx}; "
            "give a text of as many tokens, or another n_ctx"
        )
    return vocabulary[tokens].expand(n, -1, -1).clone()


@torch.no_grad()
def nearest_words(backbone: Backbone, context: np.ndarray, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The `k` vocabulary words whose embeddings are nearest to learnt tokens, float32 (..., width).

    Returns:
        Words, text of shape (..., k), nearest first, and their Euclidean distances, float32. A distance near the
        token's own length means that no word is near: the token says nothing in words.
    """
    vocabulary = backbone.model.token_embedding.weight.detach()
    wanted = torch.from_numpy(np.asarray(context, np.float32)).to(vocabulary.device)
    found = torch.cdist(wanted.reshape(-1, wanted.shape[-1]), vocabulary).topk(k, dim=1, largest=False)
    words = np.array([backbone.words(row) for row in found.indices.tolist()], dtype=object)
    shape = (*wanted.shape[:-1], k)
    return words.reshape(shape), found.values.cpu().numpy().reshape(shape)


def prompt_table(backbone: Backbone, learner: PromptLearner) -> pd.DataFrame:
    """The first identity's prompt of each template: columns template, tokens (their number), prompt."""
    rows = []
    for template, tokens in zip(learner.templates, learner.tokens, strict=True):
        own = tokens[0, : int(tokens[0].argmax()) + 1].tolist()
        rows.append((template, len(own), " · ".join(backbone.words(own))))
    return pd.DataFrame(rows, columns=["template", "tokens", "prompt"])


def word_table(backbone: Backbone, learner: PromptLearner, k: int = 3) -> pd.DataFrame:
    """Nearest words of every learnt token: columns identity, token, length, then word and distance of the k nearest."""
    context = learner.context.detach().cpu().numpy()
    names = ["(all)"] if learner.shared else learner.identities
    context = context[None] if learner.shared else context
    words, distances = nearest_words(backbone, context, k)
    rows = []
    for number, token in np.ndindex(*context.shape[:2]):
        length = float(np.linalg.norm(context[number, token]))
        near = zip(words[number, token], distances[number, token].tolist(), strict=True)
        rows.append([names[number], token + 1, length, *(value for pair in near for value in pair)])
    places = [f"{what}_{place + 1}" for place in range(k) for what in ("word", "distance")]
    return pd.DataFrame(rows, columns=["identity", "token", "length", *places])
