"""Figure of occlusion sensitivity: queries beside what they were compared with, and the map of their parts."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.studies.occlusion_sensitivity import (
    Encode,
    OcclusionMap,
    example_queries,
    occlusion_sensitivity,
)
from handclip_lib.plots.style import MATCH, OTHER, QUERY, figure_with_axes, in_our_look, show_picture

PALE = 0.5  # how far the photograph under the map is lightened, so that its own tones do not read as the map's
CLEAR = 0.85  # opacity of the strongest part


def occlusion_figure(
    result: ProtocolResult, images: DecodedImages, encode: Encode, batch_size: int = 32
) -> tuple[Figure, str]:
    """`occlusion_rows` of a model's `example_queries`, and what it shows in words.

    Args:
        images: Decoded photographs of the evaluated paths.
        encode: The model that made the ranking.
    """
    queries = example_queries(result)
    maps = occlusion_sensitivity(queries, images, encode, batch_size=batch_size)
    return occlusion_rows(queries, maps, images), occlusion_alt(queries, maps)


@in_our_look
def occlusion_rows(queries: pd.DataFrame, maps: Sequence[OcclusionMap], images: DecodedImages) -> Figure:
    """A row a query: the query, its best match, the best image of someone else, and which parts decided.

    Orange parts spoke for the right person and purple ones for someone else; what did not matter is clear. One scale
    serves all rows. The queries are `example_queries`, each with its map.
    """
    figure, axes = figure_with_axes(len(queries), 4, height=2.45 * len(queries) + 0.8)
    bound = max(float(np.abs(result.fall).max()) for result in maps) or 1.0
    scale, colours = Normalize(-bound, bound), _clear_in_the_middle()
    for place, (row, result) in enumerate(zip(queries.to_dict("records"), maps, strict=True)):
        query, match, wrong = images.pixels[images.rows([row["path"], row["match_path"], row["wrong_path"]])]
        grey = query.mean(2, keepdims=True).repeat(3, 2)
        pale = np.rint(grey + PALE * (255 - grey)).astype(np.uint8)
        own = axes[4 * place : 4 * place + 4]
        show_picture(own[0], query, f"{row['kind']}\nquery: {row['identity']}", QUERY)
        show_picture(own[1], match, f"best match\ncosine {result.match_score:.3f}", MATCH)
        show_picture(own[2], wrong, f"best of someone else\ncosine {result.wrong_score:.3f}", OTHER)
        show_picture(own[3], pale, f"occlusion sensitivity\nmargin {result.margin:+.3f}", QUERY)
        own[3].imshow(upsampled(result.fall, *query.shape[:2]), cmap=colours, norm=scale)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, location="bottom", aspect=50, pad=0.02)
    bar.set_label(
        "fall of the margin when the part is covered (cosine):  < 0 spoke for someone else,  > 0 for the person"
    )
    bar.ax.tick_params(labelsize=9)
    return figure


def occlusion_alt(queries: pd.DataFrame, maps: Sequence[OcclusionMap]) -> str:
    """What `occlusion_rows` shows, for those who cannot see it: each row's margin, and its strongest part."""
    texts = []
    for kind, result in zip(queries["kind"], maps, strict=True):
        row, column = np.unravel_index(np.abs(result.fall).argmax(), result.fall.shape)
        strongest, n = result.fall[row, column], len(result.fall)
        verb = "falls" if strongest >= 0 else "rises"
        texts.append(
            f"{kind}, margin {result.margin:+.3f}: it {verb} most, by {abs(strongest):.3f}, when row {row + 1} of {n} "
            f"from the top, column {column + 1} of {n} from the left is covered"
        )
    return "Queries, their best match, the best image of someone else, and which parts decided. " + "; ".join(texts)


def upsampled(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of cells at the size of the image, bilinear between the middles of cells: float32 (height, width)."""
    return np.asarray(Image.fromarray(cells.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))


def _clear_in_the_middle() -> ListedColormap:
    """A diverging map that colour-blind readers tell apart, clearer the nearer to zero."""
    steps = np.linspace(0, 1, 256)
    colours = mpl.colormaps["PuOr_r"](steps)
    colours[:, 3] = CLEAR * np.sqrt(np.abs(2 * steps - 1))
    return ListedColormap(colours, "what decided")
