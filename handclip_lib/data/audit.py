"""What a researcher asks of a data set before training on it: counts, balance, sizes, and why images are missing."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from tqdm.auto import tqdm

from handclip_lib.data.images import open_image
from handclip_lib.data.splits import Split
from handclip_lib.data.table import HandTable

ATTRIBUTES = ("aspect", "gender", "skin_color", "age", "accessories", "nail_polish", "irregularities")
AGE_BANDS = {"<20": 0, "20-29": 20, "30-39": 30, "40+": 40}
"""Bands of years and where they begin, in which people are counted and figures reported."""
UNKNOWN = "unknown"

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
    names = f" ({', '.join(alone[:8])}{', …' if len(alone) > 8 else ''})" if alone else ""
    facts = {
        "protocol": meta["protocol"],
        "aspect": meta["aspect"],
        "identities up to this one train": "—" if meta["cutoff"] is None else str(meta["cutoff"]),
        "draws, seed": f"{meta['draws']}, {meta['seed']}",
        "test identities with one image, never a query": f"{len(alone)}{names}",
        **{f"note {number}": note for number, note in enumerate(meta["notes"], 1)},
        "checksum of the manifest": split.checksum[:16],
    }
    return pd.DataFrame({"fact": list(facts), "value": list(facts.values())})


def data_cautions(split: Split) -> list[str]:
    """What must be said with every figure on these data, a sentence each."""
    return ["The hands are drawn: no figure here is a result about people."] if split.meta["dataset"] == "drawn" else []


def left_out_reasons(table: HandTable) -> pd.DataFrame:
    """Group the images that were left out by reason: columns `reason`, `images`, `for example` (a path)."""
    if table.left_out.empty:
        return pd.DataFrame({"reason": ["nothing is left out"], "images": [0], "for example": [""]})
    grouped = table.left_out.groupby("reason", sort=False)["path"]
    frame = pd.DataFrame({"images": grouped.size(), "for example": grouped.first()})
    return frame.sort_values("images", ascending=False).reset_index(names="reason")


def attribute_counts(table: HandTable) -> pd.DataFrame:
    """Columns `attribute`, `value` (text; ages in bands of years), `images`, `identities`, of what is recorded."""
    images = table.images
    parts = []
    for attribute in ATTRIBUTES:
        values = images[attribute]
        if values.isna().all() or values.astype("string").eq("").all():
            continue
        grouped = images.groupby(as_groups(values), sort=True)["identity"]
        part = pd.DataFrame({"images": grouped.size(), "identities": grouped.nunique()})
        parts.append(part.rename_axis("value").reset_index().assign(attribute=attribute))
    if not parts:
        return pd.DataFrame(columns=["attribute", "value", "images", "identities"])
    return pd.concat(parts, ignore_index=True)[["attribute", "value", "images", "identities"]]


def as_groups(values: pd.Series) -> "pd.Series[str]":
    """The group of each image in an attribute, as text: ages in `AGE_BANDS`, "yes" and "no", or "unknown"."""
    if values.name == "age":
        edges = [*AGE_BANDS.values(), float("inf")]
        values = pd.cut(values.astype("Float64"), edges, right=False, labels=list(AGE_BANDS))
    return values.astype("string").replace({"True": "yes", "False": "no", "": UNKNOWN}).fillna(UNKNOWN)


def images_per_identity(table: HandTable) -> pd.Series:
    """Number of images of each identity, most first; the index is the identity."""
    return table.images.groupby("identity").size().sort_values(ascending=False, kind="stable")


def image_sizes(table: HandTable) -> pd.DataFrame:
    """Columns `path`, `width` and `height` (pixels, of the file's header); each must be readable (`decode_images`)."""
    paths = list(table.images["path"])

    def size(path: str) -> tuple[int, int]:
        with open_image(table.root / path) as image:
            return image.size

    with ThreadPoolExecutor() as pool:
        sizes = list(tqdm(pool.map(size, paths), total=len(paths), desc="image sizes", unit="image", leave=False))
    return pd.DataFrame({"path": paths, "width": [w for w, _ in sizes], "height": [h for _, h in sizes]})
