"""Where an image training stands, and its file: a killed one goes on to the same weights."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from handclip_lib.models.guided_encoder import GuidedEncoder
from handclip_lib.models.hand_encoder import HandEncoder
from handclip_lib.training.checkpoints import resume_checkpoint, save_checkpoint
from handclip_lib.training.history import History


class ImageState:
    """The encoder, its optimizers' moments, the averaged weights, the history and the best epoch's weights.

    Attributes:
        history: The epochs done.
        evaluated: What is validated and kept: the encoder, or its moving average.
    """

    def __init__(
        self,
        encoder: HandEncoder | GuidedEncoder,
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
        self.evaluated = cast(HandEncoder | GuidedEncoder, self._average.module) if self._average else encoder
        self._best = self._copy()

    def stepped(self) -> None:
        """Take a step's weights into the average."""
        if self._average is not None:
            self._average.update_parameters(self._encoder)

    def close_epoch(self, row: dict[str, Any], writes: bool) -> None:
        """Take an epoch's figures, keep its weights where they are the best, and write the file."""
        if self.history.add(row):
            self._best = self._copy()
        if self._file is not None and writes:
            self._write(self._file)

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.evaluated.state_dict().items()}

    def _write(self, file: Path) -> None:
        tensors = {f"now.{name}": value for name, value in self._encoder.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        if self._average is not None:
            tensors |= {f"average.{name}": value for name, value in self._average.state_dict().items()}
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        facts = {"options": self._options, "scaler": self._scaler.state_dict(), **self.history.facts()}
        save_checkpoint(file, tensors, facts)

    def resumed(self) -> bool:
        """Take up the training whose file is there; whether there was one."""
        found = resume_checkpoint(self._file, self._options)
        if found is None:
            return False
        tensors, facts = found
        self.history.restore(facts)
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "average": {}, "adam": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        self._encoder.load_state_dict(parts["now"])
        if self._average is not None:
            self._average.load_state_dict(parts["average"])
        self._best = parts["best"]
        stored = self._optimizer.state_dict()
        for name, value in parts["adam"].items():
            number, _, moment = name.partition(".")
            stored["state"].setdefault(int(number), {})[moment] = value
        self._optimizer.load_state_dict(stored)
        if facts["scaler"]:
            self._scaler.load_state_dict(facts["scaler"])
        return True

    def put_best(self) -> None:
        """Give the encoder the best epoch's weights."""
        self._encoder.load_state_dict(self._best)
        self._encoder.eval()
