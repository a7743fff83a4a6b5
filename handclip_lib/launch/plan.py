"""What a run would do, before anything is started: its parameters, its folder, and where it would go on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from handclip_lib.errors import RunError
from handclip_lib.launch.launcher import prepare
from handclip_lib.parameters.parts import Parameters
from handclip_lib.runs.listing import changed_of
from handclip_lib.runs.record import TRAINING_CHECKPOINTS, read_record, record_of
from handclip_lib.terminal import one_line

TRAINED_IN = ("02", "03", "04")
SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """Where a training of a run stands.

    Attributes:
        file: Written after every epoch.
        epoch: Epochs done.
        epochs: Epochs in all.
    """

    file: Path
    epoch: int
    epochs: int

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{self.file.name}, epoch {self.epoch} of {self.epochs}"


@dataclass(frozen=True)
class Plan:
    """One run before it starts.

    Attributes:
        config: Its parameters, checked.
        folder: Its folder, whose name is the run's id.
        record: What is known of the same run before, as `record_of` says it; None: it never started.
        checkpoint: What a training in it would go on from; None: it would start at the beginning.
    """

    config: Parameters
    folder: Path
    record: dict[str, Any] | None
    checkpoint: Checkpoint | None

    @property
    def changed(self) -> dict[str, Any]:
        """Parameters that are not their default."""
        return changed_of({"parameters": self.config.model_dump(), "defaults": defaults(self.config)})

    def state(self) -> str:
        """What there is of this run already, and what starting it would do."""
        if self.record is None:
            return "not started yet"
        status, error = self.record["status"], self.record.get("error")
        if status == "succeeded":
            return f"succeeded on {self.record.get('finished')}; it is not run again without --force"
        if status == "running":
            return f"running {one_line(self.record.get('error') or 'now')}; a second start would be refused"
        on = f"would go on from {self.checkpoint}" if self.checkpoint else "no checkpoint: would start at the beginning"
        return f"{one_line(status)}{f' ({one_line(error)})' if error else ''}; {on}"

    def __str__(self) -> str:
        """Id, folder, state, and every parameter; a star before those that are not their default."""
        values, usual = self.config.model_dump(), defaults(self.config)
        width = max(map(len, values))
        lines = [f"run     {self.folder.name}", f"folder  {self.folder}", f"state   {self.state()}", ""]
        lines.append(f"parameters of {self.config.notebook} (* is not the default, which follows in brackets):")
        for name, value in values.items():
            line = f"{name.ljust(width)}  {json.dumps(value)}"
            lines.append(f"* {line}  [{json.dumps(usual[name])}]" if name in self.changed else f"  {line}")
        return "\n".join(lines)


def plan(notebook: Path, parameters: Mapping[str, Any]) -> Plan:
    """What `launch` would do with the same arguments; nothing is made or started.

    Raises:
        ConfigError: All faults at once; see `prepare`.
    """
    prepared = prepare(notebook, parameters)
    folder = prepared.folder
    record = record_of(folder) if folder.is_dir() else None
    stopped = record is not None and record["status"] not in ("succeeded", "running")
    return Plan(prepared.config, folder, record, find_checkpoint(folder) if stopped else None)


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """Where the training of a run stands, read from the head of its file; None where there is none to read."""
    for name in TRAINING_CHECKPOINTS:
        if not (folder / name).is_file():  # a pipe would be waited for
            continue
        try:
            with safetensors.safe_open(folder / name, "np") as opened:
                facts = json.loads((opened.metadata() or {})["handclip"])
            return Checkpoint(folder / name, len(facts["history"]) - 1, int(facts["options"]["epochs"]))
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
            continue
    return None


def resumed_from(planned: Plan) -> Checkpoint:
    """The checkpoint that a run goes on from.

    Raises:
        RunError: There is nothing to go on from; the message says why, and which runs there are.
    """
    if planned.checkpoint is not None:
        return planned.checkpoint
    notebook = planned.config.notebook
    if notebook[:2] not in TRAINED_IN:
        raise RunError(f"{notebook} trains nothing, so there is nothing to resume; leave out --resume")
    if planned.record is not None:
        raise RunError(f"nothing to resume: {planned.folder.name} is {planned.state()}")
    found = [_difference(folder, planned) for folder in sorted(planned.folder.parent.glob(f"{notebook}-*"))]
    near = sorted((text for text in found if text), key=len)[:SHOWN]
    others = "\n  ".join(["; these could go on:", *near]) if near else f"; no other run of {notebook} could go on"
    raise RunError(f"nothing to resume: {planned.folder.name} is not started yet; leave out --resume{others}")


def _difference(folder: Path, planned: Plan) -> str:
    """A stopped run with a checkpoint, and in what it differs; "" for another."""
    record, checkpoint = read_record(folder), find_checkpoint(folder)
    if record is None or checkpoint is None or record["status"] in ("succeeded", "running"):
        return ""
    theirs, ours = record.get("parameters") or {}, planned.config.model_dump()
    differs = ", ".join(f"{name}={theirs.get(name)!r}" for name in ours if theirs.get(name) != ours[name])
    why = differs or "same parameters, but the library, the notebook or the data changed since"
    return f"{folder.name} ({checkpoint}): {why}"


def defaults(config: Parameters) -> dict[str, Any]:
    """Default of each parameter."""
    return {name: field.default for name, field in type(config).model_fields.items()}
