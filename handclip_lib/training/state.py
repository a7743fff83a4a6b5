"""Where a training stands, and its file: a killed one goes on to the same weights."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from handclip_lib.errors import TrainingError
from handclip_lib.models.promptsg import PromptSG
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.training.checkpoints import resume_checkpoint, save_checkpoint
from handclip_lib.training.history import LEARNT, History, have_moved, sample_of

logger = logging.getLogger("handclip")
_HEAD = ("reduction.", "neck.", "classifier", "centers")
"""Names of what training alone needs begin so."""


class TrainingState(ABC):
    """The history, the best epoch's weights and the checkpoint of a training; a kind of training says what it learns.

    Attributes:
        history: The epochs done.
    """

    def __init__(self, decides: Mapping[str, Any], file: Path | None):
        """Begin at epoch 0, of what the subclass holds by now.

        Args:
            decides: All that decides the training, JSON values: a checkpoint of other ones is refused.
            file: Its checkpoint; None: it keeps none.
        """
        self.history = History(decides["select_by"])
        self._decides, self._file = dict(decides), file
        self._best, self._at_first = self._copy(), self._sample()

    @property
    def begun(self) -> bool:
        """Whether its file is there."""
        return self._file is not None and self._file.exists()

    def close_epoch(self, row: dict[str, Any], writes: bool = True) -> None:
        """Take an epoch's figures, keep its weights where they are the best, and write the file."""
        if self.history.add(row, self.history.moved or have_moved(self._sample(), self._at_first)):
            self._best = self._copy()
        if self._file is not None and writes:
            tensors, facts = self._held()
            save_checkpoint(self._file, tensors, {"options": self._decides, **facts, **self.history.facts()})

    def resume(self) -> None:
        """Take up the training whose file is there.

        Raises:
            TrainingError: The file is damaged, of a training with other options, or not there.
        """
        found = resume_checkpoint(self._file, self._decides)
        if found is None:
            raise TrainingError(f"{self._file} is not there for all processes: name a folder on a disk that they share")
        tensors, facts = found
        self.history.restore(facts)
        self._take(tensors, facts)
        self.history.moved = have_moved(self._sample(), self._at_first)

    def learnt(self, what: str, learning_rate: float, steps_of: list[int], tells: bool = True) -> str:
        """See `History.learnt`; a training that did not learn is told in the log."""
        learnt = self.history.learnt(learning_rate, steps_of)
        if learnt != LEARNT and tells:
            logger.warning("%s did not go as it should: learnt %s", what, learnt)
        return learnt

    @abstractmethod
    def put_best(self) -> None:
        """Give the model the best epoch's weights."""

    @abstractmethod
    def _copy(self) -> dict[str, Tensor]:
        """What the best epoch is kept as."""

    @abstractmethod
    def _sample(self) -> list[Tensor]:
        """What tells whether what is evaluated has moved, of `sample_of`."""

    @abstractmethod
    def _held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the file holds beside options and history: tensors, and facts."""

    @abstractmethod
    def _take(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what the file holds; the history is taken already."""


class ImageState(TrainingState):
    """The encoder, its optimizer's moments and the averaged weights.

    The file holds what changes: not what is frozen, which the encoder has, and the best weights only where they are
    not those of the last epoch.

    Attributes:
        evaluated: What is validated and kept: the encoder, or its moving average.
    """

    def __init__(
        self, encoder: ReidEncoder | PromptSG, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
        decides: Mapping[str, Any], file: Path | None,
    ):  # fmt: skip
        """See `TrainingState`; `average` among what decides is the decay a step."""
        self._encoder, self._optimizer, self._scaler = encoder, optimizer, scaler
        decay = decides["average"]
        self._average = (
            AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
        )
        self.evaluated = cast(ReidEncoder | PromptSG, self._average.module) if self._average else encoder
        self._changing = {name for name, p in encoder.named_parameters() if p.requires_grad}
        self._changing |= {name for name, _ in encoder.named_buffers()}
        super().__init__(decides, file)

    def stepped(self) -> None:
        """Take a step's weights into the average."""
        if self._average is not None:
            self._average.update_parameters(self._encoder)

    def put_best(self) -> None:
        """Give the encoder the best epoch's weights."""
        _put(self._encoder, self._best)
        self._encoder.eval()

    def _sample(self) -> list[Tensor]:
        """Of the weights that learn and that embeddings depend on: not of the head, nor of batch norms' statistics."""
        named = self.evaluated.named_parameters()
        own = ((name.removeprefix("hand."), p) for name, p in named if name in self._changing)
        return sample_of(p for name, p in own if not name.startswith(_HEAD))

    def _changed(self, model: torch.nn.Module) -> dict[str, Tensor]:
        return {name: value for name, value in model.state_dict().items() if name in self._changing}

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self._changed(self.evaluated).items()}

    def _held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"now.{name}": value for name, value in self._changed(self._encoder).items()}
        if self._average is not None:
            tensors |= {f"average.{name}": value for name, value in self._changed(self._average.module).items()}
            tensors["averaged"] = self._average.n_averaged
        if self.history.best_epoch != self.history.epoch:
            tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        return tensors, {"scaler": self._scaler.state_dict()}

    def _take(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "average": {}, "adam": {}, "averaged": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        _put(self._encoder, parts["now"])
        if self._average is not None:
            _put(self._average.module, parts["average"])
            self._average.n_averaged.copy_(tensors["averaged"])
        self._best = parts["best"] or self._copy()
        stored = self._optimizer.state_dict()
        for name, value in parts["adam"].items():
            number, _, moment = name.partition(".")
            stored["state"].setdefault(int(number), {})[moment] = value
        self._optimizer.load_state_dict(stored)
        if facts["scaler"]:
            self._scaler.load_state_dict(facts["scaler"])


def _put(encoder: torch.nn.Module, changed: Mapping[str, Tensor]) -> None:
    encoder.load_state_dict({**encoder.state_dict(), **changed})
