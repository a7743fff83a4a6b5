"""Which part of the hand decided: queries beside what they were compared with, and the map of their parts."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.studies.occlusion_sensitivity import Relevance, upsampled
from handclip_lib.plots.style import MATCH, OTHER, QUERY, figure_with_axes, in_our_look

COLUMNS = 4
PALE = 0.5  # how far the photograph under the map is lightened, so that its own tones do not read as the map's
CLEAR = 0.85  # opacity of the strongest part


@in_our_look
def relevance_rows(queries: pd.DataFrame, relevances: Sequence[Relevance], images: DecodedImages) -> Figure:
    """A row a query: the query, its best match, the best image of someone else, and which parts decided.

    Orange parts spoke for the right person and purple ones for someone else; what did not matter is clear. One scale
    serves all rows.

    Args:
        queries: Rows of `telling_queries`.
        relevances: `relevance_of_queries`, one a row.
        images: Decoded photographs of the paths in the rows.
    """
    figure, axes = figure_with_axes(len(queries), COLUMNS, height=2.45 * len(queries) + 0.8)
    bound = max(float(np.abs(relevance.decision).max()) for relevance in relevances) or 1.0
    scale, colours = Normalize(-bound, bound), _clear_in_the_middle()
    for place, (row, relevance) in enumerate(zip(queries.to_dict("records"), relevances, strict=True)):
        query, match, wrong = images.pixels[images.rows([row["path"], row["match_path"], row["wrong_path"]])]
        own = axes[COLUMNS * place : COLUMNS * (place + 1)]
        titles = (
            f"{row['kind']}\nquery: {row['identity']}", f"best match\ncosine {relevance.match_score:.3f}",
            f"best of someone else\ncosine {relevance.wrong_score:.3f}",
            f"what decided\nmargin {relevance.margin:+.3f}",
        )  # fmt: skip
        grey = query.mean(2, keepdims=True).repeat(3, 2)
        pale = np.rint(grey + PALE * (255 - grey)).astype(np.uint8)
        for axis, pixels, title, colour in zip(
            own, (query, match, wrong, pale), titles, (QUERY, MATCH, OTHER, QUERY), strict=True
        ):
            axis.imshow(pixels)
            axis.set_title(title, fontsize=9, parse_math=False)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
            axis.spines[:].set(visible=True, color=colour, linewidth=2)
        own[-1].imshow(upsampled(relevance.decision, *query.shape[:2]), cmap=colours, norm=scale)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, location="bottom", aspect=50, pad=0.02)
    bar.set_label(
        "fall of the margin when the part is covered (cosine):  < 0 spoke for someone else,  > 0 for the person"
    )
    bar.ax.tick_params(labelsize=9)
    return figure


def relevance_alt(queries: pd.DataFrame, relevances: Sequence[Relevance]) -> str:
    """What `relevance_rows` shows, for those who cannot see it: each row's margin, and its strongest part."""
    texts = []
    for kind, relevance in zip(queries["kind"], relevances, strict=True):
        parts = relevance.decision
        row, column = np.unravel_index(np.abs(parts).argmax(), parts.shape)
        strongest, n = parts[row, column], len(parts)
        verb = "falls" if strongest >= 0 else "rises"
        texts.append(
            f"{kind}, margin {relevance.margin:+.3f}: it {verb} most, by {abs(strongest):.3f}, when row {row + 1} of "
            f"{n} from the top, column {column + 1} of {n} from the left is covered"
        )
    return "Queries, their best match, the best image of someone else, and which parts decided. " + "; ".join(texts)


def _clear_in_the_middle() -> ListedColormap:
    """A diverging map that colour-blind readers tell apart, clearer the nearer to zero."""
    steps = np.linspace(0, 1, 256)
    colours = mpl.colormaps["PuOr_r"](steps)
    colours[:, 3] = CLEAR * np.sqrt(np.abs(2 * steps - 1))
    return ListedColormap(colours, "what decided")
