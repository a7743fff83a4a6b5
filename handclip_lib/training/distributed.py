"""One training on several processes: each encodes its share of a batch, all see the whole batch's loss."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

MEETING = "HANDCLIP_MEETING"  # variable: a file in which the processes of one machine find each other, without a port


def this_device(name: str) -> tuple[str, str]:
    """The device of this process, its own GPU where there are several, and a line that says which of them it is."""
    state = _joined(cpu=name == "cpu" or not torch.cuda.is_available())
    device = str(state.device) if state.num_processes > 1 else name
    return device, f"process {state.process_index + 1} of {state.num_processes} on {device}"


def _joined(cpu: bool) -> PartialState:
    meeting: dict[str, Any] = {}
    if MEETING in os.environ:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        meeting = {"store": distributed.FileStore(os.environ[MEETING], count), "rank": rank, "world_size": count}
    return PartialState(cpu=cpu, **meeting)


class Processes:
    """The processes of this training: one, or those that `launch_processes`, `accelerate launch` or `torchrun` started.

    Contrastive and triplet losses compare all images of a batch, so a batch is not cut into smaller ones: every
    process computes the loss of the whole batch from the gathered embeddings, and the gradients that come back are
    those of one process with that batch (to rounding; a batch norm of a ResNet or PromptSG sees its process's share).
    """

    def __init__(self, device: torch.device):
        """Join the others, where there are any.

        Args:
            device: Where this process computes.
        """
        self._state = _joined(cpu=device.type == "cpu")

    @property
    def count(self) -> int:
        """How many they are."""
        return int(self._state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that validates and writes."""
        return bool(self._state.is_main_process)

    def share(self, count: int) -> slice:
        """This process's part of `count` rows: its own, and where they are none or one, two with a neighbour's.

        A batch norm takes no single row, and a process without any would have no gradients to average.
        """
        start, end = self._own(count)
        return slice(start, end) if end - start > 1 else slice(max(0, min(start, count - 2)), min(count, start + 2))

    def gather(self, own: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """Rows of all processes in order, with gradients to this process's own.

        Args:
            own: Tensors of this process's share of rows.
            count: Rows of all together.
        """
        if self.count == 1:
            return dict(own)
        skipped = self._own(count)[0] - self.share(count).start
        shape = self._edges(count), int(self._state.process_index), skipped
        return {name: _Gathered.apply(rows, *shape) for name, rows in own.items()}

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the processes, which is the whole batch's."""
        if self.count > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = reduce(parameter.grad, "mean")

    def from_main(self, value: Any) -> Any:
        """What the main process has, in all of them: anything that JSON can say, and numbers of numpy."""
        if self.count == 1:
            return value
        told = list(json.dumps(value, default=lambda number: number.item()).encode()) if self.is_main else []
        size = torch.tensor([len(told)], device=self._state.device)
        distributed.broadcast(size, 0)
        letters = torch.tensor(told or [0] * int(size), dtype=torch.uint8, device=self._state.device)
        distributed.broadcast(letters, 0)
        return json.loads(bytes(letters.tolist()))

    def wait(self) -> None:
        """Until all are here."""
        self._state.wait_for_everyone()

    def _own(self, count: int) -> tuple[int, int]:
        edges, index = self._edges(count), int(self._state.process_index)
        return edges[index], edges[index + 1]

    def _edges(self, count: int) -> list[int]:
        return np.linspace(0, count, self.count + 1).round().astype(int).tolist()


class _Gathered(torch.autograd.Function):
    """Rows of all processes; backward hands on the own rows' gradient, times the number of processes.

    Every process computes the same loss, so the gradient of the own rows is whole already; the factor makes up for
    the mean that is taken of the weights' gradients. Rows of a neighbour's, which it encoded too, get none.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, edges: list[int], index: int, skipped: int) -> Tensor:
        ctx.shape, ctx.edges, ctx.index, ctx.skipped = own.shape, edges, index, skipped
        sizes = np.diff(edges)
        padded = own.new_zeros((int(sizes.max()), *own.shape[1:]))
        padded[: sizes[index]] = own[skipped : skipped + sizes[index]]
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        start, end = ctx.edges[ctx.index : ctx.index + 2]
        whole = gradients[0].new_zeros(ctx.shape)
        whole[ctx.skipped : ctx.skipped + end - start] = gradients[0][start:end] * (len(ctx.edges) - 1)
        return whole, None, None, None
