"""Prompt templates: `{}` stands for the learnt tokens, `{name}` for the identity's name, and | parts several."""

import re

from handclip_lib.errors import ConfigError

SLOT, NAME = "{}", "{name}"
TEMPLATES = {"identity": "A photo of a {} hand.", "shared": "A photo of a {} hand of {name}."}
"""Template of each kind of context where none is given. Source of the first: CLIP-ReID's, with "hand" for "person"."""
PLACEHOLDER = "X"
_RUN = re.compile(rf"(?<!\S){PLACEHOLDER}(?: {PLACEHOLDER})*(?!\S)")


def templates_of(text: str, context: str) -> tuple[str, ...]:
    """The templates in a text, parted by |; the context's own where there is none."""
    given = tuple(part.strip() for part in text.split("|") if part.strip())
    return given or (TEMPLATES[context],)


def template_faults(templates: tuple[str, ...], n_ctx: int, context: str) -> list[str]:
    """What `split_template` says of each template that is none."""
    found = []
    for template in templates:
        try:
            split_template(template, n_ctx, context)
        except ConfigError as error:
            found.append(str(error))
    return found


def split_template(template: str, n_ctx: int, context: str) -> tuple[str, str]:
    """What stands before and after the learnt tokens.

    The slot is written `{}`, or spelt out as `n_ctx` words "X" ("A photo of a X X X X hand.").

    Args:
        template, n_ctx: The template, and its number of learnt tokens.
        context: "identity", whose prompts are told apart by their learnt tokens alone, or "shared", whose template
            has the identity's name at `{name}`.

    Raises:
        ConfigError: No slot or several, another number of X, or a name where none belongs or none where one does.
    """
    parts = template.split(SLOT) if SLOT in template else _RUN.split(template)
    if len(parts) != 2:
        raise ConfigError(
            f"template={template!r} has {len(parts) - 1} slots for the learnt tokens; write {SLOT} once, "
            f"as in {TEMPLATES[context]!r}"
        )
    before, after = parts
    spelt = template[len(before) : len(template) - len(after)].split()
    if spelt != [SLOT] and len(spelt) != n_ctx:
        raise ConfigError(
            f"template={template!r} spells {len(spelt)} X and n_ctx={n_ctx}; write {SLOT} in place of them, or as many"
        )
    names = template.count(NAME)
    if context == "identity" and names:
        raise ConfigError(f"template={template!r} names the identity, which context='identity' does not: drop {NAME}")
    if context == "shared" and names != 1:
        raise ConfigError(
            f"template={template!r} has {names} places for the name; with context='shared' prompts differ by it "
            f"alone: write {NAME} once, as in {TEMPLATES['shared']!r}"
        )
    return before, after
