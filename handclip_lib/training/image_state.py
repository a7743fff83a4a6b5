"""Where an image training stands, and its file: a killed one goes on to the same weights.

The file holds what changes: not what is frozen, which the encoder has, and the best weights only where they are not
those of the last epoch.
"""

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
from handclip_lib.training.history import History, have_moved, sample_of

_HEAD = ("reduction.", "neck.", "classifier", "centers")
"""Names of what training alone needs begin so."""


class ImageState:
    """The encoder, its optimizers' moments, the averaged weights, the history and the best epoch's weights.

    Attributes:
        history: The epochs done.
        evaluated: What is validated and kept: the encoder, or its moving average.
    """

    def __init__(
        self,
        encoder: ReidEncoder | PromptSG,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        options: dict[str, Any],
        file: Path | None,
    ):
        self._encoder, self._optimizer, self._scaler = encoder, optimizer, scaler
        self._options, self._file = options, file
        self.history = History(options["select_by"])
        decay = options["average"]
        self._average = (
            AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
        )
        self.evaluated = cast(ReidEncoder | PromptSG, self._average.module) if self._average else encoder
        self._changing = {name for name, p in encoder.named_parameters() if p.requires_grad}
        self._changing |= {name for name, _ in encoder.named_buffers()}
        self._best = self._copy()
        self._at_first = self._sample()

    @property
    def begun(self) -> bool:
        """Whether its file is there."""
        return self._file is not None and self._file.exists()

    def stepped(self) -> None:
        """Take a step's weights into the average."""
        if self._average is not None:
            self._average.update_parameters(self._encoder)

    def close_epoch(self, row: dict[str, Any], writes: bool) -> None:
        """Take an epoch's figures, keep its weights where they are the best, and write the file."""
        if self.history.add(row, self.history.moved or have_moved(self._sample(), self._at_first)):
            self._best = self._copy()
        if self._file is not None and writes:
            self._write(self._file)

    def _sample(self) -> list[Tensor]:
        """Of the weights that learn and that embeddings depend on: not of the head, nor of batch norms' statistics."""
        named = self.evaluated.named_parameters()
        own = ((name.removeprefix("hand."), p) for name, p in named if name in self._changing)
        return sample_of(p for name, p in own if not name.startswith(_HEAD))

    def _changed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if name in self._changing}

    def _copy(self) -> dict[str, Tensor]:
        return {name: v.detach().cpu().clone() for name, v in self._changed(self.evaluated.state_dict()).items()}

    def _write(self, file: Path) -> None:
        tensors = {f"now.{name}": value for name, value in self._changed(self._encoder.state_dict()).items()}
        if self._average is not None:
            averages = self._changed(self._average.module.state_dict())
            tensors |= {f"average.{name}": value for name, value in averages.items()}
            tensors["averaged"] = self._average.n_averaged
        if self.history.best_epoch != self.history.epoch:
            tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        facts = {"options": self._options, "scaler": self._scaler.state_dict(), **self.history.facts()}
        save_checkpoint(file, tensors, facts)

    def resume(self) -> None:
        """Take up the training whose file is there.

        Raises:
            TrainingError: The file is damaged, of a training with other options, or not there.
        """
        found = resume_checkpoint(self._file, self._options)
        if found is None:
            raise TrainingError(f"{self._file} is not there for all processes: name a folder on a disk that they share")
        tensors, facts = found
        self.history.restore(facts)
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "average": {}, "adam": {}, "averaged": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        _put(self._encoder, parts["now"])
        if self._average is not None:
            _put(self._average.module, parts["average"])
            self._average.n_averaged.copy_(tensors["averaged"])
        self._best = parts["best"] or self._copy()
        self.history.moved = have_moved(self._sample(), self._at_first)
        stored = self._optimizer.state_dict()
        for name, value in parts["adam"].items():
            number, _, moment = name.partition(".")
            stored["state"].setdefault(int(number), {})[moment] = value
        self._optimizer.load_state_dict(stored)
        if facts["scaler"]:
            self._scaler.load_state_dict(facts["scaler"])

    def put_best(self) -> None:
        """Give the encoder the best epoch's weights."""
        _put(self._encoder, self._best)
        self._encoder.eval()


def _put(encoder: torch.nn.Module, changed: Mapping[str, Tensor]) -> None:
    encoder.load_state_dict({**encoder.state_dict(), **changed})
