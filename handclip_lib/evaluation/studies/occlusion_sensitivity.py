"""Which parts of a query decided: what its lead over other people loses when one is covered, or where attention leads.

Covering asks the model itself, a hundred times a query; a ViT's attention is asked once, and answers without a unit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from handclip_lib.backbone import image_tower
from handclip_lib.backbone.image_tower import attends, attention_relevance
from handclip_lib.backbone.load import Backbone
from handclip_lib.data.batches import plain
from handclip_lib.data.images import DecodedImages
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features, key_of, remembered
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.models.trained import Trained

Encode = Callable[[np.ndarray], np.ndarray]
Encodes = Backbone | Trained
CELLS, WINDOW, FADE = 12, 1.5, 0.25
RIM = 16  # the outermost sixteenth of the shorter side: background, but for the wrist
UNCHANGED = 8  # of 255: a cover that moves no pixel further is that of background by background
_MADE_BY = (Path(__file__), Path(image_tower.__file__))
WAY = blake2b(b"".join(file.read_bytes() for file in _MADE_BY), digest_size=8).hexdigest()
"""Of the code that makes maps: those that another made are made again."""
ANOTHER_MODEL = 0.01  # cosine: far above what batch size or device can move, far below what another model does


@dataclass(frozen=True)
class DecisionMap:
    """How much of a decision rests on each part of a query, beside the scores of its best match and best wrong image.

    `parts`, (rows, columns), are above 0 where a part spoke for the right person, below 0 where for someone else. By
    occlusion it is what the margin falls when the window at each cell is covered, in units of the cosine, -4..4; by
    relevance it has no unit.
    """

    parts: np.ndarray
    match_score: float
    wrong_score: float
    by: str = "occlusion"

    @property
    def margin(self) -> float:
        """Lead of the best match over someone else, -2..2; not above 0 for a miss."""
        return self.match_score - self.wrong_score


def example_queries(result: ProtocolResult) -> pd.DataFrame:
    """Choose queries of the first draw by their margin, the lead of the best match over the best image of another.

    Rows of `result.per_query`, the greatest `margin` first, one of each `kind` (clear hit, typical, narrow hit, narrow
    miss, clear miss) as far as there are any: the extremes alone mislead. A single hit or miss is a clear one.
    """
    rows = result.per_query[result.per_query["draw"] == 0]
    if rows.empty:
        raise EvaluationError("the first draw has no query to choose from; leave out fewer bursts, or take more data")
    rows = rows.assign(margin=rows["match_score"] - rows["wrong_score"])
    rows = rows.sort_values(["margin", "path"], ascending=[False, True], ignore_index=True)
    hits, misses = (np.flatnonzero(rows["hit"] == hit).tolist() for hit in (1, 0))
    from_median = np.argsort((rows["margin"] - rows["margin"].median()).abs(), kind="stable").tolist()
    kinds: dict[int, str] = {}
    for kind, places in (
        ("clear hit", hits), ("clear miss", misses[::-1]), ("narrow hit", hits[::-1]), ("narrow miss", misses),
        ("typical", from_median),
    ):  # fmt: skip
        kinds |= dict.fromkeys([place for place in places if place not in kinds][:1], kind)
    chosen = sorted(kinds)
    examples = rows.iloc[chosen].reset_index(drop=True)
    examples.insert(0, "kind", [kinds[place] for place in chosen])
    return examples


def decision_maps(
    queries: pd.DataFrame, images: DecodedImages, model: Encodes, *, by: str = "auto", batch_size: int = 32
) -> list[DecisionMap]:
    """A map of each of the rows that `example_queries` chose; another model or other pixels are refused.

    Each is kept in the feature cache.

    Args:
        by: "occlusion"; "auto": `relevance_map` where the model is a ViT that attends as CLIP's do, else occlusion.
    """
    attending = model if by == "auto" and isinstance(model, Backbone) and attends(model.model.visual) else None
    maps = []
    for row in queries.to_dict("records"):
        query, match, wrong = three = images.pixels[images.rows([row["path"], row["match_path"], row["wrong_path"]])]
        make = partial(occlusion_map, query, match, wrong, model.encode_image, batch_size=batch_size)
        if attending:
            make = partial(relevance_map, query, match, wrong, attending)
        maps.append(_kept(model, three, make))
        off = max(abs(getattr(maps[-1], score) - row[score]) for score in ("match_score", "wrong_score"))
        if off > ANOTHER_MODEL:
            said = f"{row['path']}: encode gives a cosine that is {off:.3f} off the ranking's"
            raise EvaluationError(f"{said}; hand over the encoder and the images that the ranking was made with")
    return maps


def _kept(model: Encodes, three: np.ndarray, make: "partial[DecisionMap]") -> DecisionMap:
    """A map of a query, its match and the other image that was made before by these weights, or is made now."""

    def as_row() -> np.ndarray:
        made = make()
        return np.array([[*made.parts.shape, made.match_score, made.wrong_score, *made.parts.ravel()]])

    by = make.func.__name__
    content = blake2b(three.tobytes(), digest_size=16).hexdigest()
    key = f"{key_of(model)}|{by}|{WAY}|{three.shape}|{content}"
    (rows, columns, match_score, wrong_score, *parts), *_ = remembered(key, 1, as_row).tolist()
    return DecisionMap(np.reshape(parts, (int(rows), int(columns))), match_score, wrong_score, by.removesuffix("_map"))


def relevance_map(query: np.ndarray, match: np.ndarray, wrong: np.ndarray, model: Backbone) -> DecisionMap:
    """`attention_relevance` of a query's margin: a patch of it speaks for the right person, or for someone else.

    Args:
        query, match, wrong: uint8 (height, width, 3), as the model takes them.
    """
    three = np.stack([query, match, wrong])
    own, right, other = _embedded(three, model.encode_image, "the query, its match or the other image")
    image = plain(torch.from_numpy(three[:1]).to(model.device), model.normalisation)
    direction = torch.from_numpy((right - other).astype(np.float32)).to(model.device)
    parts = attention_relevance(model.model.visual, image, direction).double().cpu().numpy()
    return DecisionMap(parts, float(own @ right), float(own @ other), "relevance")


def occlusion_map(
    query: np.ndarray, match: np.ndarray, wrong: np.ndarray, encode: Encode, *,
    cells: int = CELLS, window: float = WINDOW, fade: float = FADE, batch_size: int = 32,
) -> DecisionMap:  # fmt: skip
    """Cover one window of a query after the other, and measure how far the margin falls.

    Match and wrong image stay the same, whatever a cover would bring to the top of the gallery. The map says what this
    model would miss, not where identity lies. A window that is the background already is not encoded, for its fall is
    0: at most 0.002 off with `tiny`, on drawn hands and on 11k Hands, of whose windows it is half.

    The cover takes the colour of the background, the median of the image's rim, as if the part were not there. Zeiler
    & Fergus cover with grey, and the mean colour of the image is the usual choice; on a white background either is an
    object of its own: the windows without any hand, 0.55 of them, then carry about half of all that falls, against
    0.01 here (`tiny`, drawn hands and 11k Hands).

    Args:
        query, match, wrong: uint8 (height, width, 3), of one size.
        cells: Positions of the window along each side, evenly spaced.
        window: Side of the window, of the image's proportions, in cells, 1 or more (less leaves parts uncovered).
        fade: Share of the window's side over which its edge fades, 0..1; 0 for a sharp edge.

    Source: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, §4.2.
    """
    _check([query, match, wrong], cells, window, fade, batch_size)
    own, right, other = _embedded(np.stack([query, match, wrong]), encode, "the query, its match or the other image")
    match_score, wrong_score = float(own @ right), float(own @ other)
    down, across = (_profiles(length, cells, window, fade) for length in query.shape[:2])
    colour = _background(query)
    change = np.abs(colour - query).max(2)
    strongest = [(change * profile[:, None] * along).max() for profile in down for along in across]
    changed = np.flatnonzero(np.array(strongest) > UNCHANGED)
    fall = np.zeros(cells**2)
    for start in range(0, len(changed), batch_size):
        at = changed[start : start + batch_size]
        row, column = np.divmod(at, cells)
        share = (down[row, :, None] * across[column, None, :])[..., None]
        pixels = np.rint(query + share * (colour - query)).astype(np.uint8)
        covered = _embedded(pixels, encode, f"the image covered at cells {at[0]} … {at[-1]}")
        fall[at] = match_score - wrong_score - covered @ (right - other)
    return DecisionMap(fall.reshape(cells, cells), match_score, wrong_score)


def _background(image: np.ndarray) -> np.ndarray:
    width = -(-min(image.shape[:2]) // RIM)
    rim = np.ones(image.shape[:2], bool)
    rim[width:-width, width:-width] = False
    return np.median(image[rim], axis=0)


def _profiles(length: int, cells: int, window: float, fade: float) -> np.ndarray:
    """How much the window at each cell covers each pixel along a side, float64 (cells, length), 0..1."""
    side = window * length / cells
    middle = (np.arange(cells) + 0.5) * length / cells
    inside = side / 2 - np.abs(np.arange(length) + 0.5 - middle[:, None])
    return np.clip(inside / max(1.0, fade * side) + 0.5, 0, 1)


def _embedded(pixels: np.ndarray, encode: Encode, what: str) -> np.ndarray:
    return Features.normalised([what] * len(pixels), np.asarray(encode(pixels))).embeddings.astype(np.float64)


def _check(images: Sequence[np.ndarray], cells: int, window: float, fade: float, batch_size: int) -> None:
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise EvaluationError(f"the image is {image.dtype} {image.shape}; uint8 (height, width, 3) is wanted")
    if len({image.shape for image in images}) > 1:
        shapes = "{}, {} and {}".format(*(image.shape for image in images))
        raise EvaluationError(f"query, match and wrong have shapes {shapes}; one size is wanted")
    shorter = min(images[0].shape[:2])
    if not 2 <= cells <= shorter:
        raise EvaluationError(f"cells={cells}: from 2 to the shorter side in pixels, {shorter}, are wanted")
    if not 1 <= window <= cells:
        raise EvaluationError(f"window={window}: 1 to {cells} cells are wanted; less leaves parts uncovered")
    if not 0 <= fade <= 1 or batch_size < 1:
        raise EvaluationError(f"fade={fade}, batch_size={batch_size}: a share in 0..1 and at least 1 image are wanted")
