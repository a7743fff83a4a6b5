"""Photographs whose folders say who they show: a folder a person, sessions or sites above or below it, and splits."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from handclip_lib.data.content import content_keys, files_below
from handclip_lib.data.decoder import file_fault, is_image
from handclip_lib.data.layout import (
    Folders,
    Row,
    aspect_columns,
    aspect_of,
    facts_of,
    kind_of,
    named_set,
    number_captures,
)
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError
from handclip_lib.terminal import counted, some_of

ROLE = re.compile(r"(train|val|query|gallery)([0-9]*)|(test)")
MARKET = "bounding_box_train"
"""A folder of Market-1501 and of what is laid out like it: the person is in the name of the file."""


def read_folder(root: Path | str, identity_level: int = 0, session_level: int = 0) -> HandTable:
    """Read folders of photographs; the identity of an image is the name of a folder above it.

    Which level of folders that is, is looked for (`layout.facts_of`) or said. Folders named after aspects, hands and
    sessions say those. Two kinds of trees also give their split: `{train,val,query0,gallery0,query1…}/<identity>/`
    (below `train_val_test_split_<aspect>/` too), where the same photograph lies once a draw and is one row here, and
    `{train,val,test}` or `{train,query,gallery}/<identity>/`. An identity is a folder's name, never its place among
    its sisters (which differs from split to split, and matches nobody).

    Args:
        root: The folder.
        identity_level, session_level: Of the folders that name people and sessions, from 1 at the root (in a tree of
            splits at the folder of a role); 0 looks for them.

    Raises:
        DataError: The folder is absent or holds no image in a folder of its own, is another data set's, a link leads
            back to a folder above it, it is not plain which folders name people, or one photograph has two identities.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise DataError(f"{root} does not exist; name the folder that holds one folder per identity")
    found = files_below(root)
    if found.loops:
        raise DataError(f"{root}: {found.loops[0]} links back to a folder above it; remove the link")
    top = _split_top(root, found.files)
    inside = [path for path in found.files if path.startswith(top)]
    images, left_out = _sorted_out(root, inside, top)
    _refuse_other_sets(root, found.files, [path for path in images if "/" in path])
    small = found.skipped
    notes = [f"{len(small)} folders of small copies were not read ({small[0]})"] if small else []
    if roles := _roles(root / top):
        return _read_split_tree(root, top, roles, images, left_out, notes, (identity_level, session_level))
    left_out |= {path: "it lies in no identity's folder" for path in images if "/" not in path}
    places = {path: PurePosixPath(path).parts[:-1] for path in images if "/" in path}
    if not places:
        needs = f"it needs <identity>/<photograph>, or a table (handclip data manifest {root})"
        raise DataError(f"{root} holds no photograph in a folder of its own; {needs}")
    _refuse_one_folder_twice(root, places.values())
    facts, aspect = facts_of(root, places.values(), identity_level, session_level), aspect_columns(aspect_of(root.name))
    rows: list[Row] = [{"path": path} | aspect | facts[place] for path, place in places.items()]
    several = next((place for place in facts if [kind_of(name) for name in place].count("name") > 1), None)
    if several:
        notes.append(f"of {'/'.join(several)}/ the folder {facts[several]['identity']} names the person")
    return HandTable.build("folder", root, rows, left_out, notes=[*notes, *_told(rows)])


def _sorted_out(root: Path, paths: Iterable[str], top: str) -> tuple[list[str], dict[str, str]]:
    """The photographs, and the reasons of files that are none; files beside the people's folders are left alone."""
    images, left_out = [], {}
    for path in paths:
        if fault := file_fault(root / path):
            if "/" in path.removeprefix(top) or is_image(path):
                left_out[path] = fault
        else:
            images.append(path)
    return images, left_out


def _told(rows: Sequence[Row]) -> list[str]:
    """Number the captures of rows; notes on that, on their sessions, and on hands of no aspect."""
    notes = [number_captures(rows)]
    if sessions := sorted({str(row["session"]) for row in rows if row.get("session")}):
        many = counted(len(sessions), "session")
        notes.append(f"folders are read as {many} of people ({some_of(sessions, 3)})")
    if len({row["side"] for row in rows if row.get("side") and not row.get("aspect")}) > 1:
        notes.append("the left and the right hand of a person are one identity: -p identity hand makes them two")
    return [note for note in notes if note]


def _refuse_other_sets(root: Path, paths: Sequence[str], images: Sequence[str]) -> None:
    if any(path.startswith(f"{MARKET}/") for path in paths):
        raise DataError(
            f"{root} is laid out like Market-1501 ({MARKET}/): the person is in the names of the files, not of the "
            f"folders. Write a table with `handclip data manifest {root}`, look at it, and say -p dataset csv"
        )
    if name := named_set(images):
        raise DataError(
            f"{root} is laid out like {name} ({images[0]}): its folders name no people. Say -p dataset {name} if it is "
            f"that set, else write a table (handclip data manifest {root})"
        )


def _refuse_one_folder_twice(root: Path, places: Iterable[Folders]) -> None:
    """Refuse a folder that a link brings in under a second name: its person would be two."""
    seen: dict[tuple[int, int], Folders] = {}
    for place in sorted(set(places)):
        status = root.joinpath(*place).stat()
        other = seen.setdefault((status.st_dev, status.st_ino), place)
        if other != place:
            raise DataError(
                f"{root}: {'/'.join(other)} and {'/'.join(place)} are one folder (a link); remove one of them"
            )


def _split_top(root: Path, paths: Sequence[str]) -> str:
    """Where the folders of roles lie: "" for the root itself, or its one folder of a split."""
    tops = {path.split("/", 1)[0] for path in paths if "/" in path}
    splits = sorted(name for name in tops if name.startswith("train_val_test_split_"))
    if len(splits) > 1:
        raise DataError(f"{root} holds several splits ({', '.join(splits)}); name one of them as data_root")
    return f"{splits[0]}/" if splits else ""


def _roles(top: Path) -> dict[str, tuple[str, int]]:
    """Role and draw of each folder of a tree of splits, by its name; none where it is no such tree."""
    names = {folder.name for folder in top.iterdir() if folder.is_dir()}
    found = {name: match for name in names if (match := ROLE.fullmatch(name))}
    numbered = {name: match for name, match in found.items() if match[2]}
    if {"query0", "gallery0"} & found.keys() and numbered:
        used = numbered | {name: found[name] for name in ("train", "val") if name in found}
    elif {"query", "gallery"} <= found.keys():
        used = {name: match for name, match in found.items() if name != "test"}
    elif "train" in found and {"val", "test"} & found.keys():
        used = {name: found[name] for name in ("train", "val", "test") if name in found}
    else:
        return {}
    drawn = ("query", "gallery")
    return {name: (role[1] or role[3], int(role[2] or 0) if role[1] in drawn else -1) for name, role in used.items()}


def _read_split_tree(
    root: Path, top: str, roles: dict[str, tuple[str, int]], images: Sequence[str], left_out: dict[str, str],
    notes: list[str], levels: tuple[int, int],
) -> HandTable:  # fmt: skip
    _refuse_half_draws(root, roles)
    places: dict[str, tuple[str, Folders]] = {}
    elsewhere = []
    for path in images:
        name, *below = PurePosixPath(path.removeprefix(top)).parts[:-1] or ("",)
        if name not in roles:
            elsewhere.append(path)
        elif not below:
            left_out[path] = f"it does not lie in {name}/<identity>/"
        else:
            places[path] = name, tuple(below)
    facts = facts_of(root, (folders for _, folders in places.values()), *levels) if places else {}
    aspect = aspect_columns(aspect_of(top.rstrip("/")) or aspect_of(root.name))
    numbered = any(trial > 0 for _, trial in roles.values()) or "query0" in roles
    firsts = _one_photograph(root, places) if numbered else {path: path for path in places}
    rows: dict[str, Row] = {}
    given = []
    for path, (name, folders) in places.items():
        first = firsts[path]
        row = rows.setdefault(first, {"path": first} | aspect | facts[folders])
        if row["identity"] != facts[folders]["identity"]:
            raise DataError(
                f"{root}: {first} and {path} are one photograph under the identities {row['identity']!r} and "
                f"{facts[folders]['identity']!r}; keep the right one"
            )
        given.append({"path": first, "role": roles[name][0], "trial": roles[name][1]})
    used = {path.rpartition("/")[2] for path in places}
    for path in elsewhere:
        if not numbered or path.rpartition("/")[2] not in used:
            name = path.removeprefix(top).split("/", 1)[0]
            left_out[path] = f"it lies only in {name}/, which is neither train, val, query nor gallery"
    split = pd.DataFrame(given, columns=["path", "role", "trial"])
    kept = list(rows.values())
    return HandTable.build("folder", root, kept, left_out, split, [*notes, *_told(kept)])


def _one_photograph(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """The first path of each photograph, by path: it lies once a draw, with the same name and content."""
    named: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        named[path.rpartition("/")[2]].append(path)
    several = [path for same in named.values() if len(same) > 1 for path in same]
    content = dict(zip(several, content_keys(root, several), strict=True))
    firsts: dict[tuple[str, str], str] = {}
    return {
        path: firsts.setdefault((name, content.get(path, "")), path) for name, same in named.items() for path in same
    }


def _refuse_half_draws(root: Path, roles: Iterable[str]) -> None:
    """Refuse a tree in which a draw has only its queries or only its gallery."""
    for name in sorted(roles):
        other = name.replace("query", "gallery") if "query" in name else name.replace("gallery", "query")
        if other not in roles:
            raise DataError(f"{root} holds {name}/ but no {other}/; add it, or remove {name}/")
