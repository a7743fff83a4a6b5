"""One training on several processes: each encodes its share of a batch, all see the whole batch's loss."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
import yaml
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

from handclip_lib.errors import TrainingError
from handclip_lib.files import whole_file
from handclip_lib.machine import cores, free_memory
from handclip_lib.parameters.notebooks import ImageFinetune

PARAMETERS = "training.yml"
LAST_LINES = 12
PROCESS = 375 * 2**20  # bytes that a process takes with torch and `tiny`, before its first batch
MEETING = "HANDCLIP_MEETING"  # variable: a file in which the processes of one machine find each other, without a port


def launch_training(config: ImageFinetune, folder: Path, texts: Path | None = None) -> None:
    """Train on `config.processes` processes, one a GPU where there are any; with one, do nothing.

    The checkpoint lies in the folder afterwards, so that `fit_image` with the same arguments finds a finished
    training and returns it. What the processes print is shown.

    Args:
        config: Of notebook 03 or 04.
        folder: The run's.
        texts: Folder of the run whose prompts are the texts; None: no texts.

    Raises:
        TrainingError: There are GPUs, and fewer than processes; fewer cores, or too little memory; or the training
            failed: the message has its last lines.
    """
    if config.processes == 1:
        return
    if fault := room_fault(config):
        raise TrainingError(fault)
    given = {"notebook": config.notebook, "texts": None if texts is None else str(texts.resolve())}
    with whole_file(folder / PARAMETERS) as private:
        private.write_text(yaml.safe_dump(given | config.model_dump(), sort_keys=False, allow_unicode=True))
    said, lines = "", [""]

    def hear(line: str) -> None:
        nonlocal said, lines
        lines = [*lines[1 - LAST_LINES :], line.rstrip()]
        said = said or (line.strip() if line.startswith("handclip: ") else "")
        print(line, end="")

    command = [sys.executable, "-m", "handclip_lib.training", str(folder)]
    if not launch_processes(command, config.processes, hear):
        raise TrainingError(f"{config.processes} processes could not train: {said or chr(10).join(lines)}")


def launch_processes(command: Sequence[str], count: int, hear: Callable[[str], None]) -> bool:
    """Run a command as the `count` processes of one training on this machine; the first that fails ends the others.

    torch's launchers open a port on every interface for processes to meet at, and run what is sent there. These meet
    in a file that is only this user's, and send each other tensors through the loopback interface.

    `hear` is called with each line that one of them prints. Returns whether all ended with code 0.
    """
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    own = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    own |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // count))}
    processes: list[subprocess.Popen] = []

    def watch(process: subprocess.Popen) -> None:
        if process.wait():
            end()

    def end() -> None:
        for process in processes:
            process.terminate()

    heard, said = os.pipe()
    with tempfile.TemporaryDirectory(prefix="handclip-") as folder, os.fdopen(heard, errors="replace") as lines:
        own |= {MEETING: f"{folder}/meeting"}
        try:
            with os.fdopen(said, "wb") as output:
                for rank in range(count):
                    environment = threads | os.environ | own | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                    one = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
                    processes.append(one)
            for process in processes:
                Thread(target=watch, args=[process], daemon=True).start()
            for line in lines:
                hear(line)
            return not sum(process.wait() != 0 for process in processes)
        finally:
            end()
            for process in processes:
                process.wait()


def room_fault(config: ImageFinetune) -> str:
    """That this machine has no GPU for each process, lends fewer cores where they compute, or memory; "" if it has."""
    asked, free = config.processes, free_memory()
    if asked == 1:
        return ""
    gpus = 0 if config.device == "cpu" else torch.cuda.device_count()
    if 0 < gpus < asked:
        each = f"each takes a GPU of its own, and there are {gpus}; give at most {gpus}, or device=cpu"
    elif not gpus and asked > cores():
        each = f"{cores()} cores are to be used here; give at most {cores()}"
    elif asked > free // PROCESS:
        most = max(1, free // PROCESS)
        each = f"each takes {PROCESS // 2**20} MiB and more, and {free // 2**20:,} MiB are free; give at most {most}"
    else:
        return ""
    return f"processes={asked}: {each}"


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
        """Join the others, where there are any; this process computes on `device`."""
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
        """Rows of all processes in order, `count` of them, with gradients to this process's own, of its share."""
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
        """What the main process has, in all of them: anything that JSON can say; numpy's arrays as lists."""
        if self.count == 1:
            return value
        told = list(json.dumps(value, default=lambda value: value.tolist()).encode()) if self.is_main else []
        size = torch.tensor([len(told)], device=self._state.device)
        distributed.broadcast(size, 0)
        letters = torch.tensor(told or [0] * int(size), dtype=torch.uint8, device=self._state.device)
        distributed.broadcast(letters, 0)
        return json.loads(bytes(letters.tolist()))

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
