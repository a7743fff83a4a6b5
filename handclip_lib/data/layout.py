"""What folders' and files' names say: which level of folders names the people, what the others say, capture numbers."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handclip_lib.data.table import ASPECTS, SIDES, capture_number, natural_order
from handclip_lib.errors import DataError
from handclip_lib.terminal import some_of

Row = dict[str, object]
Folders = tuple[str, ...]
"""Names of the folders above a photograph, the outermost first."""
_HANDS = {"left": "left", "lefthand": "left", "right": "right", "righthand": "right"}
_VIEWS = {"dorsal": "dorsal", "back": "dorsal", "palmar": "palmar", "palm": "palmar"}
_SESSION = re.compile(
    r"(session|sess|sitting|visit|day|week|month|phase|period|round|occasion|acquisition)[ _-]*[0-9]+", re.IGNORECASE
)
_DATE = re.compile(r"(19|20)[0-9]{2}[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12][0-9]|3[01])")
_TIME = re.compile(r"([01][0-9]|2[0-3])[.:_-]?[0-5][0-9][.:_-]?[0-5][0-9]([0-9]{3})?$")


class Layout(NamedTuple):
    """How a set names its photographs, below its folder: one that it has, or their form, and what all paths match."""

    example: str
    pattern: re.Pattern[str]


_NAMES = {
    "tongji": ("session1/00001.bmp", r"(?P<session>session[12])/(?P<number>[0-9]{5})(?:\.\w+)+"),
    "iitd": (
        "Left/001_1.bmp",
        r"(?P<side>(?i:Left|Right))(?i: Hand)?/(?P<subject>[0-9]{1,3})_[0-9]{1,2}(?:\.\w+)+",
    ),
    "casia": ("0001_m_l_01.jpg", r"(?P<subject>[0-9]{4})_(?P<gender>[mf])_(?P<side>[lr])_[0-9]{2}(?:\.\w+)+"),
    "hagrid": (
        "<gesture>/<key>.jpg, beside JSON files of annotations",
        r"(?P<key>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.\w+",
    ),
}
LAYOUTS = {name: Layout(example, re.compile(f"(?:.*/)?{form}")) for name, (example, form) in _NAMES.items()}
GESTURES = {
    "call", "dislike", "fist", "four", "like", "mute", "ok", "one", "palm", "peace", "peace_inverted", "rock", "stop",
    "stop_inverted", "three", "three2", "two_up", "two_up_inverted", "no_gesture",
}  # fmt: skip
"""Folders of HaGRID."""
LARGEST_CAPTURE = 10**9
"""A camera does not count so far: such a number is a time or a name."""
LARGEST_GAP = 1000
"""Captures, in the median, between two photographs of one person that were taken one after the other."""


def aspect_of(name: str) -> str:
    """The aspect that a folder is named after: `dorsal_r`, `hands_dorsal_r`, `dorsal right`, `Right palm`; or ""."""
    found = next((aspect for aspect in ASPECTS if name.endswith(aspect)), "")
    words = re.split(r"[ _-]+", name.casefold())
    if found or len(words) != 2:
        return found
    for view, hand in (words, words[::-1]):
        if view in _VIEWS and hand in ("left", "right", "l", "r"):
            return f"{_VIEWS[view]}_{hand[0]}"
    return ""


def kind_of(name: str) -> str:
    """What a folder's name is: an "aspect", a "hand", a "view", a "session", a "date", or a plain "name"."""
    plain = re.sub(r"[ _-]+", "", name.casefold())
    if aspect_of(name):
        return "aspect"
    if plain in _HANDS:
        return "hand"
    if name.casefold() in _VIEWS:
        return "view"
    if _SESSION.fullmatch(name):
        return "session"
    return "date" if _DATE.fullmatch(name) else "name"


def named_set(paths: Sequence[str]) -> str:
    """The set whose layout nine in ten photographs have, or ""; phones name photographs like HaGRID, but no folders."""
    for name, layout in LAYOUTS.items():
        like = [path for path in paths if layout.pattern.fullmatch(path)]
        if name == "hagrid":
            like = [path for path in like if path.split("/")[-2:][0].removeprefix("train_val_") in GESTURES]
        if paths and len(like) >= 0.9 * len(paths):
            return name
    return ""


def facts_of(
    root: Path, folders: Iterable[Folders], identity_level: int = 0, session_level: int = 0
) -> dict[Folders, Row]:
    """What each place of photographs says of them: identity, and aspect, side, view and session where it names them.

    Levels are those of the folders that name people and sessions, from 1 at the root; 0 looks for them.

    Raises:
        DataError: It is not plain which level names the people, or photographs lie at different depths.
    """
    places = sorted(set(folders))
    if identity_level:
        shallow = next((place for place in places if len(place) < identity_level), None)
        if shallow:
            raise DataError(
                f"{root}: photographs lie in {'/'.join(shallow)}/, which has no folder of identity_level="
                f"{identity_level}; name another level, or move them"
            )
        found = dict.fromkeys(places, identity_level - 1)
    else:
        found = _identity_levels(root, places, session_level)
    return {place: _facts(place, found[place], session_level) for place in places}


def _facts(place: Folders, level: int, session_level: int) -> Row:
    facts: Row = {"identity": place[level]}
    sessions = []
    for at, name in enumerate(place):
        kind = kind_of(name)
        if at == level:
            continue
        if session_level == at + 1 or (not session_level and kind in ("session", "date")):
            sessions.append(name)
        elif kind == "aspect":
            facts |= aspect_columns(aspect_of(name))
        elif kind == "hand":
            facts["side"] = _HANDS[re.sub(r"[ _-]+", "", name.casefold())]
        elif kind == "view":
            facts["view"] = _VIEWS[name.casefold()]
    if facts.get("view") and facts.get("side"):
        facts["aspect"] = f"{facts['view']}_{str(facts['side'])[0]}"
    return facts | ({"session": "/".join(sessions)} if sessions else {})


def aspect_columns(aspect: str) -> Row:
    """The columns view, side and aspect of one of `ASPECTS` or ""."""
    view, _, side = aspect.partition("_")
    return {"view": view, "side": SIDES[side], "aspect": aspect}


def _identity_levels(root: Path, places: Sequence[Folders], session_level: int) -> dict[Folders, int]:
    """Index of the folder that names the people, of each place."""
    kinds = {place: tuple(map(kind_of, place)) for place in places}
    shapes: dict[tuple[str, ...], Folders] = {}
    for place in places:
        shapes.setdefault(tuple(kind for kind in kinds[place] if kind != "aspect"), place)
    if len(shapes) > 1:
        one, other = sorted(shapes.values(), key=len)[:2]
        raise DataError(
            f"{root}: photographs lie in {'/'.join(one)}/ and in {'/'.join(other)}/: folders of different kinds or "
            "depth. Put them at one depth, move copies (crops, small ones) out of the folder, say which level names "
            f"the people (-p identity_level 1), or write a table (handclip data manifest {root})"
        )
    shape = next(iter(shapes))
    wanted = [at for at, kind in enumerate(shape) if kind == "name"] or [
        at for at, kind in enumerate(shape) if kind == "date"
    ]
    # of each place, where the folders of its shape stand among all its folders
    stands = {place: [at for at, kind in enumerate(kinds[place]) if kind != "aspect"] for place in places}
    wanted = [at for at in wanted if session_level == 0 or stands[places[0]][at] != session_level - 1]
    if not wanted:
        raise DataError(
            f"{root}: no folder names a person: {'/'.join(places[0])} names hands, views or sessions. Put the "
            f"photographs of each person into a folder, say -p identity_level, or write a table (handclip data "
            f"manifest {root})"
        )
    names = {at: {place[stands[place][at]] for place in places} for at in wanted}
    several = [at for at in wanted if len(names[at]) > 1]
    candidates = several or wanted[-1:]
    if len(candidates) > 1:
        raise DataError(_not_plain(root, places, stands, candidates, names))
    return {place: stands[place][candidates[0]] for place in places}


def _not_plain(
    root: Path, places: Sequence[Folders], stands: Mapping[Folders, list[int]], candidates: Sequence[int],
    names: Mapping[int, set[str]],
) -> str:  # fmt: skip
    """Why nothing says which of several levels names the people, with a name that stands under two others."""
    levels = [
        f"{stands[places[0]][at] + 1} ({len(names[at])} names: {some_of(sorted(names[at], key=natural_order), 3)})"
        for at in candidates
    ]
    above: dict[str, Folders] = {}
    twice = ""
    for place in places:
        other = above.setdefault(place[stands[place][candidates[-1]]], place)
        if other[stands[other][candidates[0]]] != place[stands[place][candidates[0]]]:
            twice = f" {'/'.join(other)} and {'/'.join(place)} may be one person or two."
            break
    return (
        f"{root}: it is not plain which folders name the people: level {' or level '.join(levels)}.{twice} "
        f"Say -p identity_level {' or '.join(str(stands[places[0]][at] + 1) for at in candidates)} (to data check: "
        "--identity-level), and session_level where a level names sessions (photographs of one name are then one "
        "person's); or write a table "
        f"(handclip data manifest {root})"
    )


def number_captures(rows: Sequence[Row]) -> str:
    """Give rows of files their capture numbers, where the names hold such; else the reason as a note.

    The last number of a name is a capture number where it counts: in all names of a person's aspect and session the
    rest is the same, no number comes twice, and it is neither a size, a time of day nor a code. Where a camera began
    anew in a session, its numbers are moved out of the reach of the other sessions.
    """
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row.get(name, "") for name in ("identity", "side", "view", "aspect", "session"))].append(row)
    numbers: dict[str, int] = {}
    gaps = []
    for group in groups.values():
        paths = [str(row["path"]) for row in group]
        if reason := _no_captures(paths, numbers):
            return f"no capture numbers: {reason}; burst figures need them (a column capture of a table)"
        counted = sorted(numbers[path] for path in paths)
        gaps += [later - earlier for earlier, later in pairwise(counted)]
    if gaps and np.median(gaps) > LARGEST_GAP:
        return f"no capture numbers: those in the names of files lie {np.median(gaps):.0f} apart: they count nothing"
    sessions = sorted({str(row.get("session", "")) for row in rows}, key=natural_order)
    for row in rows:
        moved = sessions.index(str(row.get("session", ""))) * 2 * LARGEST_CAPTURE if len(sessions) > 1 else 0
        row["capture"] = numbers[str(row["path"])] + moved
    return ""


def _no_captures(paths: Sequence[str], numbers: dict[str, int]) -> str:
    """Why the names of one person's files hold no capture numbers, or "" and the numbers are added."""
    seen: dict[int, str] = {}
    rests: dict[str, str] = {}
    for path in paths:
        stem = Path(path).stem
        number = capture_number(path)
        if number is None or number >= LARGEST_CAPTURE:
            return f"the name of {path} has none"
        if (_DATE.search(stem) and _TIME.search(stem)) or re.search(r"[0-9]{1,2}[.:_-][0-9]{2}[.:_-][0-9]{2}$", stem):
            return f"{path} names a time of day"
        if number in seen:
            return f"{seen[number]} and {path} end in the same number"
        rests.setdefault(re.sub(r"[0-9]+(?!.*[0-9])", "", stem), path)
        if len(rests) > 1:
            return f"the names of {' and '.join(rests.values())} differ in more than a number"
        seen[number] = path
        numbers[path] = number
    return ""
