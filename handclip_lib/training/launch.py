"""Start a training on several processes from a notebook."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

import torch
import yaml

from handclip_lib.errors import TrainingError
from handclip_lib.files import whole_file
from handclip_lib.machine import cores, free_memory
from handclip_lib.parameters.notebooks import ImageFinetune
from handclip_lib.training.distributed import MEETING

PARAMETERS = "training.yml"
LAST_LINES = 12
PROCESS = 375 * 2**20  # bytes that a process takes with torch and `tiny`, before its first batch


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
    gpus = 0 if config.device == "cpu" else torch.cuda.device_count()
    if 0 < gpus < config.processes:
        raise TrainingError(
            f"processes={config.processes}: each takes a GPU of its own, and there are {gpus}; give at most {gpus}, or "
            "device=cpu"
        )
    _check_room(config.processes, gpus)
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

    Args:
        command: The program, as `subprocess` takes it.
        count: Of processes.
        hear: Called with each line that one of them prints.

    Returns:
        Whether all ended with code 0.
    """
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    own = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    own |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    threads = {"OMP_NUM_THREADS": str(max(1, (cores()) // count))}
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
                    processes.append(
                        subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
                    )
            for process in processes:
                Thread(target=watch, args=[process], daemon=True).start()
            for line in lines:
                hear(line)
            return not sum(process.wait() != 0 for process in processes)
        finally:
            end()
            for process in processes:
                process.wait()


def _check_room(processes: int, gpus: int) -> None:
    """Refuse more processes than this machine lends cores (where they are what computes) or memory."""
    free = free_memory()
    room = free // PROCESS
    if not gpus and processes > cores():
        raise TrainingError(f"processes={processes}: {cores()} cores are to be used here; give at most {cores()}")
    if processes > room:
        raise TrainingError(
            f"processes={processes}: each takes {PROCESS // 2**20} MiB and more, and {free // 2**20:,} MiB are free; "
            f"give at most {max(1, room)}"
        )
