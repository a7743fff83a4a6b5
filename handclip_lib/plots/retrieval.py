"""Figures of a ranking and of what it rests on: results in, `Figure` out."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.intervals import Interval
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.studies.occlusion_sensitivity import DecisionMap, Encodes, decision_maps, example_queries
from handclip_lib.evaluation.tables import in_percent
from handclip_lib.plots import style
from handclip_lib.terminal import counted

METHODS = {"occlusion": "occlusion sensitivity", "relevance": "attention relevance"}
MEASURED = {
    "occlusion": "fall of the margin when the part is covered (cosine)",
    "relevance": "relevance of the part for the margin (no unit)",
}
MOST_IN_MATRIX = 400
MOST_LABELS = 30
PALE = 0.5  # how far the photograph under a map is lightened, so that its own tones do not read as the map's
CLEAR = 0.85  # opacity of the strongest part
GALLERY_TITLES = {"aspect": "gallery: same aspect", "all": "gallery: all aspects"}


@style.in_our_look
def cmc_curves(results: Sequence[ProtocolResult]) -> Figure:
    """CMC of each model with its band over identities; one panel a gallery."""
    galleries = list(dict.fromkeys(result.gallery for result in results))
    lines = sum(-(-len(model) // style.LINE) for model in {result.model for result in results})
    figure, axes = style.figure_with_axes(1, len(galleries), height=3.4 + 0.18 * lines, sharey=True)
    for axis, gallery in zip(axes, galleries, strict=True):
        own = [result for result in results if result.gallery == gallery]
        draw_cmc(axis, {result.model: result.cmc for result in own})
        sizes = sorted({result.draws[0].n_gallery for result in own})
        axis.set_title(f"{GALLERY_TITLES.get(gallery, f'gallery {gallery}')} ({', '.join(map(str, sizes))} images)")
        axis.set(xlim=(0.5, len(own[-1].cmc.estimate) + 0.5), ylim=(0, 101))
        # below, where it hides no curve
        style.legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.16), title="rank-1 in brackets")
    axes[0].set_ylabel("queries with a match in the k best")
    return figure


def draw_cmc(axis: Axes, curves: Mapping[str, Interval]) -> None:
    """Draw CMC curves with their bands over identities into an axis, rank-1 in their labels."""
    for place, (label, cmc) in enumerate(curves.items()):
        k, text = np.arange(1, len(cmc.estimate) + 1), f"{label} ({in_percent(cmc.estimate[0])} %)"
        style.curve(axis, k, 100 * cmc.estimate, place, text, (100 * cmc.low, 100 * cmc.high))
    axis.set_xlabel("rank k")
    style.whole_numbers(axis.xaxis)
    style.percent(axis.yaxis)


@style.in_our_look
def draw_spread(results: Sequence[ProtocolResult]) -> Figure:
    """Rank-1 of each draw (dots) and of all draws with the interval over identities (bar)."""
    models = list(dict.fromkeys(result.model for result in results))
    figure, (axis,) = style.figure_with_axes(height=0.5 * len(results) + 1.2)
    for row, result in enumerate(results):
        values = [100 * draw.rank(1) for draw in result.draws]
        axis.plot(values, np.full(len(values), row), ".", color=style.QUIET, ms=9, alpha=0.7)
        ends = (result.rank1.estimate, result.rank1.low, result.rank1.high)
        style.bar_of_interval(axis, ends, row + 0.22, style.look(models.index(result.model))[:2])
    style.name_rows(axis, (f"{r.model}, {GALLERY_TITLES[r.gallery]}" for r in results), -0.5)
    style.percent(axis.xaxis)
    people = style.people(result.rank1.n_identities for result in results)
    axis.set(xlabel=f"rank-1: grey dots are single draws, bars the interval over {people}", xlim=(0, 100))
    return figure


@style.in_our_look
def similarity_matrix(similarity: np.ndarray, identities: Sequence[str] | np.ndarray) -> Figure:
    """Cosine between images, (n, n), ordered by identity, with a line where it changes; the first 400 are drawn."""
    n = min(len(identities), MOST_IN_MATRIX)
    shown, names = np.asarray(similarity)[:n, :n], np.asarray(identities)[:n]
    figure, (axis,) = style.figure_with_axes(height=6.6)
    off_diagonal = shown[~np.eye(n, dtype=bool)] if n > 1 else shown
    style.matrix(axis, shown, "cosine", vmin=np.quantile(off_diagonal, 0.02), vmax=1)
    edges = np.flatnonzero(names[1:] != names[:-1]) + 0.5
    for edge in edges:
        axis.axhline(edge, color="white", lw=0.4)
        axis.axvline(edge, color="white", lw=0.4)
    starts = np.concatenate([[-0.5], edges, [n - 0.5]])
    middles, labels = (starts[1:] + starts[:-1]) / 2, names[np.ceil(starts[:-1]).astype(int)]
    named = [0]
    for i in range(1, len(middles)):
        if middles[i] - middles[named[-1]] >= n / MOST_LABELS:  # closer labels would overlap
            named.append(i)
    axis.set_xticks(middles[named], labels[named], rotation=90)
    axis.set_yticks(middles[named], labels[named])
    note = f" (first {n} of {len(identities)} images)" if n < len(identities) else ""
    axis.set_title(f"cosine similarity, images ordered by identity{note}")
    return figure


@style.in_our_look
def score_histogram(mated: np.ndarray, non_mated: np.ndarray, height: float = 3.2) -> Figure:
    """Distribution of the cosine of pairs of one person and of two people, each scaled to an area of one."""
    figure, (axis,) = style.figure_with_axes(height=height)
    ends = np.array([min(mated.min(), non_mated.min()), max(mated.max(), non_mated.max())], np.float64)
    edges = np.histogram_bin_edges(ends, 60)  # also where all scores are equal
    style.draw_scores(axis, mated, non_mated, edges, lambda s: f"{counted(len(s), 'pair')}, mean {s.mean():.2f}")
    axis.set(xlabel="cosine similarity of a query and a gallery image", ylabel="density")
    axis.legend(loc="upper left")
    return figure


@style.in_our_look
def margins(results: Sequence[ProtocolResult]) -> Figure:
    """How far the best match is ahead of the best image of someone else; left of 0 rank-1 fails."""
    shown = [result for result in results if result.gallery == results[0].gallery]
    figure, (axis,) = style.figure_with_axes(height=3.4)
    gaps = [(r.per_query["match_score"] - r.per_query["wrong_score"]).to_numpy() for r in shown]
    edges = np.histogram_bin_edges(np.concatenate(gaps), 80)
    for number, (result, gap) in enumerate(zip(shown, gaps, strict=True)):
        share = 100 * np.histogram(gap, edges)[0] / len(gap)
        label = f"{result.model}: {in_percent((gap > 0).mean())} % above 0, mean {gap.mean():+.3f}"
        line = style.LINES[number % len(style.LINES)]
        axis.stairs(share, edges, color=style.look(number)[0], label=label, lw=1.6, ls=line)
    axis.axvline(0, color=style.QUIET, ls="--", lw=1)
    axis.set(xlabel="cosine of the best match − cosine of the best image of someone else", ylabel="share of queries")
    style.percent(axis.yaxis)
    axis.legend(loc="best")
    return figure


@style.in_our_look
def burst_effect(frame: pd.DataFrame) -> Figure:
    """Rank-1 as queries close in capture to their gallery image are left out; `burst_share`'s rows, any models."""
    figure, (left, right) = style.figure_with_axes(1, 2, height=3.2, width_ratios=(2, 1))
    steps = sorted(frame["burst"].unique())
    for row, (model, rows) in enumerate(frame.groupby("model", sort=False)):
        place = [steps.index(burst) for burst in rows["burst"]]
        style.curve(left, place, 100 * rows["rank1"], row, str(model), ms=6)
    names = [f"±{burst}" if burst else "none" for burst in steps]
    left.set_xticks(range(len(steps)), names)
    left.set(xlabel="captures around the gallery image left out", ylabel="rank-1", ylim=(0, 101))
    style.legend(left, loc="best")
    share = frame.drop_duplicates("burst").sort_values("burst")
    right.bar(range(len(share)), 100 * share["left_out"], color=style.QUIET)
    right.set_xticks(range(len(share)), names)
    right.set(xlabel="captures left out", ylabel="queries left out", ylim=(0, 101))
    style.percent(left.yaxis, right.yaxis)
    return figure


@style.in_our_look
def ranked_gallery(
    query: np.ndarray, query_title: str, gallery: Sequence[np.ndarray], titles: Sequence[str], is_match: Sequence[bool]
) -> Figure:
    """A query and gallery images, best first: green frame and tick for the same person, orange and cross for others.

    Images are uint8 (height, width, 3); titles are shown literally.
    """
    columns = min(len(gallery) + 1, 7)
    figure, axes = style.picture_grid([query, *gallery], [query_title, *titles], columns, size=1.35)
    style.bare(axes[0], style.QUERY, 3)
    for axis, same in zip(axes[1:], is_match, strict=True):
        colour, mark = (style.MATCH, "✓") if same else (style.OTHER, "✗")
        style.bare(axis, colour, 3)
        box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.15"}
        axis.text(0.04, 0.05, mark, transform=axis.transAxes, color="white", bbox=box, fontsize=10)
    return figure


def decision_figure(
    result: ProtocolResult, images: DecodedImages, model: Encodes, by: str = "auto", batch_size: int = 32
) -> tuple[Figure, str]:
    """`decision_rows` of a ranking's `example_queries` by the model that made it, and what it shows in words."""
    queries = example_queries(result)
    maps = decision_maps(queries, images, model, by=by, batch_size=batch_size)
    return decision_rows(queries, maps, images), decision_alt(queries, maps)


@style.in_our_look
def decision_rows(queries: pd.DataFrame, maps: Sequence[DecisionMap], images: DecodedImages) -> Figure:
    """A row a query: the query, its best match, the best image of someone else, and which parts decided.

    Orange parts spoke for the right person and purple ones for someone else; what did not matter is clear. One scale
    serves all rows. The queries are `example_queries`, each with its map.
    """
    figure, axes = style.figure_with_axes(len(queries), 4, height=2.45 * len(queries) + 0.8)
    bound = max(float(np.abs(result.parts).max()) for result in maps) or 1.0
    scale, colours = Normalize(-bound, bound), _clear_in_the_middle()
    for place, (row, result) in enumerate(zip(queries.to_dict("records"), maps, strict=True)):
        query, match, wrong = images.pixels[images.rows([row["path"], row["match_path"], row["wrong_path"]])]
        grey = query.mean(2, keepdims=True).repeat(3, 2)
        pale = np.rint(grey + PALE * (255 - grey)).astype(np.uint8)
        own = axes[4 * place : 4 * place + 4]
        style.show_picture(own[0], query, f"{row['kind']}\nquery: {row['identity']}", style.QUERY)
        style.show_picture(own[1], match, f"best match\ncosine {result.match_score:.3f}", style.MATCH)
        style.show_picture(own[2], wrong, f"best of someone else\ncosine {result.wrong_score:.3f}", style.OTHER)
        style.show_picture(own[3], pale, f"{METHODS[result.by]}\nmargin {result.margin:+.3f}", style.QUERY)
        own[3].imshow(upsampled(result.parts, *query.shape[:2]), cmap=colours, norm=scale)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, location="bottom", aspect=50, pad=0.02)
    bar.set_label(f"{MEASURED[maps[0].by]}:  < 0 spoke for someone else,  > 0 for the person")
    bar.ax.tick_params(labelsize=9)
    return figure


def decision_alt(queries: pd.DataFrame, maps: Sequence[DecisionMap]) -> str:
    """What `decision_rows` shows, for those who cannot see it: each row's margin, and its strongest part."""
    texts = []
    for kind, result in zip(queries["kind"], maps, strict=True):
        row, column = np.unravel_index(np.abs(result.parts).argmax(), result.parts.shape)
        strongest, (rows, columns) = result.parts[row, column], result.parts.shape
        part = f"row {row + 1} of {rows} from the top, column {column + 1} of {columns} from the left"
        verb, whom = ("falls", "the person") if strongest >= 0 else ("rises", "someone else")
        texts.append(
            f"{kind}, margin {result.margin:+.3f}: it {verb} most, by {abs(strongest):.3f}, when {part} is covered"
            if result.by == "occlusion" else f"{kind}, margin {result.margin:+.3f}: {part} speaks most, for {whom}"
        )  # fmt: skip
    told = "Queries, their best match, the best image of someone else, and which parts decided"
    return f"{told}, by {METHODS[maps[0].by]}. " + "; ".join(texts)


def upsampled(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of cells at the size of the image, bilinear between the middles of cells: float32 (height, width)."""
    return np.asarray(Image.fromarray(cells.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))


def _clear_in_the_middle() -> ListedColormap:
    """A diverging map that colour-blind readers tell apart, clearer the nearer to zero."""
    steps = np.linspace(0, 1, 256)
    colours = mpl.colormaps["PuOr_r"](steps)
    colours[:, 3] = CLEAR * np.sqrt(np.abs(2 * steps - 1))
    return ListedColormap(colours, "what decided")
