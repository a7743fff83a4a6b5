"""Photographs whose place or name says who they show: folders, CLIP-FH's trees of splits, and the HD data set."""

import re
from pathlib import Path

import pandas as pd

from handclip_lib.data.decoder import file_fault, is_image
from handclip_lib.data.table import ASPECTS, HandTable, capture_number, misplaced
from handclip_lib.errors import DataError
from handclip_lib.places import HD_DISTRACTORS, HD_IDENTITIES

DISTRACTOR_OFFSET = 1000
ROLE = re.compile(r"(train|val|query|gallery)([0-9]*)")


def read_folder(root: Path | str) -> HandTable:
    """Read a folder of folders; the identity of an image is the name of the folder it lies in.

    A tree `[train_val_test_split_<aspect>/]{train,val,query0…,gallery0…}/<identity>/*.jpg` also gives its split: the
    same photograph lies there once a draw, and is one row here. Its identity is the folder's name, never an index of
    the folder among its sisters (an index differs from split to split, and matches nobody).

    Raises:
        DataError: The folder is absent, holds no image in a folder of its own, or one file name has two identities.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise DataError(f"{root} does not exist; name the folder that holds one folder per identity")
    tree = _split_tree(root)
    if tree:
        return _read_split_tree(root, tree, _aspect_of(root.name) or _aspect_of(tree[0].parent.name))
    files, left_out = _image_files(root, root)
    rows = [_row(root, file, _aspect_of(file.parent.parent.name)) for file in files if file.parent != root]
    left_out |= {f.name: "it lies in no identity's folder" for f in files if f.parent == root}
    if not rows:
        raise DataError(f"{root} holds no photograph in a folder of its own; it needs <identity>/<photograph>")
    return HandTable.build("folder", root, rows, left_out)


def read_hd(root: Path | str) -> HandTable:
    """Read the PolyU Hand Dorsal data set; the identity is the number before the first underscore of a file's name.

    The images of `502-712` are distractors: gallery images of other people, whose identity is their number + 1000.

    Raises:
        DataError: The two folders are absent or hold no image.

    Source: Kumar & Xu, "Personal Identification using Minor Knuckle Patterns", CVPR Workshops 2014.
    """
    root = Path(root).absolute()
    if not (root / HD_IDENTITIES).is_dir():
        needs = "name the folder that holds 'Original Images'"
        raise DataError(misplaced(root, HD_IDENTITIES, f"no folder {HD_IDENTITIES!r}", needs))
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for folder, offset in ((HD_IDENTITIES, 0), (HD_DISTRACTORS, DISTRACTOR_OFFSET)):
        files, unread = _image_files(root, root / folder, "*")
        left_out |= unread
        for file in files:
            row = _row(root, file, "") | {"view": "dorsal"}
            number = re.match(r"([0-9]+)_", file.name)
            if number is None:
                left_out[str(row["path"])] = "its name does not begin with a number and an underscore"
            else:
                rows.append(row | {"identity": str(int(number[1]) + offset)})
    without = (
        f"{HD_DISTRACTORS!r} is absent: the gallery has no distractors, which makes the task easier than published"
    )
    notes = [] if (root / HD_DISTRACTORS).is_dir() else [without]
    return HandTable.build("hd", root, rows, left_out, notes=notes)


def _split_tree(root: Path) -> list[Path]:
    """The folders of roles, when the tree is one of splits."""
    candidates = [root, *sorted(root.glob("train_val_test_split_*"))]
    trees = [
        sorted(f for f in top.iterdir() if f.is_dir() and ROLE.fullmatch(f.name))
        for top in candidates
        if top.is_dir() and {"train", "query0", "gallery0"} <= {f.name for f in top.iterdir()}
    ]
    if len(trees) > 1:
        names = ", ".join(tree[0].parent.name for tree in trees)
        raise DataError(f"{root} holds several splits ({names}); name one of them as data_root")
    return trees[0] if trees else []


def _read_split_tree(root: Path, roles: list[Path], aspect: str) -> HandTable:
    rows: dict[str, dict[str, object]] = {}
    given: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for folder in roles:
        match = ROLE.fullmatch(folder.name)
        assert match is not None  # `_split_tree` kept only those that match
        files, faults = _image_files(root, folder)
        left_out |= faults
        for file in files:
            if file.parent.parent != folder:
                left_out[file.relative_to(root).as_posix()] = f"it does not lie in {folder.name}/<identity>/"
                continue
            row = _row(root, file, aspect)
            first = rows.setdefault(file.name, row)
            if first["identity"] != row["identity"]:
                raise DataError(
                    f"{root}: {file.name} lies under the identities {first['identity']!r} and {row['identity']!r}; "
                    "keep the right one"
                )
            given.append({"path": first["path"], "role": match[1], "trial": int(match[2] or -1)})
    split = pd.DataFrame(given, columns=["path", "role", "trial"])
    _refuse_half_draws(root, roles)
    return HandTable.build("folder", root, rows.values(), left_out | _elsewhere(root, roles, set(rows)), split)


def _refuse_half_draws(root: Path, roles: list[Path]) -> None:
    """Refuse a tree in which a draw has only its queries or only its gallery."""
    names = {folder.name for folder in roles}
    for name in sorted(names):
        other = name.replace("query", "gallery") if "query" in name else name.replace("gallery", "query")
        if other not in names:
            raise DataError(f"{root} holds {name}/ but no {other}/; add it, or remove {name}/")


def _elsewhere(root: Path, roles: list[Path], used: set[str]) -> dict[str, str]:
    """The photographs of folders that are no role (`train_all`, `test`) and lie in no role's folder either."""
    found: dict[str, str] = {}
    for folder in sorted(f for f in roles[0].parent.iterdir() if f.is_dir() and f not in roles):
        files, unread = _image_files(root, folder)
        reason = f"it lies only in {folder.name}/, which is neither train, val, query nor gallery"
        found |= unread | {f.relative_to(root).as_posix(): reason for f in files if f.name not in used}
    return found


def _image_files(root: Path, top: Path, below: str = "**/*") -> tuple[list[Path], dict[str, str]]:
    """Image files below a folder in a stable order (hidden ones are no photographs), and why some are not read."""
    files, left_out = [], {}
    for file in sorted(f for f in top.glob(below) if is_image(f) and f.is_file()):
        path = file.relative_to(root)
        if any(part.startswith(".") for part in path.parts):
            continue
        if reason := file_fault(file):
            left_out[path.as_posix()] = reason
        else:
            files.append(file)
    return files, left_out


def _aspect_of(folder_name: str) -> str:
    return next((aspect for aspect in ASPECTS if folder_name.endswith(aspect)), "")


def _row(root: Path, file: Path, aspect: str) -> dict[str, object]:
    view, _, side = aspect.partition("_")
    return {
        "path": file.relative_to(root).as_posix(), "identity": file.parent.name.strip(), "aspect": aspect,
        "view": view, "side": {"r": "right", "l": "left"}.get(side, ""), "capture": capture_number(file.name),
    }  # fmt: skip
