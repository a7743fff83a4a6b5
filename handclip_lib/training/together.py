"""Start a training on several processes from a notebook."""

import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from handclip_lib.config import ImageFinetune
from handclip_lib.errors import TrainingError
from handclip_lib.files import whole_file
from handclip_lib.machine import cores, free_memory

PARAMETERS = "training.yml"
LAST_LINES = 12
PROCESS = 375 * 2**20  # bytes that a process takes with torch and `tiny`, before its first batch


def train_together(config: ImageFinetune, folder: Path, texts: Path | None = None) -> None:
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
    # torch's own launcher, which `accelerate launch` calls for GPUs: that has no way to start several on a CPU
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(config.processes),
        "-m", "handclip_lib.training", str(folder),
    ]  # fmt: skip
    threads = str(max(1, cores() // config.processes))
    environment = {"OMP_NUM_THREADS": threads} | os.environ
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    said, lines = "", [""]
    try:
        for line in process.stdout or ():
            lines = [*lines[1 - LAST_LINES :], line.rstrip()]
            said = said or (line.strip() if line.startswith("handclip: ") else "")
            print(line, end="")
    finally:
        if process.poll() is None:
            process.terminate()
    if process.wait():
        raise TrainingError(f"{config.processes} processes could not train: {said or chr(10).join(lines)}")


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
