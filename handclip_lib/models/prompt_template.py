"""Prompts with learnt places: a template becomes tokens, and every fault of it is named with its tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from handclip_lib.backbone.load import Backbone
from handclip_lib.config import NAME, PLACEHOLDER, split_template
from handclip_lib.errors import ConfigError


class Prompts(NamedTuple):
    """Tokens int64 (n, context_length), and where the learnt tokens begin, int64 (n,)."""

    tokens: Tensor
    slots: Tensor


def build_prompts(backbone: Backbone, template: str, n_ctx: int, context: str, names: Sequence[str]) -> Prompts:
    """The tokens of one template for every identity.

    Each piece of a template is encoded for itself, so a name may hold anything, `{}` and emoji included.

    Args:
        backbone: Whose vocabulary and context length count.
        template, n_ctx, context: As `split_template` has them.
        names: A name for each identity.

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
    return Prompts(torch.tensor(rows), torch.tensor(slots))


def _encoded(backbone: Backbone, part: str, name: str) -> list[int]:
    """Tokens of a part of a template, with the name where `{name}` stands."""
    first, *rest = part.split(NAME)
    tokens = backbone.encode_words(first)
    for piece in rest:
        tokens += [*backbone.encode_words(name), *backbone.encode_words(piece)]
    return tokens
