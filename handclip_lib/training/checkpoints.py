"""What a training keeps: tensors and what is known of them in one file, whole or not there at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from handclip_lib.errors import TrainingError
from handclip_lib.files import UNSEALED, is_sealed, seal, whole_file

_FACTS = "handclip"


def save_checkpoint(file: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, with facts (JSON values) in the file's own header: one file cannot disagree with another.

    Raises:
        WriteError: The file cannot be written.
    """
    # copies, one of each: two names of one memory are refused
    whole = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with whole_file(file, "free space, then run again: it resumes") as private:
        safetensors.torch.save_file(whole, private, {_FACTS: json.dumps(facts), **UNSEALED})
        seal(private)


def load_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        TrainingError: The file is absent or damaged, or not of `save_checkpoint`. One without a checksum, of an
            earlier version, is refused too: nobody could say that it goes on to the weights it was stopped at.
    """
    try:
        if not is_sealed(file):
            raise ValueError("it has no checksum, so damage could not be told")
        with safetensors.safe_open(file, "pt") as opened:
            facts = json.loads((opened.metadata() or {})[_FACTS])
            return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(f"{file} is no checkpoint of a training ({error}); delete it and train again") from error


def resume_checkpoint(file: Path | None, options: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint of the same training, where there is one.

    Args:
        file: Where it would be; None: nowhere.
        options: Everything that decides the training, JSON values; the checkpoint's facts hold its own as "options".

    Raises:
        TrainingError: The file is damaged, or of a training with other options.
    """
    if file is None or not file.exists():
        return None
    tensors, facts = load_checkpoint(file)
    theirs, ours = facts.get("options", {}), json.loads(json.dumps(options))
    other = [name for name in ours if theirs.get(name) != ours[name]]
    if other:
        raise TrainingError(f"{file} is of a training with other {', '.join(other)}; delete it, or name another folder")
    return tensors, facts
