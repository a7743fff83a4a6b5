"""Panels of prompt learning: similarity over epochs, one identity, and a training with other settings."""

from collections.abc import Callable

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.backbone.load import Backbone
from handclip_lib.config import PromptLearning, templates_of
from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.prompts import PromptTask
from handclip_lib.models.prompt_learner import nearest_words
from handclip_lib.plots.prompts import (
    cluster_order,
    confused_hands,
    identity_sheet,
    learning_curves,
    prompt_similarity,
)
from handclip_lib.training.prompt import PromptResult
from handclip_lib.widgets.job import Job
from handclip_lib.widgets.panel import Panel

MOST_FRAMES = 9  # pictures of the slider in a report
MOST_PHOTOGRAPHS = 6
RIVALS = 5


def similarity_over_epochs(result: PromptResult, task: PromptTask) -> Panel:
    """Slide through the epochs of a training: cosine between the texts of all identities, in one fixed order."""
    order = cluster_order(result.text_features[-1])
    last = len(result.epochs) - 1
    chosen = sorted({round(place) for place in np.linspace(0, last, min(MOST_FRAMES, last + 1))})
    options = [(str(result.epochs[place]), place) for place in chosen]

    def show(epoch: int) -> Figure:
        return prompt_similarity(result.text_features[epoch], task.identities, order, f"epoch {result.epochs[epoch]}")

    slider = ipywidgets.SelectionSlider(options=options, value=last, description="epoch")
    alt = "Cosine between the texts of all identities, similar ones side by side"
    return Panel(show, alt=alt, frames="epoch", epoch=slider)


def identity_inspector(result: PromptResult, task: PromptTask, images: DecodedImages, backbone: Backbone) -> Panel:
    """Look at one identity: its photographs, how near they are to its own text and to others', its tokens' words.

    Identities are listed least recognised first.
    """
    text = result.best_text
    names = task.by_identity(text)["identity"].tolist()

    def show(identity: str) -> Figure:
        number = task.identities.index(identity)
        paths = [path for path, label in zip(task.paths, task.labels, strict=True) if label == number]
        shown = paths[:MOST_PHOTOGRAPHS]
        similarity = task.features.of(paths) @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T
        others = pd.Series(similarity.mean(axis=0), task.identities).drop(identity).nlargest(RIVALS)
        nearest = np.array(task.identities)[similarity.argmax(axis=1)]
        captions = [
            f"own {row[number]:.2f}" + ("" if best == identity else f"\nnearest {best} {row.max():.2f}")
            for row, best in zip(similarity[: len(shown)], nearest, strict=False)
        ]
        figure = identity_sheet(
            identity, list(images.pixels[images.rows(shown)]), captions, similarity[:, number], others
        )
        context = result.best if result.best.ndim == 2 else result.best[number]
        words = ", ".join(
            f"{row[0]} ({distance[0]:.2f})" for row, distance in zip(*nearest_words(backbone, context, 1), strict=True)
        )
        figure.suptitle(f"{identity}: nearest words of its tokens (distance): {words}", fontsize=9, parse_math=False)
        return figure

    alt = "Photographs of an identity with their cosine to its own text, and the nearest texts of others"
    return Panel(show, alt=alt, identity=ipywidgets.Dropdown(options=names, value=names[0]))


def confused_figure(task: PromptTask, text: np.ndarray, images: DecodedImages) -> Figure:
    """Photographs that are nearest to somebody else's text, each beside one of that identity."""
    pairs = task.confused_pairs(text)
    shown = [
        (own, images.pixels[images.rows([path])[0]], other, images.pixels[images.rows([theirs])[0]])
        for own, path, other, theirs in pairs
    ]
    return confused_hands(shown)


def training_panel(train: Callable[..., PromptResult], config: PromptLearning) -> Panel:
    """Try other settings: a press on "train" trains with them, for a few epochs, and draws its curves.

    The first training runs when the panel is made, so that a headless run shows one too; later ones in a thread,
    and "cancel" ends them after the epoch they are in.

    Args:
        train: Takes n_ctx, template, temperature and context_weight by name, and `watch`, `stop` and `progress` as
            `fit_prompt` does.
        config: What the controls start at, and how long a trial is.
    """

    def show(n_ctx: int, template: str, temperature: float, context_weight: float, job: Job | None = None) -> Figure:
        def watch(history: pd.DataFrame, best_epoch: int, last: bool) -> None:
            if job is not None:
                epoch = len(history) - 1
                job.tell(epoch, config.trial_epochs, f"epoch {epoch} of {config.trial_epochs}")

        watched = {} if job is None else {"watch": watch, "stop": job.stopped, "progress": False}
        tried = {"n_ctx": n_ctx, "template": template, "temperature": temperature, "context_weight": context_weight}
        result = train(**tried, **watched)
        figure = learning_curves(result.history, result.best_epoch)
        cancelled = f", cancelled after epoch {len(result.history) - 1}" if job is not None and job.stopped() else ""
        figure.suptitle(
            f"n_ctx {n_ctx}, temperature {temperature:g}, λ {context_weight:g}, {_told(template, config)}{cancelled}",
            fontsize=10, parse_math=False,
        )  # fmt: skip
        return figure

    return Panel(
        show,
        alt="Learning curves of a short training with the panel's settings",
        button="train",
        config=config,
        n_ctx=ipywidgets.FloatText(config.n_ctx, step=1),  # without bounds, which ipywidgets would clip to
        template=ipywidgets.Text(config.template, placeholder=_told("", config)),
        temperature=ipywidgets.FloatText(config.temperature, step=0.01),
        context_weight=ipywidgets.FloatText(config.context_weight, step=0.1, description="λ"),
    )


def _told(template: str, config: PromptLearning) -> str:
    """The templates that a text stands for; an empty one for the context's own."""
    return " | ".join(templates_of(template, config.context))
