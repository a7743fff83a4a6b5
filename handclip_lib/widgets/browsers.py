"""What notebooks offer to look through and to try: photographs, queries, thresholds, two runs, learnt prompts."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.analysis.comparison import Entry, compare_pair, won_and_lost
from handclip_lib.backbone.load import Backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import GALLERIES, Split
from handclip_lib.data.table import ASPECTS, HandTable, identity_order, in_order
from handclip_lib.errors import DataError, EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.confusion import CHOICES, RankedQueries
from handclip_lib.evaluation.studies.prompts import PromptTask
from handclip_lib.evaluation.verification.error_rates import VerificationResult
from handclip_lib.models.prompt_learner import nearest_words
from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.parameters.parts import templates_of
from handclip_lib.plots.comparison import compared_runs
from handclip_lib.plots.dataset import sample_grid
from handclip_lib.plots.retrieval import ranked_gallery
from handclip_lib.plots.training import cluster_order, identity_sheet, learning_curves, prompt_similarity
from handclip_lib.plots.verification import threshold_choice
from handclip_lib.training.prompt import PromptResult
from handclip_lib.widgets.panel import Job, Panel

ALL = "all"
ATTRIBUTES = ("gender", "skin_color", "accessories", "nail_polish")
SAMPLES = 20  # different samples a slider offers
STEPS = 400  # of the slider
MOST_FRAMES = 9  # pictures of the slider over epochs in a report
MOST_PHOTOGRAPHS = 6  # of one identity


def dataset_browser(table: HandTable, images: DecodedImages, *, count: int = 12, seed: int = 0) -> Panel:
    """Browse a data set: choose an aspect, a subject and attributes, and see up to `count` photographs that have them.

    Only what the data set records, and in which its images differ, is offered.
    """

    def show(sample: int = 1, **wanted: Any) -> Figure:
        rows = matching(table.images, wanted)
        chosen = rows.iloc[np.sort(np.random.default_rng([seed, sample]).permutation(len(rows))[:count])]
        titles = ["\n".join(filter(None, row)) for row in zip(chosen["identity"], chosen["aspect"], strict=True)]
        return sample_grid(list(images.pixels[images.rows(chosen["path"])]), titles)

    alt = f"Sample of up to {count} photographs, each titled with its identity and aspect"
    return Panel(show, alt=alt, **_controls(table.images), sample=ipywidgets.IntSlider(1, 1, SAMPLES))


def matching(images: pd.DataFrame, wanted: dict[str, Any]) -> pd.DataFrame:
    """The rows that have every wanted value by column ("subject" is the identity); "all" asks for nothing."""
    asked = {name: value for name, value in wanted.items() if not (isinstance(value, str) and value == ALL)}
    kept = np.ones(len(images), bool)
    for name, value in asked.items():
        column = images["identity" if name == "subject" else name]
        kept &= (column == value).fillna(False).to_numpy(bool)
    if not kept.any():
        said = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        raise DataError(f"no photograph has {said}; set one of them to all")
    return images[kept]


def retrieval_browser(features: Features, split: Split, images: DecodedImages, top_k: int = 8) -> Panel:
    """Browse queries: the best gallery images with green frames (same person) and orange ones (someone else).

    When no match is among the best, the first one is added with its rank. The worst queries come first. Features and
    images are of at least `split.evaluated_paths()`.
    """

    @lru_cache(maxsize=4)
    def ranked(draw: int, gallery: str) -> RankedQueries:
        return RankedQueries(features, split.draw(draw, gallery))

    def show(draw: int, gallery: str, queries: str, query: int) -> Figure:
        ranking = ranked(draw, gallery)
        order = ranking.order(queries)
        if not len(order):
            raise LookupError(f"no query is {queries} in draw {draw}, gallery {gallery!r}; choose other queries")
        row, held = order[min(query, len(order)) - 1], ranking.draw
        columns, ranks = ranking.best(row, top_k)
        scores, is_match = ranking.row(row)
        titles = [
            f"{rank}. {_in_two_lines(held.gallery_ids[column])}\n{scores[column]:.3f}"
            for rank, column in zip(ranks, columns, strict=True)
        ]
        pixels = images.pixels[images.rows([held.query_paths[row], *held.gallery_paths[columns]])]
        title = f"query\n{held.query_ids[row]}"
        return ranked_gallery(pixels[0], title, pixels[1:], titles, is_match[columns])

    controls = {
        "draw": ipywidgets.IntSlider(0, 0, split.meta["draws"] - 1),
        "gallery": ipywidgets.Dropdown(options=GALLERIES),
        "queries": ipywidgets.Dropdown(options=CHOICES),
    }
    number = ipywidgets.IntSlider(1, 1, 1, description="query number")

    def follow(_change: object = None) -> None:
        draw, gallery, queries = (control.value for control in controls.values())
        number.max = max(1, len(ranked(draw, gallery).order(queries)))

    follow()
    for control in controls.values():
        control.observe(follow, names="value")  # before the panel's own, so that it draws within the new range
    alt = f"A query and its {top_k} best gallery images; green frames are the same person, orange ones someone else"
    return Panel(show, alt=alt, **controls, query=number)


def threshold_explorer(results: Sequence[VerificationResult]) -> Panel:
    """Explore thresholds: the two distributions with a line, FMR and FNMR there, and the pairs behind them.

    The first model is shown first, at the threshold of its EER.
    """
    models = {result.model: result for result in results}

    def show(model: str, threshold: float) -> Figure:
        return threshold_choice(models[model], threshold)

    low = min(float(result.curve.thresholds[0]) for result in results)
    # The last threshold is infinity; one step beyond the highest score is where nothing passes.
    high = max(float(result.curve.thresholds[-2]) for result in results)
    step, start = max((high - low) / STEPS, 1e-6), results[0].curve.eer_threshold
    slider = ipywidgets.FloatSlider(
        start, min=low, max=high + step, step=step, readout_format=".3f", layout=ipywidgets.Layout(width="420px")
    )
    choice = ipywidgets.Dropdown(options=list(models))
    alt = "Distribution of the scores of pairs of one person and of two people, with a line at the threshold"
    return Panel(show, alt=alt, model=choice, threshold=slider)


def run_comparer(entries: Sequence[Entry], gallery: str = "aspect", *, samples: int = 1000, seed: int = 0) -> Panel:
    """Choose two entries: CMC of both, difference of rank-1 and mAP, and queries that only one of them gets right.

    There are at least two, with labels of their own; the panel starts with the second against the first.
    """
    by_label = {entry.label: entry for entry in entries}
    n, labels = len(entries), list(by_label)
    if len(labels) < 2 or len(labels) < n:
        raise EvaluationError(f"{n} entries, {len(labels)} labels: two entries of different label, or more")

    def show(run: str, against: str) -> Figure:
        if run == against:
            raise EvaluationError(f"{run} is chosen twice; choose another run to set it against")
        first, second = by_label[run], by_label[against]
        differences = compare_pair(first, second, gallery, samples=samples, seed=seed)
        curves = {label: by_label[label].cmc(gallery) for label in (run, against)}
        size = first.evaluation.n_gallery[gallery]
        return compared_runs(curves, size, differences, won_and_lost(first, second, gallery))

    choosers = {
        name: ipywidgets.Dropdown(options=labels, value=labels[place]) for name, place in (("run", 1), ("against", 0))
    }
    alt = "CMC of two runs, the difference of rank-1 and mAP, and queries that only one of them gets right"
    return Panel(show, alt=alt, **choosers)


def similarity_over_epochs(result: PromptResult, task: PromptTask) -> Panel:
    """Slide through the epochs of a training: cosine between the texts of all identities, in one fixed order."""
    order = cluster_order(result.text_features[-1])
    last = len(result.epochs) - 1
    chosen = sorted({round(place) for place in np.linspace(0, last, min(MOST_FRAMES, last + 1))})

    def show(epoch: int) -> Figure:
        return prompt_similarity(result.text_features[epoch], task.identities, order, f"epoch {result.epochs[epoch]}")

    options = [(str(result.epochs[place]), place) for place in chosen]
    slider = ipywidgets.SelectionSlider(options=options, value=last, description="epoch")
    alt = "Cosine between the texts of all identities, similar ones side by side"
    return Panel(show, alt=alt, frames="epoch", epoch=slider)


def identity_inspector(result: PromptResult, task: PromptTask, images: DecodedImages, backbone: Backbone) -> Panel:
    """Look at one identity: its photographs, how near they are to its own text and to others', its tokens' words.

    Identities are listed least recognised first.
    """
    text = result.best_text

    def show(identity: str) -> Figure:
        paths, similarity = task.of_identity(identity, text)
        context = result.best if result.best.ndim == 2 else result.best[task.identities.index(identity)]
        # CLIP's words hold emojis and letters of all scripts, for which the font of a figure may have no sign
        words = ", ".join(
            f"{row[0].encode('cp1252', 'backslashreplace').decode('cp1252')} ({distance[0]:.2f})"
            for row, distance in zip(*nearest_words(backbone, context, 1), strict=True)
        )
        pixels = images.pixels[images.rows(paths[:MOST_PHOTOGRAPHS])]
        title = f"{identity}: nearest words of its tokens (distance): {words}"
        return identity_sheet(identity, pixels, similarity, task.identities, title)

    alt = "Photographs of an identity with their cosine to its own text, and the nearest texts of others"
    return Panel(show, alt=alt, identity=ipywidgets.Dropdown(options=task.by_identity(text)["identity"].tolist()))


def training_panel(train: Callable[..., PromptResult], config: PromptLearning) -> Panel:
    """Try other settings: a press on "train" trains with them, for a few epochs, and draws its curves.

    The first training runs when the panel is made, so that a headless run shows one too; later ones in a thread,
    and "cancel" ends them after the epoch they are in. `train` takes the parameters it trains with, and `watch`, `stop`
    and `progress` as `fit_prompt` does.
    """

    def templates(template: str) -> str:
        return " | ".join(templates_of(template, config.context))  # an empty one is the context's own

    def show(n_ctx: int, template: str, temperature: float, context_weight: float, job: Job | None = None) -> Figure:
        def watch(history: pd.DataFrame, best_epoch: int, last: bool) -> None:
            if job is not None:
                epoch = len(history) - 1
                job.tell(epoch, config.trial_epochs, f"epoch {epoch} of {config.trial_epochs}")

        watched = {} if job is None else {"watch": watch, "stop": job.stopped, "progress": False}
        tried = {"n_ctx": n_ctx, "template": template, "temperature": temperature, "context_weight": context_weight}
        result = train(config.model_copy(update=tried), **watched)
        figure = learning_curves(result.history, result.best_epoch)
        cancelled = f", cancelled after epoch {len(result.history) - 1}" if job is not None and job.stopped() else ""
        settings = f"n_ctx {n_ctx}, temperature {temperature:g}, λ {context_weight:g}, “{templates(template)}”"
        figure.suptitle(settings + cancelled, fontsize=10, parse_math=False)
        return figure

    return Panel(
        show,
        alt="Learning curves of a short training with the panel's settings",
        button="train",
        config=config,
        n_ctx=ipywidgets.FloatText(config.n_ctx, step=1),  # without bounds, which ipywidgets would clip to
        template=ipywidgets.Text(config.template, placeholder=templates("")),
        temperature=ipywidgets.FloatText(config.temperature, step=0.01),
        context_weight=ipywidgets.FloatText(config.context_weight, step=0.1, description="λ"),
    )


def _controls(images: pd.DataFrame) -> dict[str, ipywidgets.Dropdown]:
    """A control for each column that has something to choose from."""
    controls = {}
    aspects = [name for name in ASPECTS if (images["aspect"] == name).any()]
    if aspects:
        controls["aspect"] = ipywidgets.Dropdown(options=[ALL, *aspects])
    subjects = sorted(images["identity"].unique(), key=identity_order)
    controls["subject"] = ipywidgets.Dropdown(options=[(ALL, ALL), *((name, name) for name in subjects)])
    for name in ATTRIBUTES:
        by_name = {str(value): value for value in images[name].dropna().unique()}
        if len(by_name) > 1:
            values = [by_name[text] for text in in_order(name, by_name)]
            named = [({True: "yes", False: "no"}.get(value, value), value) for value in values]
            controls[name] = ipywidgets.Dropdown(options=[(ALL, ALL), *named])
    return controls


def _in_two_lines(identity: str) -> str:
    """Another aspect's gallery identity, "<aspect>/<identity>", is wider than a photograph."""
    aspect, slash, rest = identity.partition("/")
    return f"{aspect}/\n{rest}" if slash and aspect in ASPECTS else identity
