"""What trains beside a notebook's own split, `extra_data`, and what has trained the weights that it begins with."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pandas as pd

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.content import content_keys, is_content
from handclip_lib.data.folds import Folds
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import decode_table, open_extra
from handclip_lib.data.splits import known_people, refuse_leak, whole_split
from handclip_lib.data.table import HandTable, identity_order
from handclip_lib.errors import DataError
from handclip_lib.evaluation.features import Features, embed
from handclip_lib.evaluation.studies.prompts import PromptTask
from handclip_lib.models.lineage import BEFORE, BESIDE, TrainedOn, lineage_beside
from handclip_lib.parameters.notebooks import ImageFinetune


@dataclass(frozen=True)
class ExtraSet:
    """A data set that trains beside the notebook's own.

    Attributes:
        label: What the names of its people and paths begin with in tables, so that equal names stay two people.
        split: Its manifest, in the set's own names; every photograph trains.
        images: Its photographs, decoded.
        opened: Parameters that open it.
    """

    label: str
    split: Split
    images: DecodedImages
    opened: dict[str, object]

    @property
    def identities(self) -> tuple[str, ...]:
        """In their order, each with the label before it."""
        return tuple(f"{self.label}:{name}" for name in self._names)

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the images, each with the label before it."""
        return tuple(f"{self.label}:{path}" for path in self.images.paths)

    @property
    def labels(self) -> np.ndarray:
        """Of each image its identity's place among `identities`, int64 (n,)."""
        place = {name: number for number, name in enumerate(self._names)}
        of = dict(zip(self.split.images["path"], self.split.images["identity"], strict=True))
        return np.array([place[of[path]] for path in self.images.paths], np.int64)

    @property
    def _names(self) -> list[str]:
        return sorted(set(self.split.images["identity"]), key=identity_order)


@dataclass(frozen=True)
class Sets:
    """What trains beside a split, and before.

    Attributes:
        extra: Data sets of `extra_data`.
        before: What has trained the weights that the training begins with.
        known: Training people of the split whom those weights know, and who are no strangers to validate with.
    """

    extra: tuple[ExtraSet, ...] = ()
    before: tuple[TrainedOn, ...] = ()
    known: frozenset[str] = frozenset()

    def lineage(self, split: Split, folds: Folds, config: ImageFinetune) -> tuple[TrainedOn, ...]:
        """All that the weights will have been trained on, the split first."""
        beside = (TrainedOn(one.split, one.opened, BESIDE, label=one.label) for one in self.extra)
        return TrainedOn(split, config.model_dump(), held_out=folds.left_out), *beside, *self.before


def open_sets(config: ImageFinetune, table: HandTable, split: Split, backbone: Backbone, progress: bool = True) -> Sets:
    """Open what `extra_data` names, and look up what trained `weights`.

    Raises:
        DataError: A set cannot be opened, nothing of it trains, it is the notebook's own or one named before it (a
            photograph of one is in the other too), or weights or sets have seen people who are tested.
    """
    extra: list[ExtraSet] = []
    taken = dict.fromkeys(_contents(table), "the notebook's own data set")
    for named in config.extra_sets:
        opened = config.model_dump(include={"identity", "drawn_subjects", "drawn_images"})
        try:
            part = open_extra(named, config.aspect, **opened)
            by = backbone.properties.interpolation
            part, images = decode_table(part, config, backbone.resolution, by, progress=progress)
            of = whole_split(part, named.aspect or config.aspect, config.seed)
            refuse_leak(of, split)
            _refuse_twice(of, taken)
        except DataError as error:
            raise DataError(f"extra_data={str(named)!r}: {error}") from error
        taken |= dict.fromkeys(of.images["content"], str(named))
        opened |= {"dataset": named.dataset, "data_root": named.data_root, "sample_range": config.sample_range}
        label = _label(named.dataset, [one.label for one in extra], split)
        extra.append(ExtraSet(label, of, images, opened))
    before = tuple(replace(one, how=BEFORE) for one in lineage_beside(config.weights))
    known: set[str] = set()
    for one in before:
        try:
            refuse_leak(one.split, split)
            _refuse_chosen_on_test(one, split, config)
        except DataError as error:
            raise DataError(f"weights={config.weights!r}: {error}") from error
        known |= known_people(one.seen, split)
    return Sets(tuple(extra), before, frozenset(known))


def prompt_task_with(task: PromptTask, extra: Sequence[ExtraSet], backbone: Backbone, batch_size: int) -> PromptTask:
    """The task in which the people of other sets learn prompts too."""
    identities, paths, labels, parts = task.identities, task.paths, task.labels, [task.features]
    for one in extra:
        own = embed(backbone, one.images, batch_size)
        parts.append(replace(own, paths=one.paths))
        labels = np.concatenate([labels, one.labels + len(identities)])
        identities, paths = (*identities, *one.identities), (*paths, *one.paths)
    joined = Features(
        tuple(path for part in parts for path in part.paths), np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.lengths for part in parts if part.lengths is not None]),
    )  # fmt: skip
    return replace(task, identities=identities, paths=paths, labels=labels, features=joined) if extra else task


def _contents(table: HandTable) -> list[str]:
    return [key for key in content_keys(table.root, table.images["path"]) if is_content(key)]


def _refuse_twice(split: Split, taken: Mapping[str, str]) -> None:
    again = split.images[split.images["content"].isin(taken)]
    if len(again):
        where = taken[again["content"].iloc[0]]
        raise DataError(
            f"{len(again)} of its {len(split.images)} photographs are in {where} too, such as {again['path'].iloc[0]} "
            f"of {again['identity'].iloc[0]}, who would be two people: leave one of the two data sets out"
        )


def _refuse_chosen_on_test(before: TrainedOn, split: Split, config: ImageFinetune) -> None:
    """Refuse weights that test images chose where the run would not say so."""
    theirs, ours = (set(one.images.loc[one.images["role"] == "test", "content"]) for one in (before.split, split))
    if before.opened.get("validation") == "test" != config.validation and (theirs & ours) - {""}:
        label = "give validation=test, by which every figure says so, or begin with other weights"
        raise DataError(f"images that are tested chose their epoch (validation=test): {label}")


def _label(dataset: str, used: Collection[str], split: Split) -> str:
    """The data set's name, with a number where another set has it or names of the notebook's own begin so."""
    names = pd.concat([split.images["identity"], split.images["path"]])
    for number in count(1):
        label = dataset if number == 1 else f"{dataset}{number}"
        if label not in used and not names.str.startswith(f"{label}:").any():
            return label
    raise AssertionError  # numbers do not end
