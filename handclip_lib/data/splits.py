"""Seeded, identity-disjoint splits: the published protocols, and a proportional one for other data."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from handclip_lib.data.content import content_keys, is_content
from handclip_lib.data.manifest import CROSS_SESSION, Split
from handclip_lib.data.table import ASPECTS, UNSPECIFIED, HandTable, identity_order, is_distractor, natural_order
from handclip_lib.errors import DataError
from handclip_lib.parameters.sets import WITH_PUBLISHED_IDS
from handclip_lib.terminal import counted, some_of

CUTOFFS = {"dorsal_r": 1050, "dorsal_l": 1037, "palmar_r": 1051, "palmar_l": 1042}
"""Largest identity that trains, per aspect of 11k Hands. Source: Baisa, ICPR 2022."""
HD_CUTOFF = 447
TRAIN_SHARE = 0.5
TRAIN_ONLY = "train_only"
"""What the protocol of a set is called of which nobody validates or is tested: one of `extra_data`."""
PROTOCOLS = ("auto", "standard", "hd", "proportional", CROSS_SESSION, "given", "test_only")


def make_split(
    table: HandTable, aspect: str = "dorsal_r", protocol: str = "auto", seed: int = 0, draws: int = 10
) -> Split:
    """Split a table into train, val and test images, and draw queries and galleries.

    A draw takes one gallery image of each test identity; its other test images are queries. Images are drawn by a
    keyed hash of seed, draw, identity and file name, so that the split is the same on every machine and in every
    folder order, and identities whose files have the same names (1.jpg, 2.jpg …) are drawn for themselves. The content
    of the files is recorded and part of the checksum, but nothing is drawn by it.

    Args:
        aspect: One of `ASPECTS`, or "all" for every image ("all" needs the proportional, cross_session or test_only
            protocol: the published cut-offs differ between aspects, and pooled they would test subjects that
            trained). A data set that records no aspect is taken whole, whichever is named, and its split says
            "unspecified".
        protocol: "standard" (11k Hands: identities up to the aspect's cut-off train), "hd", "proportional" (half of
            the people train), "cross_session" (the same, and each draw enrols everybody from one of their sessions
            and searches with their others), "given" (the folders say it), "test_only" (nobody trains: for a model
            that has seen nobody of this data set, twice as many are tested), or "auto" for the data set's own.

    Raises:
        DataError: The protocol does not fit the data, or there are too few identities for it.
    """
    if aspect not in (*ASPECTS, "all", UNSPECIFIED):
        raise DataError(f"unknown aspect {aspect!r}; choose from {', '.join(ASPECTS)}, all")
    if draws < 1:
        raise DataError(f"draws={draws}: at least one draw is needed")
    if protocol == "auto":
        usual = {"11k": "standard", "hd": "hd"}.get(table.dataset, "proportional")
        protocol = usual if table.given_split is None else "given"
    if protocol == "given":
        return _given(table, aspect, seed, draws)
    notes, worn = list(table.notes), table.images["accessories"].fillna(False).astype(bool)
    images = table.images[~worn]
    if worn.any():
        # a note is under the split's checksum: other words would make another split of the same photographs
        notes.append(f"{int(worn.sum())} images with accessories left out by the protocol")
    trains, cutoff = _rule(table, images, aspect, protocol, seed)
    there = [a for a in ASPECTS if (images["aspect"] == a).any()]
    if not there and protocol != "standard":
        aspect = UNSPECIFIED  # nothing may be labelled with the one that was asked for
    across = protocol == CROSS_SESSION
    own = images[images["aspect"] == aspect] if there and aspect != "all" else images
    if own.empty:
        holds = ", ".join(there) or "only images with accessories, which the protocol leaves out"
        raise DataError(f"{table.root} has no image of aspect {aspect!r} to split; it has {holds}")
    if across and (own["session"] == "").any():
        unknown = own["path"][own["session"] == ""].iloc[0]
        raise DataError(
            f"{table.root}: {unknown} is of no known session, which protocol={protocol!r} needs; name sessions by "
            "folders (session1), by -p session_level, or in a table's column session"
        )
    parts = [assign_roles(own, trains, seed, draws, notes, across)]
    if there and aspect != "all":
        for other in [a for a in ASPECTS if a != aspect]:
            rows = images[images["aspect"] == other]
            if rows.empty:
                notes.append(f"gallery 'all' has no images of {other}: the data set has none")
                continue
            other_trains, _ = _rule(table, images, other, protocol, seed)
            foreign = assign_roles(rows, other_trains, seed, draws, [], across)
            parts.append(foreign[foreign["role"] == "test"].assign(role="other"))
    rows = pd.concat(parts, ignore_index=True)
    return _recorded(table, rows, aspect, protocol, seed, draws, notes, cutoff)


def refuse_leak(trained: Split, tested: Split) -> tuple[bool, str]:
    """Refuse to test people that trained.

    A person is known by photographs: one that trained and is tested is a leak whatever the people and folders are
    called. Names decide inside one data set alone: one whose ids are published, or one that the two manifests share
    photographs of. Elsewhere a number such as 001 is another person.

    Returns:
        Whether it is known that nobody is both, and a sentence on what was compared.

    Raises:
        DataError: A photograph or a person trains or validates in one split and is tested in the other.
    """
    seen, asked = trained.of_people("train", "val"), tested.of_people("test")
    again = asked[(asked["content"] != "") & asked["content"].isin(seen["content"])]
    if len(again):
        first = again.iloc[0]
        there = seen[seen["content"] == first["content"]].iloc[0]
        raise DataError(
            f"{len(again)} of {len(asked)} tested photographs trained the model, such as {first['path']} of "
            f"{first['identity']}, which trained as {there['path']} of {there['identity']}: evaluate on photographs "
            "and people that it never saw"
        )
    both = set(seen["subject"]) & set(asked["subject"])
    some = some_of(sorted(both, key=identity_order), 5)
    n_seen, n_asked = seen["subject"].nunique(), asked["subject"].nunique()
    ours, theirs = tested.meta["dataset"], trained.meta["dataset"]
    if _one_set(trained, tested):
        if not both:
            are = "is" if n_asked == 1 else "are"
            return True, f"{counted(n_seen, 'person')} trained, {n_asked} {are} tested, and nobody is both."
        raise DataError(
            f"{len(both)} identities of the test split trained the model ({some}); evaluate on the split it was "
            f"trained with ({trained.meta['aspect']}, {trained.meta['protocol']}), or train and test on one "
            "proportional split"
        )
    of_one_name = "has the same name" if len(both) == 1 else "have the same names"
    shared = f"; {counted(len(both), 'person')} {of_one_name} there ({some})" if both else ""
    if not (seen["content"].all() and asked["content"].all()):
        return False, (
            f"The weights were trained on {theirs}, the test is on {ours}, and the content of not all photographs is "
            f"recorded: whether they are of other people is not known{shared}."
        )
    return True, (
        f"None of {len(asked)} tested photographs is one of the {len(seen)} that trained, and the two data sets "
        f"({theirs}, {ours}) share none: their people are taken for others{shared}."
    )


def known_people(trained: Split, split: Split) -> set[str]:
    """Training people of a split whom weights know that trained on another, told as `refuse_leak` tells people."""
    seen, ours = trained.of_people("train", "val"), split.of_people("train", "val")
    again = ours[(ours["content"] != "") & ours["content"].isin(seen["content"])]
    named = set(seen["subject"]) & set(ours["subject"]) if _one_set(trained, split) else set()
    return set(again["subject"]) | named


def _one_set(a: Split, b: Split) -> bool:
    """Whether equal names in two splits are one person's."""
    common = (set(a.images["content"]) & set(b.images["content"])) - {""}
    published = a.meta["dataset"] == b.meta["dataset"] and a.meta["dataset"] in WITH_PUBLISHED_IDS
    return bool(common) or a.checksum == b.checksum or published


def _rule(
    table: HandTable, images: pd.DataFrame, aspect: str, protocol: str, seed: int
) -> tuple[Callable[[str], bool], int | None]:
    """Which subjects train, and the cut-off where there is one."""
    if protocol == "test_only":
        return lambda identity: False, None
    if protocol in ("proportional", CROSS_SESSION):
        people = sorted(set(images["subject"][~is_distractor(images)]), key=lambda who: keyed(seed, "identity", who))
        chosen = set(people[: int(len(people) * TRAIN_SHARE)])
        return chosen.__contains__, None
    if protocol == "standard":
        if aspect == "all":
            raise DataError(
                "aspect='all' under the standard protocol would test subjects that trained: its cut-offs differ "
                "between aspects (1039, 1043, 1046 and 1050 train dorsal_r and test dorsal_l); "
                "use protocol='proportional'"
            )
        cutoff = CUTOFFS[aspect]
    elif protocol == "hd":
        cutoff = HD_CUTOFF
    else:
        raise DataError(f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    last = identity_order(str(cutoff))
    words = [subject for subject in set(images["subject"]) if identity_order(subject)[0] != last[0]]
    if words:
        raise DataError(
            f"{table.root}: identity {min(words)!r} is not a number, which protocol={protocol!r} compares with its "
            f"cut-off {cutoff}; use protocol='proportional'"
        )
    return lambda identity: identity_order(identity) <= last, cutoff


def assign_roles(
    images: pd.DataFrame, trains: Callable[[str], bool], seed: int, draws: int, notes: list[str], across: bool = False
) -> pd.DataFrame:
    """Give each image a role and its gallery draws; across: of one session of each identity, in turn."""
    rows = _manifest_rows(images)
    subjects = dict(zip(images["identity"], images["subject"], strict=True))
    people = rows[~is_distractor(rows)]
    roles: dict[str, str] = {}
    galleries: dict[str, list[str]] = defaultdict(list)
    single_image = 0
    for identity, group in people.groupby("identity", sort=False):
        paths = group["path"].tolist()
        if trains(subjects[str(identity)]):
            roles |= dict.fromkeys(paths, "train")
            # A subject's only image trains: validating on it would leave nothing to match it with.
            single_image += len(paths) == 1
            if len(paths) > 1:
                roles[_drawn(paths, seed, f"val|{identity}")] = "val"
        else:
            roles |= dict.fromkeys(paths, "test")
            visits = defaultdict(list)
            for path, session in zip(paths, group["session"] if across else [""] * len(paths), strict=True):
                visits[session].append(path)
            turns = sorted(visits, key=natural_order)
            for trial in range(draws):
                pool = visits[turns[trial % len(turns)]]
                galleries[_drawn(pool, seed, f"{trial}|{identity}")].append(str(trial))
    if single_image:
        notes.append(f"{single_image} train identities have one image: it trains, and they have no val image")
    rows["role"] = [roles.get(path, "distractor") for path in rows["path"]]
    rows["gallery_in"] = [" ".join(galleries.get(path, [])) for path in rows["path"]]
    return rows


def _manifest_rows(images: pd.DataFrame) -> pd.DataFrame:
    rows = images[["path", "identity", "subject", "aspect", "capture", "session"]].copy()
    rows["subject"] = rows["subject"].where(rows["subject"] != rows["identity"], "")
    return rows


def _drawn(paths: Sequence[str], seed: int, purpose: str) -> str:
    """The image whose file name has the smallest keyed hash."""
    return min(paths, key=lambda path: (keyed(seed, purpose, path.rsplit("/", 1)[-1]), path))


def keyed(seed: int, purpose: str, name: str) -> bytes:
    """A hash to order identities or file names by: the same on every machine and in every folder."""
    return hashlib.blake2b(f"{seed}|{purpose}|{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _given(table: HandTable, aspect: str, seed: int, draws: int) -> Split:
    """The split that the folders themselves say: with its draws, or with draws made here of people in test/."""
    given, notes = table.given_split, list(table.notes)
    if given is None:
        raise DataError(f"{table.root} says no split of its own; use protocol='proportional'")
    given = given.merge(table.images[["path", "subject"]], on="path")
    trains, drawn_here = given["role"].isin(["train", "val"]), (given["role"] == "test").any()
    tested = given[~trains & ((given["trial"] >= 0) | (given["role"] == "test"))]
    there = set(given.loc[trains, "subject"])
    both = there & set(tested["subject"])
    if both:
        some, where = min(both, key=identity_order), "test" if drawn_here else "query/gallery"
        raise DataError(f"{table.root}: identity {some!r} lies in both train/val and {where}; keep it in one")
    if not drawn_here:
        draws = _whole_draws(table, tested)
    known = table.images[table.images["path"].isin(given["path"])]
    said: list[str] = []
    rows = assign_roles(known, there.__contains__, seed, draws, said)
    if set(given.loc[given["role"] == "val", "subject"]) <= set(given.loc[given["role"] == "train", "subject"]):
        role = given[trains].drop_duplicates("path").set_index("path")["role"]
        rows["role"] = rows["path"].map(role).fillna("test")
    else:
        notes += ["val/ holds other people than train/: they train too, and one image of each person validates", *said]
    if not drawn_here:
        galleries = tested[tested["role"] == "gallery"].groupby("path")["trial"]
        rows["gallery_in"] = rows["path"].map(galleries.agg(lambda t: " ".join(map(str, sorted(t))))).fillna("")
    here = next((a for a in rows["aspect"] if a), "")
    if here and aspect not in (here, "all"):
        raise DataError(f"{table.root} is a split of {here}; say -p aspect {here}")
    return _recorded(table, rows, here or UNSPECIFIED, "given", seed, draws, notes)


def _whole_draws(table: HandTable, tested: pd.DataFrame) -> int:
    """The number of draws, each of which must hold every test image once: as a query, or in the gallery."""
    numbers = sorted(set(tested["trial"]))
    if not numbers:
        raise DataError(f"{table.root} has no photograph in query0/ and gallery0/; put the test images there")
    absent = set(range(len(numbers))) - set(numbers)
    if absent:
        raise DataError(f"{table.root} has {len(numbers)} draws but no query{min(absent)}/; number them from 0")
    places = tested.groupby(["path", "trial"])["role"].nunique().to_dict()
    paths = dict.fromkeys(tested["path"])
    wrong = [(path, trial) for path in paths for trial in numbers if places.get((path, trial)) != 1]
    if wrong:
        path, trial = wrong[0]
        raise DataError(
            f"{table.root}: {path} lies in {'both' if wrong[0] in places else 'neither'} of query{trial}/ and "
            f"gallery{trial}/ ({len(wrong)} such cases); each draw must hold every test image once"
        )
    return len(numbers)


def _unqueryable(table: HandTable, rows: pd.DataFrame, aspect: str, protocol: str) -> list[str]:
    """Tested identities that can be no query; a DataError where too few are left."""
    of_each, of_what = rows[rows["role"] == "test"].groupby("identity"), "images"
    per_identity = of_each.size()
    if protocol == CROSS_SESSION:
        per_identity, of_what = of_each["session"].nunique(), "sessions"
    found = sorted(per_identity.index[per_identity == 1], key=identity_order)
    able = len(per_identity) - len(found)
    if able < 2:  # an interval over identities needs two that have a query
        lacking = {"proportional": ", or protocol='test_only', which trains nobody", "test_only": ""}
        others = lacking.get(protocol, ", or protocol='proportional'")
        raise DataError(
            f"{table.root}, aspect {aspect}, protocol {protocol}: {counted(len(per_identity), 'test identity')}, "
            f"{able} of which with two {of_what} or more; at least two such identities are needed. "
            f"Use photographs of more people, more of each, or another aspect{others}"
        )
    return found


def whole_split(table: HandTable, aspect: str, seed: int = 0) -> Split:
    """The manifest of a table whose every photograph trains, named after an aspect if it records any."""
    rows = _manifest_rows(table.images).assign(role="train", gallery_in="")
    aspect = aspect if (rows["aspect"] != "").any() else UNSPECIFIED
    return _recorded(table, rows, aspect, TRAIN_ONLY, seed, 0, table.notes)


def _recorded(
    table: HandTable, rows: pd.DataFrame, aspect: str, protocol: str, seed: int, draws: int, notes: Sequence[str],
    cutoff: int | None = None,
) -> Split:  # fmt: skip
    unqueryable = [] if protocol == TRAIN_ONLY else _unqueryable(table, rows, aspect, protocol)
    counts = {role: int(n) for role, n in rows["role"].value_counts().sort_index().items()}
    meta: dict[str, Any] = {
        "dataset": table.dataset, "protocol": protocol, "aspect": aspect, "seed": seed, "draws": draws,
        "cutoff": cutoff, "counts": counts, "unqueryable": unqueryable, "notes": list(notes),
    }  # fmt: skip
    contents = [key if is_content(key) else "" for key in content_keys(table.root, rows["path"])]
    return Split.build(meta, rows.assign(content=contents))
