"""What a researcher asks of a data set before training on it, and `handclip data check ROOT`.

Counts, balance, sizes, what is missing, and why images are left out.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.data.content import data_files
from handclip_lib.data.decoder import is_image
from handclip_lib.data.open import CAUTIONS, READERS, open_dataset, recognised
from handclip_lib.data.splits import PROTOCOLS, Split, make_split
from handclip_lib.data.survey import POOR, UNREADABLE, Survey, measure_quality, reasons, survey
from handclip_lib.data.table import ASPECTS, UNSPECIFIED, HandTable, as_groups, copied_names, in_order, own_groups
from handclip_lib.errors import DataError
from handclip_lib.places import LABELS, METADATA, find_data_root
from handclip_lib.terminal import counted, one_line, some_of, visible

ATTRIBUTES = ("aspect", "gender", "skin_color", "age", "accessories", "nail_polish", "irregularities")
LAYOUTS = ("auto", *READERS)
CONVERTED = {"CMYK": "CMYK", "P": "palette", "PA": "palette", "1": "1-bit", "RGBA": "transparent", "LA": "transparent"}
"""Modes whose images are converted to RGB in a way that a reader may want to know of, deep samples apart."""

SINGULAR = {
    "images": "image", "photographs": "photograph", "identities": "identity", "people": "person", "rows": "row",
    "folders": "folder", " have": " has", " are": " is", " were": " was", " stay": " stays", " record": " records",
}  # fmt: skip
ONE = re.compile(r"\b1 (\w+ )?(images|photographs|identities|people|rows|folders)( have| are| were| stay| record)?\b")

PUBLISHED_COUNTS = pd.DataFrame(
    {
        "dorsal_r": (72, 890, 72, 71, 1042, 971, 71, 290),
        "dorsal_l": (73, 735, 73, 73, 1061, 988, 73, 290),
        "palmar_r": (72, 905, 72, 71, 988, 917, 71, 290),
        "palmar_l": (76, 928, 76, 75, 1023, 948, 75, 290),
    },
    index=["train identities", "train", "val", "test identities", "test", "query", "gallery aspect", "gallery all"],
)
"""Images and identities of 11k Hands by aspect, standard protocol. Source: Baisa, "Multi-Branch with Attention Network
for Hand-Based Person Recognition", ICPR 2022; counted from the metadata (Afifi 2019)."""


def split_counts(split: Split) -> pd.DataFrame:
    """Count what a split holds: columns `count`, `found` and, where the protocol has it, `published`.

    Query and gallery are those of one draw.
    """
    roles, identity, draw = split.images["role"], split.images["identity"], split.draw(0, "aspect")
    images = {role: int((roles == role).sum()) for role in ("train", "val", "test")}
    people = {role: identity[roles == role].nunique() for role in ("train", "test")}
    counts = (
        people["train"], images["train"], images["val"], people["test"], images["test"], len(draw.query_paths),
        len(draw.gallery_paths), len(split.draw(0, "all").gallery_paths),
    )  # fmt: skip
    frame = pd.DataFrame({"count": PUBLISHED_COUNTS.index, "found": counts})
    aspect = split.meta["aspect"]
    if split.meta["protocol"] == "standard" and aspect in PUBLISHED_COUNTS:
        frame["published"] = PUBLISHED_COUNTS[aspect].to_numpy()
    return frame


def split_facts(split: Split) -> pd.DataFrame:
    """What a reader must know of a split to read its figures: columns `fact` and `value` (text)."""
    meta = split.meta
    alone = meta["unqueryable"]
    once = "session" if split.crosses_sessions else "image"
    names = f" ({some_of(alone, 8)})" if alone else ""
    facts = [
        ("protocol", meta["protocol"]),
        ("aspect", meta["aspect"]),
        ("in each draw", _drawn(split)),
        ("identities up to this one train", "—" if meta["cutoff"] is None else str(meta["cutoff"])),
        ("draws, seed", f"{meta['draws']}, {meta['seed']}"),
        (f"test identities with one {once}, never a query", f"{len(alone)}{names}"),
        *((f"note {number}", _in_singular(note)) for number, note in enumerate(meta["notes"], 1)),
        ("checksum of the manifest", split.checksum[:16]),
    ]
    return pd.DataFrame(facts, columns=["fact", "value"])


def _in_singular(note: str) -> str:
    """A note as it is read: under a split's checksum it has the words of many, for others would make another split."""
    return ONE.sub(lambda found: f"1 {found[1] or ''}{SINGULAR[found[2]]}{SINGULAR.get(found[3], '')}", note)


def _drawn(split: Split) -> str:
    """What is enrolled and what searched in each draw of a split, in words."""
    tested = split.identities("test")
    enrolled = (pd.Series(draw.gallery_ids).value_counts().reindex(sorted(tested)) for draw in split.draws())
    if not all((number == 1).all() for number in enrolled):
        return "the gallery and query images that the folders name"
    asked = "images of other sessions" if split.crosses_sessions else "other images"
    everybody = "the one tested identity" if len(tested) == 1 else f"each of {len(tested)} tested identities"
    return f"one gallery image of {everybody}; their {asked} are queries"


def reading_facts(table: HandTable) -> pd.DataFrame:
    """What was read, and what was put right or could not be known: columns `fact` and `value` (text)."""
    images = table.images
    sessions, several = _sessions(images)
    facts = [
        ("data set, folder", f"{table.dataset}, {one_line(table.root)}"),
        ("images", str(len(images))),
        ("identities", f"{images['identity'].nunique()}, of {counted(images['subject'].nunique(), 'person')}"),
        ("sessions", f"{sessions}; {counted(several, 'identity')} in several" if sessions else "not known"),
        ("images with a capture number", str(int(images["capture"].notna().sum()))),
        ("left out", counted(len(table.left_out), "image")),
        *((f"note {number}", _in_singular(note)) for number, note in enumerate(table.notes, 1)),
    ]
    return pd.DataFrame(facts, columns=["fact", "value"])


def _sessions(images: pd.DataFrame) -> tuple[int, int]:
    """How many sessions are known, and how many identities are of several."""
    known = images[images["session"] != ""]
    return known["session"].nunique(), int((known.groupby("identity")["session"].nunique() > 1).sum())


def data_cautions(split: Split) -> list[str]:
    """What must be said with every figure on these data, a sentence each."""
    found = [said for dataset, said in CAUTIONS.items() if dataset == split.meta["dataset"]]
    tested = split.of_people("test")
    subjects = tested["subject"].nunique()
    if subjects < tested["identity"].nunique():
        parts = f"{counted(tested['identity'].nunique(), 'identity')} tested are of {counted(subjects, 'person')}"
        found.append(f"The {parts}: counts of people here, and intervals over them, take each for a person of its own.")
    if (tested["session"] != "").any() and not split.crosses_sessions:
        found.append("Queries and their gallery images may be of one session: protocol cross_session parts them.")
    return found + [f"{said}." for said in copied_names(split.identities("test"))]


def left_out_reasons(table: HandTable) -> pd.DataFrame:
    """Group the images that were left out by reason: columns `reason`, `images`, `for example` (a path)."""
    if table.left_out.empty:
        return pd.DataFrame(
            {"reason": ["every image that was found could be used"], "images": [0], "for example": [""]}
        )
    grouped = table.left_out.groupby("reason", sort=False)["path"]
    frame = pd.DataFrame({"images": grouped.size(), "for example": grouped.first()})
    return frame.sort_values("images", ascending=False).reset_index(names="reason")


def data_conclusion(table: HandTable, split: Split) -> str:
    """What there is, who is tested and what takes no part, as a sentence without its full stop."""
    whose = "identity" if (table.images["subject"] != table.images["identity"]).any() else "person"
    there = f"{counted(len(table.images), 'image')} of {counted(table.images['identity'].nunique(), whose)}"
    tested = len(split.identities("test"))
    return f"{there}; {counted(tested, whose)} {'is' if tested == 1 else 'are'} tested; {no_part(table, split)}"


def no_part(table: HandTable, split: Split) -> str:
    """How many images could not be used, and how many others the protocol does not use, such as with accessories."""
    unused = len(set(table.images["path"]) - set(split.images["path"]))
    others = f"{counted(unused, 'other')} {'is' if unused == 1 else 'are'} not in this split"
    return f"{counted(len(table.left_out), 'image')} cannot be used, {others}"


def attribute_counts(table: HandTable) -> pd.DataFrame:
    """Columns `attribute`, `value` (text; ages in bands of years), `images`, `identities`, of what is recorded."""
    images = table.images
    parts = []
    for attribute in (*ATTRIBUTES, *own_groups(images)):
        values = images[attribute]
        if values.isna().all() or values.astype("string").eq("").all():
            continue
        grouped = images.groupby(as_groups(values))["identity"]
        part = pd.DataFrame({"images": grouped.size(), "identities": grouped.nunique()})
        part = part.reindex(in_order(attribute, part.index))
        parts.append(part.rename_axis("value").reset_index().assign(attribute=attribute))
    if not parts:
        return pd.DataFrame(columns=["attribute", "value", "images", "identities"])
    return pd.concat(parts, ignore_index=True)[["attribute", "value", "images", "identities"]]


def images_per_identity(table: HandTable) -> pd.Series:
    """Number of images of each identity, most first; the index is the identity."""
    return table.images.groupby("identity").size().sort_values(ascending=False, kind="stable")


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; as text, what the command prints.

    Attributes:
        table: The data set, less the images that cannot be read, as far as was looked.
        protocol: The one that was planned, "auto" for the data set's own where none could be.
        protocols: For each aspect what its split holds (see `split_counts`), or why there is none.
        notes: What was put right or converted, a sentence each.
        quality: `measure_quality` of each image, where every one was decoded.
    """

    table: HandTable
    protocol: str
    protocols: Mapping[str, pd.DataFrame | str]
    notes: tuple[str, ...]
    quality: pd.DataFrame | None

    @property
    def usable(self) -> bool:
        """True when at least one aspect can be split into train, query and gallery."""
        return any(isinstance(found, pd.DataFrame) for found in self.protocols.values())

    def as_json(self) -> str:
        """All of it as JSON; paths are relative to `root`."""
        images = self.table.images
        sessions, several = _sessions(images)
        found = {
            "root": str(self.table.root), "dataset": self.table.dataset, "images": len(images),
            "identities": images["identity"].nunique(), "subjects": images["subject"].nunique(),
            "sessions": sessions, "identities_of_several_sessions": several,
            "with_capture_number": int(images["capture"].notna().sum()),
            "attributes": attribute_counts(self.table).to_dict("records"), "protocol": self.protocol,
            "splits": {
                aspect: split if isinstance(split, str) else split.set_index("count")["found"].to_dict()
                for aspect, split in self.protocols.items()
            },
            "left_out": self.table.left_out[["path", "reason"]].to_dict("records"), "notes": self.notes,
            "quality": None if self.quality is None else self.quality[self.quality["fault"] != ""].to_dict("records"),
            "usable": self.usable,
        }  # fmt: skip
        return json.dumps(found, indent=1)

    def __str__(self) -> str:
        return "\n".join(visible(line) for part in self._parts() for line in part.splitlines())

    def _parts(self) -> Iterator[str]:
        images = self.table.images
        yield one_line(self.table.root)
        people = images["subject"].nunique()
        of_people = "" if people == images["identity"].nunique() else f" (hands of {counted(people, 'person')})"
        what = f"{counted(len(images), 'image')} of {counted(images['identity'].nunique(), 'identity')}{of_people}"
        yield f"data set {self.table.dataset!r}: {what}"
        sessions, several = _sessions(images)
        if sessions:
            were = f"{counted(several, 'identity')} {'was' if several == 1 else 'were'} photographed in several"
            yield f"{counted(sessions, 'session')}; {were}"
        yield from _attributes(self.table)
        yield from _protocols(self.protocol, self.protocols)
        reasons = left_out_reasons(self.table)
        yield f"\nLeft out: {counted(len(self.table.left_out), 'image')}"
        for row in reasons[reasons["images"] > 0].itertuples(index=False):
            yield one_line(f"  {row.images} × {row.reason} ({row[2]})")
        if self.notes:
            yield "\nNotes"
            yield from (one_line(f"  {_in_singular(note)}") for note in self.notes)
        if self.quality is None:
            yield "\nThe head of each file was read and no image decoded; --deep decodes each."
        else:
            yield f"\nEvery image was decoded; {len(images)} can be used."
            for fault, rows in self.quality.groupby("fault"):
                if fault in POOR:
                    yield one_line(f"  {len(rows)} of them × {rows['why'].iloc[0]} ({rows['path'].iloc[0]})")
        if not self.usable:
            own = ", the data set's own" if self.protocol == "auto" else ""
            yield f"No split by protocol {self.protocol!r}{own}: see the reasons above; another: --protocol"


def check(
    root: Path | str, dataset: str = "auto", deep: bool = False, progress: bool = True, protocol: str = "auto",
    sample_range: float = 0, **opened: Any,
) -> CheckReport:  # fmt: skip
    """Look at a data folder.

    Args:
        root: The folder, as `find_data_root` finds it.
        dataset: One of `LAYOUTS`; "auto" recognises it.
        deep: Decode every image, to find those that are damaged, blank or unfocused.
        protocol, sample_range: As `make_split` and `survey` take them.
        opened: How the table is read, as `open_dataset` takes it: identity, identity_level, session_level.

    Raises:
        DataError: The protocol is unknown, the folder is not a data set, or none of its images can be used.
    """
    if dataset not in LAYOUTS:
        raise DataError(f"unknown dataset {dataset!r}; choose from {', '.join(LAYOUTS)}")
    if protocol not in PROTOCOLS:
        raise DataError(f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    folder = find_data_root(str(root))
    if dataset == "auto":
        dataset = "folder" if opened.get("identity_level") or opened.get("session_level") else recognised(folder)
    table = open_dataset(dataset, str(folder), **opened)
    paths = list(table.images["path"])
    seen = survey(table.root, paths, sample_range, progress)
    quality = measure_quality(seen, paths, progress) if deep else None
    failures = seen.failures if quality is None else reasons(quality, UNREADABLE)
    table = table.without(failures)
    there, made = set(table.images["aspect"]), protocol
    found: dict[str, pd.DataFrame | str] = {}
    for aspect in [aspect for aspect in ASPECTS if aspect in there] or [UNSPECIFIED]:
        try:
            split = make_split(table, "all" if aspect == UNSPECIFIED else aspect, protocol)
            found[aspect], made = split_counts(split), split.meta["protocol"]
        except DataError as error:
            found[aspect] = str(error)
    named = {METADATA, LABELS if table.dataset == "csv" else "", *table.left_out["path"]}
    others = [path for path in data_files(table.dataset, folder) if not is_image(path) and path not in named]
    many = counted(len(others), "file")
    said = [f"{many} without a photograph's name, not looked at ({others[0]})"] if others else []
    return CheckReport(table, made, found, (*table.notes, *seen.notes, *_converted(seen, failures), *said), quality)


def _converted(seen: Survey, failures: Mapping[str, str]) -> list[str]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for path, header in seen.headers.items():
        if header.mode in CONVERTED and not header.samples and path not in failures:
            kinds[CONVERTED[header.mode]].append(path)
    return [
        f"{counted(len(paths), f'{kind} image')} {'is' if len(paths) == 1 else 'are'} converted to RGB ({paths[0]})"
        for kind, paths in kinds.items()
    ]


def _attributes(table: HandTable) -> Iterator[str]:
    counts = attribute_counts(table)
    for attribute, values in counts.groupby("attribute", sort=False):
        yield f"\n{attribute}"
        names = values["value"].map(one_line)
        width = max(names.str.len())
        for name, images, identities in zip(names, values["images"], values["identities"], strict=True):
            if images:
                noun = "image " if images == 1 else "images"
                yield f"  {name:<{width}}  {images:>6} {noun} of {counted(identities, 'identity')}"


def _protocols(protocol: str, protocols: Mapping[str, pd.DataFrame | str]) -> Iterator[str]:
    """One table of all aspects' splits, then the reasons of those that have none."""
    columns, published = {}, ""
    for aspect, found in protocols.items():
        if isinstance(found, pd.DataFrame):
            columns[aspect] = found.set_index("count")["found"].astype(str)
            if "published" in found:
                columns[aspect] += " of " + found.set_index("count")["published"].astype(str)
                published = ", found of published"
    if columns:
        yield f"\nProtocol {protocol}{published}"
        yield pd.DataFrame(columns).rename_axis(None).to_string()
    for aspect, found in protocols.items():
        if isinstance(found, str):
            yield f"\nNo split of {aspect}: {found}"
