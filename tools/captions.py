"""Captions of photographs from their metadata, in several phrasings, and of which photographs each is true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handclip_lib.errors import DataError

FACTS: dict[str, tuple[Any, ...]] = {
    "side": ("right", "left"),
    "view": ("dorsal", "palmar"),
    "skin_color": ("very fair", "fair", "medium", "dark"),
    "gender": ("female", "male"),
    "accessories": (False, True),
    "nail_polish": (False, True),
}
"""What a caption may state: columns of a hand table, and the values they take."""
UNSAID = -1
EXTRA_SHARE = 0.4  # chance that a caption goes on to state a further fact
_HANDS = (
    "a photo of a {side} {view} hand", "a {side} {view} hand on white paper", "a photo of the {face} of a {side} hand",
    "the {face} of a {side} hand", "{view} view of a {side} hand", "a photo of a {side} hand, {view} side",
    "a photo of a {side} hand", "a photo of a {view} hand", "the {face} of a hand",
)  # fmt: skip
_FACE = {"dorsal": "back", "palmar": "palm"}
_EXTRAS = {
    "skin_color": (" with {skin_color} skin", ", {skin_color} skin"),
    "gender": (" of a {person}", ", {gender}"),
    "accessories": ((" without accessories",), (" with accessories", " wearing accessories")),
    "nail_polish": ((" without nail polish",), (" with nail polish", ", painted nails")),
}
_PERSON = {"female": "woman", "male": "man"}


@dataclass(frozen=True)
class Caption:
    """A caption and what it states: for each of `FACTS` the position of the value, or `UNSAID`."""

    text: str
    says: tuple[int, ...]


def facts_of(records: Sequence[Mapping[Any, Any]]) -> np.ndarray:
    """Metadata as positions in `FACTS`: int, shape (n, 6).

    Raises:
        DataError: A record holds a value that captions have no word for.
    """
    rows = np.empty((len(records), len(FACTS)), np.int64)
    for row, record in zip(rows, records, strict=True):
        for column, (name, values) in enumerate(FACTS.items()):
            if record[name] not in values:
                raise DataError(f"{name}={record[name]!r} has no caption; the values are {', '.join(map(str, values))}")
            row[column] = values.index(record[name])
    return rows


def caption_of(facts: Sequence[int], rng: np.random.Generator) -> Caption:
    """One of many captions of a photograph; it always states the side or the view, and sometimes more.

    Args:
        facts: One row of `facts_of`.
        rng: What chooses the phrasing.
    """
    words = {name: values[fact] for (name, values), fact in zip(FACTS.items(), facts, strict=True)}
    words |= {"face": _FACE[words["view"]], "person": _PERSON[words["gender"]]}
    text = _HANDS[rng.integers(len(_HANDS))]
    said = {name for name, mark in (("side", "{side}"), ("view", "{view}"), ("view", "{face}")) if mark in text}
    for name in rng.permutation(list(_EXTRAS)):
        if rng.random() < EXTRA_SHARE:
            phrases: Any = _EXTRAS[name]
            phrases = phrases[int(words[name])] if isinstance(words[name], bool) else phrases
            text += phrases[rng.integers(len(phrases))]
            said.add(name)
    says = tuple(int(fact) if name in said else UNSAID for name, fact in zip(FACTS, facts, strict=True))
    return Caption(text.format(**words), says)


def described(captions: Sequence[Caption], facts: np.ndarray) -> np.ndarray:
    """Which captions are true of which photographs: bool, shape (photographs, captions)."""
    says = np.array([caption.says for caption in captions])
    return ((says[None] == UNSAID) | (says[None] == facts[:, None])).all(axis=2)
