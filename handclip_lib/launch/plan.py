"""Runs before they start: parameters and all they name checked, folders, where each would go on; of a sweep, all."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import safetensors

from handclip_lib.backbone.properties import Given
from handclip_lib.errors import ConfigError, RunError
from handclip_lib.parameters.files import is_name
from handclip_lib.parameters.guard import changed, defaults, refusal, resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS, ImageFinetune
from handclip_lib.parameters.parts import Parameters
from handclip_lib.places import reports_folder
from handclip_lib.runs.identity import code_of, run_id
from handclip_lib.runs.inputs import EARLIER, as_opened, input_faults, weights_faults, what_is_read
from handclip_lib.runs.record import TRAINING_CHECKPOINTS, read_record, record_of
from handclip_lib.terminal import one_line

NAMES_INPUTS = (
    "dataset", "data_root", "extra_data", "aspect", "backbone", "weights", "input_size", "activation", "heads",
    "mean_std", "embeddings", *EARLIER,
)  # fmt: skip
"""Parameters that name what is read: two runs with equal ones read the same."""
SHOWN = 3  # runs that could be meant
MOST = 1000  # points; also the size of the largest job array Slurm takes as it is delivered
SECTIONS = ("fixed", "grid", "list")


@dataclass(frozen=True)
class Checkpoint:
    """Where a training of a run stands: `epoch` of `epochs` are done, by the file of its folder written after each."""

    file: str
    epoch: int
    epochs: int

    def __str__(self) -> str:
        return f"{self.file}, epoch {self.epoch} of {self.epochs}"


@dataclass(frozen=True)
class Plan:
    """One run before it starts: its checked parameters, what it reads, and its folder, whose name is the run's id."""

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

    def state(self) -> str:
        """What there is of this run already, and what starting it would do."""
        if self.record is None:
            return "not started yet"
        status, error = self.record["status"], self.record.get("error")
        if status == "succeeded":
            return f"succeeded on {self.record.get('finished')}; it is not run again without --force"
        if status == "running":
            return f"running {one_line(error or 'now')}; a second start would be refused"
        on = f"would go on from {self.checkpoint}" if self.checkpoint else "no checkpoint: would start at the beginning"
        return f"{one_line(status)}{f' ({one_line(error)})' if error else ''}; {on}"

    def rates(self) -> str:
        """Those of a fine-tune, and who chose what is not given: the backbone's kind."""
        from handclip_lib.backbone.load import check_weights
        from handclip_lib.backbone.rates import chosen, rates_of

        config = cast(ImageFinetune, self.config)
        given = Given(config.activation, config.heads, config.mean_std)
        is_vit, width = check_weights(config.backbone, config.weights, config.size, given)
        by = rates_of(is_vit, width, config.lora_rank > 0)
        rates = chosen(config.learning_rate, config.head_learning_rate, by)
        said = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        return said + ("" if config.learning_rate and config.head_learning_rate else f" (of 0: {by.source})")

    def __str__(self) -> str:
        """Id, folder, state, and every parameter; a star before those that are not their default."""
        values, usual = self.config.model_dump(), defaults(type(self.config))
        width = max(map(len, values))
        lines = [f"run     {self.folder.name}", f"folder  {self.folder}", f"state   {self.state()}", ""]
        lines.append(f"parameters of {self.config.notebook} (* is not the default, which follows in brackets):")
        for name, value in values.items():
            line = f"{name.ljust(width)}  {json.dumps(value)}"
            lines.append(f"  {line}" if value == usual[name] else f"* {line}  [{json.dumps(usual[name])}]")
        if isinstance(self.config, ImageFinetune):
            lines += ["", f"learning rates: {self.rates()}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its parameters as given, those of them that differ between points, and its folder."""

    parameters: dict[str, Any]
    varied: dict[str, Any]
    folder: Path

    @property
    def label(self) -> str:
        """What tells it from the other points, such as "n_ctx=4 seed=1"."""
        return _label(self.varied)


def plan(notebook: Path, parameters: Mapping[str, Any], known: dict[Any, Any] | None = None) -> Plan:
    """Look at parameters and at all they name; nothing is made or started.

    Args:
        known: What was found of data, weights and runs, for other plans that name the same: many points of a sweep.

    Raises:
        ConfigError: All faults at once: of the parameters, of the data, weights and runs that they name, and of the
            room that its processes have here.
    """
    model = NOTEBOOKS[notebook.stem]
    given = defaults(model) | dict(parameters)
    try:
        config = resolve(model, dict(parameters))
    except ConfigError as error:
        raise refusal([*input_faults(given), *weights_faults(given)], error) from error
    seen, named = {} if known is None else known, tuple(given.get(name) for name in NAMES_INPUTS)

    def once(look: Callable[[Any], Any], at: Any) -> Any:
        if (look, named) not in seen:
            seen[look, named] = look(at)
        return seen[look, named]

    if faults := once(input_faults, given):
        raise refusal([*faults, *once(weights_faults, given)])
    config = as_opened(config)
    read = once(what_is_read, config)
    planned = Plan(config, read, run_folder(notebook, config, read))
    before = read_record(planned.folder) or {}
    if before.get("status") != "succeeded":  # of one that did these very weights were read
        room = _room_faults(config) if known is None else []  # points of a sweep may run on another machine
        if faults := [*once(weights_faults, given), *room]:
            raise refusal(faults)
    return planned


def _room_faults(config: Parameters) -> list[str]:
    if not isinstance(config, ImageFinetune) or config.processes == 1:
        return []
    from handclip_lib.training.launch import room_fault

    return [fault] if (fault := room_fault(config)) else []


def run_folder(notebook: Path, config: Parameters, read: Mapping[str, str] | None = None) -> Path:
    """Where a run of these parameters is kept; it need not be there yet. `read`: as `run_id` takes it."""
    return reports_folder() / "runs" / run_id(config, code_of(notebook), read)


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """Where the training of a run stands, read from the head of its file; None where there is none to read.

    The training of all people is the last; before it come those without a fold, and before them all prompts.
    """
    image, prompts = TRAINING_CHECKPOINTS
    folds = sorted(folder.glob(f"folds/*/{image}"), key=lambda file: (len(file.parent.name), file.parent.name))
    for file in (folder / image, *reversed(folds), folder / prompts):
        if not file.is_file():  # a pipe would be waited for
            continue
        try:
            with safetensors.safe_open(file, "np") as opened:
                facts = json.loads((opened.metadata() or {})["handclip"])
            name = file.relative_to(folder).as_posix()
            return Checkpoint(name, len(facts["history"]) - 1, int(facts["options"]["epochs"]))
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
            continue
    return None


def resumed_from(planned: Plan) -> Checkpoint:
    """The checkpoint that a run goes on from; a RunError says why there is none, and which runs there are."""
    if planned.checkpoint is not None:
        return planned.checkpoint
    notebook, ours = planned.config.notebook, planned.config.model_dump()
    if "epochs" not in ours:
        raise RunError(f"{notebook} trains nothing, so there is nothing to resume; leave out --resume")
    if planned.record is not None:
        raise RunError(f"nothing to resume: {planned.folder.name} is {planned.state()}")
    others = []
    for folder in sorted(planned.folder.parent.glob(f"{notebook}-*")):
        record, checkpoint = read_record(folder) or {}, find_checkpoint(folder)
        if checkpoint is None or record.get("status") in (None, "succeeded", "running"):
            continue
        differs = ", ".join(
            f"{name}={value!r}" for name, value in changed(record.get("parameters") or {}, ours).items()
        )
        why = differs or "same parameters, but the library, the notebook or the data changed since"
        others.append(f"{folder.name} ({checkpoint}): {why}")
    near = sorted(others, key=len)[:SHOWN]
    remedy = "\n  ".join(["; these could go on:", *near]) if near else f"; no other run of {notebook} could go on"
    raise RunError(f"nothing to resume: {planned.folder.name} is not started yet; leave out --resume{remedy}")


def read_points(
    notebook: Path, sweep: Mapping[str, Any], base: Mapping[str, Any] | None = None,
    typed: Mapping[str, Any] | None = None,
) -> list[Point]:  # fmt: skip
    """Every point of a sweep, in the order of its file; points that come to the same run are one.

    A point is one entry of `list` with one value of each name of `grid`, over what is fixed.

    All faults are one ConfigError, each with the points it is of.

    Args:
        sweep: What the sweep's file holds: `grid` (name -> list of values; every combination), `list` (a list of
            names with values), `fixed` (names with values) or plain names with values.
        base: Parameters of files before it, which it overrides.
        typed: Parameters of the command line, which override what is fixed.
    """
    grid, entries, fixed = _sections(sweep, typed or {})
    count = math.prod(len(values) for values in grid.values()) * len(entries)
    if count > MOST:
        raise ConfigError(f"the sweep has {count} points, and {MOST} are the most; leave out values of its grid")
    swept = list(dict.fromkeys([*itertools.chain.from_iterable(entries), *grid]))
    fixed = {**(base or {}), **fixed, **(typed or {})}
    plans: dict[Parameters, tuple[Plan, dict[str, Any]]] = {}
    faults: dict[str, list[str]] = {}
    known: dict[Any, Any] = {}  # most points read the same files
    for entry, *values in itertools.product(entries, *grid.values()):
        own = {**entry, **dict(zip(grid, values, strict=True))}
        try:
            planned = plan(notebook, {**fixed, **own}, known)
            plans.setdefault(planned.config, (planned, {**fixed, **own}))
        except ConfigError as error:
            for line in str(error).splitlines()[1:]:
                faults.setdefault(line.strip(), []).append(_label(own))
    if faults:
        lines = "\n".join(f"  {fault} ({_whose(labels, count)})" for fault, labels in faults.items())
        raise ConfigError(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in a sweep of {count}:\n{lines}")
    shown = [name for name in swept if len({repr(getattr(config, name)) for config in plans}) > 1] or swept

    def those(config: Parameters, names: Iterable[str]) -> dict[str, Any]:
        return {name: getattr(config, name) for name in names}

    return [Point(those(at, given), those(at, shown), planned.folder) for at, (planned, given) in plans.items()]


def _sections(
    sweep: Mapping[str, Any], typed: Mapping[str, Any]
) -> tuple[dict[str, list], list[dict[str, Any]], dict[str, Any]]:
    """Grid, entries of the list (one that is empty where there is no list) and what is fixed."""
    grid, entries, fixed = sweep.get("grid", {}), sweep.get("list", [{}]), sweep.get("fixed", {})
    plain = {name: value for name, value in sweep.items() if name not in SECTIONS}
    faults = []
    if "grid" not in sweep and "list" not in sweep:
        faults.append("there is neither grid nor list, so there is nothing to sweep; one run is `handclip run`")
    if not isinstance(fixed, dict):
        faults.append(f"fixed: {fixed!r} is no mapping; lines of `name: value` are wanted")
    if not isinstance(grid, dict) or ("grid" in sweep and not grid):
        faults.append(f"grid: {grid!r} is no mapping; lines of `name: [value, value]` are wanted")
    else:
        faults += [
            f"grid: {name}: {values!r} is no list of values; write {name}: [value, value]"
            for name, values in grid.items()
            if not isinstance(values, list) or not values
        ]
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        faults.append(f"list: {entries!r} is no list of mappings; lines of `- {{name: value, name: value}}` are wanted")
    if not faults:
        in_list = set().union(*entries)
        names = [*grid, *in_list, *fixed, *plain]
        faults += [f"{name!r} is no name of a parameter" for name in names if not is_name(name)]
        faults += [f"{name}: in grid and in list; leave it in one" for name in grid if name in in_list]
        twice = [name for name in {**fixed, **plain} if name in grid or name in in_list]
        faults += [f"{name}: fixed and swept in one file; leave out one" for name in twice]
        faults += [f"{name}: fixed twice; leave out one" for name in fixed if name in plain]
        faults += [f"-p {name}: the sweep varies it; leave it out" for name in typed if name in {*grid, *in_list}]
    if faults:
        raise ConfigError("the sweep's file is wrong:\n" + "\n".join(f"  {fault}" for fault in faults))
    return grid, entries, {**fixed, **plain}


def _label(varied: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in varied.items()) or "the one point"


def _whose(labels: list[str], count: int) -> str:
    more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
    return "every point" if len(labels) == count else labels[0] + more
