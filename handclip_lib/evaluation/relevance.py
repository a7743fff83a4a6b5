"""Which part of the hand decided: cover a part of the query, and see how far its ranking falls."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from handclip_lib.data.images import DecodedImages
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.protocol import ProtocolResult

Encode = Callable[[np.ndarray], np.ndarray]
CELLS, WINDOW, FADE = 12, 1.5, 0.25
COVERS = ("background", "mean")
RIM = 16  # the outermost sixteenth of the shorter side: background, but for the wrist
ANOTHER_MODEL = 0.01  # cosine: far above what batch size or device can move, far below what another model does


@dataclass(frozen=True)
class Relevance:
    """How much of a decision rests on each part of a query.

    Attributes:
        decision: Fall of the margin when the window at each cell is covered, in units of the cosine, float64
            (cells, cells), -4..4. Above 0 the part spoke for the right person, below 0 for someone else.
        embedding: Fall of the cosine to the embedding of the uncovered query, likewise, 0..2: which part makes the
            embedding, whoever is compared.
        match_score, wrong_score: Cosine of the uncovered query to its best match and to the best image of someone
            else, -1..1.
    """

    decision: np.ndarray
    embedding: np.ndarray
    match_score: float
    wrong_score: float

    @property
    def margin(self) -> float:
        """Lead of the best match over someone else, -2..2; not above 0 for a miss."""
        return self.match_score - self.wrong_score


def telling_queries(result: ProtocolResult, n: int = 1, draw: int = 0) -> pd.DataFrame:
    """Choose queries by their margin, the lead of the best match over the best image of someone else.

    Looking at the extremes alone misleads, so the query nearest to the median margin is among them.

    Args:
        result: Of one model on one gallery.
        n: Queries of each kind, as far as there are any; none is chosen twice.
        draw: The draw to choose from.

    Returns:
        Rows of `result.per_query` with `kind` (clear hit, typical, narrow hit, narrow miss, clear miss) and `margin`
        in units of the cosine, the greatest margin first. A single hit or miss is a clear one.

    Raises:
        EvaluationError: n is below 1, or the result has no such draw.
    """
    rows = result.per_query[result.per_query["draw"] == draw]
    if n < 1 or rows.empty:
        raise EvaluationError(
            f"n={n}, draw={draw}: at least one query of each kind is wanted, of draw 0 to {len(result.draws) - 1}"
        )
    rows = rows.assign(margin=rows["match_score"] - rows["wrong_score"])
    rows = rows.sort_values(["margin", "path"], ascending=[False, True], ignore_index=True)
    hits, misses = (np.flatnonzero(rows["hit"] == hit) for hit in (1, 0))
    from_median = np.argsort((rows["margin"] - rows["margin"].median()).abs(), kind="stable")
    kinds: dict[int, str] = {}
    for kind, places in (
        ("clear hit", hits), ("clear miss", misses[::-1]), ("narrow hit", hits[::-1]), ("narrow miss", misses),
        ("typical", from_median),
    ):  # fmt: skip
        free = [int(place) for place in places if place not in kinds]
        kinds |= dict.fromkeys(free[:n], kind)
    chosen = sorted(kinds)
    told = rows.iloc[chosen].reset_index(drop=True)
    told.insert(0, "kind", [kinds[place] for place in chosen])
    return told


def relevance_of_queries(
    queries: pd.DataFrame,
    images: DecodedImages,
    encode: Encode,
    *,
    cells: int = CELLS,
    cover: str = COVERS[0],
    batch_size: int = 32,
) -> list[Relevance]:
    """`decision_relevance` of each of the rows that `telling_queries` chose.

    Args:
        queries: Columns path, match_path, wrong_path, match_score, wrong_score.
        images: Decoded images of at least those paths.
        encode: The model that made the ranking; see `decision_relevance`.
        cells, cover, batch_size: Likewise.

    Raises:
        EvaluationError: The ranking was made by another model or of other pixels; or as `decision_relevance`.
    """
    found = []
    for row in queries.to_dict("records"):
        query, match, wrong = images.pixels[images.rows([row["path"], row["match_path"], row["wrong_path"]])]
        relevance = decision_relevance(query, match, wrong, encode, cells=cells, cover=cover, batch_size=batch_size)
        off = max(abs(relevance.match_score - row["match_score"]), abs(relevance.wrong_score - row["wrong_score"]))
        if off > ANOTHER_MODEL:
            raise EvaluationError(
                f"{row['path']}: encode gives a cosine that is {off:.3f} off the ranking's; hand over the encoder and "
                "the images that the ranking was made with"
            )
        found.append(relevance)
    return found


def decision_relevance(
    query: np.ndarray, match: np.ndarray, wrong: np.ndarray, encode: Encode, *,
    cells: int = CELLS, window: float = WINDOW, fade: float = FADE, cover: str = COVERS[0], batch_size: int = 32,
) -> Relevance:  # fmt: skip
    """Cover one window of a query after the other, and measure how far the margin falls.

    The margin is the cosine to the best match less the cosine to the best image of someone else; both images stay
    the same, whatever a cover would bring to the top of the gallery. The map says what this model would miss, not
    where identity lies.

    The cover takes the colour of the background, as if the part were not there. Zeiler & Fergus cover with grey, and
    the mean colour of the image is the usual choice; on a white background either is an object of its own: the
    windows without any hand, 0.55 of them, then carry about half of all relevance, against 0.01 here (`tiny`, drawn
    hands and 11k Hands).

    Args:
        query, match, wrong: uint8 (height, width, 3), of one size.
        encode: uint8 (b, height, width, 3) to embeddings (b, size) of any length, such as `Backbone.encode_image`.
        cells: Positions of the window along each side, evenly spaced.
        window: Side of the window in cells, 1 or more (less would leave parts that are never covered); it has the
            proportions of the image.
        fade: Share of the window's side over which its edge fades, 0..1; 0 for a sharp edge.
        cover: "background", the median colour of the image's rim, or "mean", the mean colour of the image.
        batch_size: Images encoded at once; cells² + 3 are encoded.

    Raises:
        EvaluationError: An argument is out of range, or an embedding is not finite or zero.

    Source: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, §4.2.
    """
    for image in (query, match, wrong):
        _check_image(image, cells)
    if not query.shape == match.shape == wrong.shape:
        raise EvaluationError(
            f"query, match and wrong have shapes {query.shape}, {match.shape} and {wrong.shape}; one size is wanted"
        )
    own, right, other = _embedded(np.stack([query, match, wrong]), encode, "the query, its match or the other image")
    covered = _covered(query, encode, cells, window, fade, cover, batch_size)
    margin = float(own @ right - own @ other)
    fall = margin - covered @ (right - other)
    return Relevance(fall, 1 - covered @ own, float(own @ right), float(own @ other))


def embedding_relevance(
    image: np.ndarray, encode: Encode, *, cells: int = CELLS, window: float = WINDOW, fade: float = FADE,
    cover: str = COVERS[0], batch_size: int = 32,
) -> np.ndarray:  # fmt: skip
    """Which part makes the embedding of an image: `Relevance.embedding` where there is no ranking.

    Args:
        image: uint8 (height, width, 3).
        encode, cells, window, fade, cover, batch_size: As in `decision_relevance`.

    Raises:
        EvaluationError: As in `decision_relevance`.
    """
    _check_image(image, cells)
    own = _embedded(image[None], encode, "the image")[0]
    return 1 - _covered(image, encode, cells, window, fade, cover, batch_size) @ own


def upsampled(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of cells at the size of the image, bilinear between the middles of cells: float32 (height, width)."""
    return np.asarray(Image.fromarray(cells.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))


def _covered(
    image: np.ndarray, encode: Encode, cells: int, window: float, fade: float, cover: str, batch_size: int
) -> np.ndarray:
    """Embeddings of length 1 with each window covered, float64 (cells, cells, size)."""
    if not 1 <= window <= cells:
        raise EvaluationError(
            f"window={window}: 1 to {cells} cells are wanted; less leaves parts that are never covered"
        )
    if not 0 <= fade <= 1 or batch_size < 1:
        raise EvaluationError(f"fade={fade}, batch_size={batch_size}: a share in 0..1 and at least 1 image are wanted")
    down, across = (_profiles(length, cells, window, fade) for length in image.shape[:2])
    colour = _colour(image, cover)
    parts = []
    for start in range(0, cells**2, batch_size):
        row, column = np.divmod(np.arange(start, min(start + batch_size, cells**2)), cells)
        share = (down[row, :, None] * across[column, None, :])[..., None]
        pixels = np.rint(image + share * (colour - image)).astype(np.uint8)
        parts.append(_embedded(pixels, encode, f"the image covered at cells {start} … {start + len(row) - 1}"))
    return np.concatenate(parts).reshape(cells, cells, -1)


def _colour(image: np.ndarray, cover: str) -> np.ndarray:
    if cover not in COVERS:
        raise EvaluationError(f"cover={cover!r}; choose from {', '.join(COVERS)}")
    if cover == "mean":
        return image.mean((0, 1))
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
    embeddings = np.asarray(encode(pixels))
    return Features.normalised([what] * len(pixels), embeddings).embeddings.astype(np.float64)


def _check_image(image: np.ndarray, cells: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise EvaluationError(f"the image is {image.dtype} {image.shape}; uint8 (height, width, 3) is wanted")
    if not 2 <= cells <= min(image.shape[:2]):
        raise EvaluationError(
            f"cells={cells}: from 2 to the shorter side in pixels, {min(image.shape[:2])}, are wanted"
        )
