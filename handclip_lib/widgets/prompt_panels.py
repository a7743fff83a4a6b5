"""Panels of prompt learning: similarity over epochs, one identity, and a training with other settings."""

from collections.abc import Callable

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.studies.prompts import PromptTask
from handclip_lib.models.prompt_learner import nearest_words
from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.parameters.parts import templates_of
from handclip_lib.plots.prompts import cluster_order, identity_sheet, learning_curves, prompt_similarity
from handclip_lib.training.prompt import PromptResult
from handclip_lib.widgets.panel import Job, Panel

MOST_FRAMES = 9  # pictures of the slider in a report
MOST_PHOTOGRAPHS = 6


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
        words = ", ".join(
            f"{row[0]} ({distance[0]:.2f})" for row, distance in zip(*nearest_words(backbone, context, 1), strict=True)
        )
        pixels = images.pixels[images.rows(paths[:MOST_PHOTOGRAPHS])]
        title = f"{identity}: nearest words of its tokens (distance): {words}"
        return identity_sheet(identity, pixels, similarity, task.identities, title)

    alt = "Photographs of an identity with their cosine to its own text, and the nearest texts of others"
    return Panel(show, alt=alt, identity=ipywidgets.Dropdown(options=task.by_identity(text)["identity"].tolist()))


def training_panel(train: Callable[..., PromptResult], config: PromptLearning) -> Panel:
    """Try other settings: a press on "train" trains with them, for a few epochs, and draws its curves.

    The first training runs when the panel is made, so that a headless run shows one too; later ones in a thread,
    and "cancel" ends them after the epoch they are in.

    Args:
        train: Takes the parameters it trains with, and `watch`, `stop` and `progress` as `fit_prompt` does.
        config: What the controls start at, and how long a trial is.
    """

    def templates(template: str) -> str:
        """What a text stands for; an empty one for the context's own."""
        return " | ".join(templates_of(template, config.context))

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
        settings = f"n_ctx {n_ctx}, temperature {temperature:g}, λ {context_weight:g}, {templates(template)}"
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
