"""Prompts of the trainings without a fold; apart from the folds, so that a change to prompts renames no run of 03."""

from collections.abc import Sequence
from pathlib import Path

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.folds import Folds
from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.studies.prompts import prompt_task
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.models.trained import PROMPTS, save_texts
from handclip_lib.parameters.notebooks import JointTraining
from handclip_lib.training.folds import PLACE
from handclip_lib.training.prompt import fit_prompt
from handclip_lib.training.sets import ExtraSet, prompt_task_with


def fold_prompts(
    backbone: Backbone, features: Features, split: Split, folds: Folds, options: JointTraining, folder: Path,
    extra: Sequence[ExtraSet] = (),
) -> None:  # fmt: skip
    """Learn the prompts of each training without a fold, of its people and of other sets', into its folder."""
    for number in range(len(folds.held_out) if folds.trains_all else 0):
        place = folder / PLACE / str(number + 1)
        task = prompt_task(features, split, folds.held_out[number])
        task = prompt_task_with(task, extra, backbone, options.batch_size)
        learner = PromptLearner(backbone, task.identities, options)
        fit_prompt(learner, task.images, task.labels, options.prompt_training, validate=task.accuracy, folder=place)
        save_texts(place / PROMPTS, learner.text_features(), task.identities, backbone)
