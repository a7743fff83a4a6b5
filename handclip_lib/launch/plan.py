"""A run before it starts: its parameters and all they name checked, its folder, and where it would go on."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors

from handclip_lib.errors import ConfigError, RunError
from handclip_lib.parameters.commands import changed, defaults
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.parameters.parts import Parameters
from handclip_lib.places import reports_folder
from handclip_lib.runs.identity import code_of, run_id
from handclip_lib.runs.inputs import as_opened, input_faults, named_inputs, refusal, weights_faults, what_is_read
from handclip_lib.runs.record import TRAINING_CHECKPOINTS, read_record, record_of
from handclip_lib.terminal import one_line

TRAINED_IN = ("02", "03", "04")
SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """Where a training of a run stands: `epoch` of `epochs` are done, by the file written after each."""

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
        read: What it reads, of `what_is_read`.
        folder: Its folder, whose name is the run's id.
    """

    config: Parameters
    read: dict[str, str]
    folder: Path

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """What is known of the same run before, as `record_of` says it; None: it never started."""
        return record_of(self.folder) if self.folder.is_dir() else None

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """What a training in it would go on from; None: it would start at the beginning."""
        stopped = self.record is not None and self.record["status"] not in ("succeeded", "running")
        return find_checkpoint(self.folder) if stopped else None

    @property
    def changed(self) -> dict[str, Any]:
        """Parameters that are not their default."""
        return changed(self.config)

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
        values, usual = self.config.model_dump(), defaults(type(self.config))
        width = max(map(len, values))
        lines = [f"run     {self.folder.name}", f"folder  {self.folder}", f"state   {self.state()}", ""]
        lines.append(f"parameters of {self.config.notebook} (* is not the default, which follows in brackets):")
        for name, value in values.items():
            line = f"{name.ljust(width)}  {json.dumps(value)}"
            lines.append(f"* {line}  [{json.dumps(usual[name])}]" if name in self.changed else f"  {line}")
        return "\n".join(lines)


def plan(notebook: Path, parameters: Mapping[str, Any], known: dict[Any, Any] | None = None) -> Plan:
    """Look at parameters and at all they name; nothing is made or started.

    Args:
        known: What was found of data, weights and runs, for other plans that name the same: many points of a sweep.

    Raises:
        ConfigError: All faults at once: of the parameters, and of the data, weights and runs that they name.
    """
    model = NOTEBOOKS[notebook.stem]
    given = defaults(model) | dict(parameters)
    try:
        config = resolve(model, dict(parameters))
    except ConfigError as error:
        raise refusal([*input_faults(given), *weights_faults(given)], error) from error
    seen, named = {} if known is None else known, named_inputs(config)

    def once(what: Callable[[], Any], name: str) -> Any:
        if (name, named) not in seen:
            seen[name, named] = what()
        return seen[name, named]

    faults = once(lambda: input_faults(given), "faults")
    if faults:
        raise refusal([*faults, *once(lambda: weights_faults(given), "weights")])
    config = as_opened(config)
    read = once(lambda: what_is_read(config), "read")
    planned = Plan(config, read, run_folder(notebook, config, read))
    before = read_record(planned.folder) or {}
    # of a run that succeeded these very weights were read
    if before.get("status") != "succeeded" and (faults := once(lambda: weights_faults(given), "weights")):
        raise refusal(faults)
    return planned


def run_folder(notebook: Path, config: Parameters, read: Mapping[str, str] | None = None) -> Path:
    """Where a run of these parameters is kept; it need not be there yet. `read`: as `run_id` takes it.

    Raises:
        ConfigError: The notebook cannot be read.
    """
    return reports_folder() / "runs" / run_id(config, code_of(notebook), read)


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
    others = [_difference(folder, planned) for folder in sorted(planned.folder.parent.glob(f"{notebook}-*"))]
    near = sorted((text for text in others if text), key=len)[:SHOWN]
    remedy = "\n  ".join(["; these could go on:", *near]) if near else f"; no other run of {notebook} could go on"
    raise RunError(f"nothing to resume: {planned.folder.name} is not started yet; leave out --resume{remedy}")


def _difference(folder: Path, planned: Plan) -> str:
    """A stopped run with a checkpoint, and in what it differs; "" for another."""
    record, checkpoint = read_record(folder), find_checkpoint(folder)
    if record is None or checkpoint is None or record["status"] in ("succeeded", "running"):
        return ""
    theirs, ours = record.get("parameters") or {}, planned.config.model_dump()
    differs = ", ".join(f"{name}={value!r}" for name, value in changed(theirs, ours).items())
    why = differs or "same parameters, but the library, the notebook or the data changed since"
    return f"{folder.name} ({checkpoint}): {why}"
