"""What a training keeps: tensors and what is known of them in one file, whole or not there at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from handclip_lib.errors import TrainingError
from handclip_lib.files import whole_file

_FACTS = "handclip"


def save_checkpoint(file: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, with facts (JSON values) in the file's own header: one file cannot disagree with another.

    Raises:
        TrainingError: The file cannot be written.
    """
    # copies: two names of one memory are refused
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        with whole_file(file) as private:
            safetensors.torch.save_file(whole, private, {_FACTS: json.dumps(facts)})
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(f"{file} cannot be written ({error}); free space, then run again: it resumes") from error


def load_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        TrainingError: The file is absent or damaged, or not of `save_checkpoint`.
    """
    try:
        with safetensors.safe_open(file, "pt") as opened:
            facts = json.loads((opened.metadata() or {})[_FACTS])
            return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(f"{file} is no checkpoint of a training ({error}); delete it and train again") from error
