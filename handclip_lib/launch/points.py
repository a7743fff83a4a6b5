"""The points of a sweep: read from its file and checked, every fault of every point at once, before anything runs."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handclip_lib.errors import ConfigError
from handclip_lib.launch.launcher import run_folder
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.parameters.parts import Parameters
from handclip_lib.parameters.yaml import is_name
from handclip_lib.runs.inputs import input_faults, named_inputs, weights_faults, what_is_read

MOST = 1000  # points; also the size of the largest job array Slurm takes as it is delivered
SECTIONS = ("fixed", "grid", "list")


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


def read_points(
    notebook: Path, sweep: Mapping[str, Any], base: Mapping[str, Any] | None = None,
    typed: Mapping[str, Any] | None = None,
) -> list[Point]:  # fmt: skip
    """Every point of a sweep, in the order of its file; points that come to the same run are one.

    A point is one entry of `list` with one value of each name of `grid`, over what is fixed.

    Args:
        notebook: The notebook.
        sweep: What the sweep's file holds: `grid` (name -> list of values; every combination), `list` (a list of
            names with values), `fixed` (names with values) or plain names with values.
        base: Parameters of files before it, which it overrides.
        typed: Parameters of the command line, which override what is fixed.

    Raises:
        ConfigError: All faults at once, each with the points it is of.
    """
    grid, entries, fixed = _sections(sweep, typed or {})
    count = math.prod(len(values) for values in grid.values()) * len(entries)
    if count > MOST:
        raise ConfigError(f"the sweep has {count} points, and {MOST} are the most; leave out values of its grid")
    swept = list(dict.fromkeys([*itertools.chain.from_iterable(entries), *grid]))
    fixed = {**(base or {}), **fixed, **(typed or {})}
    configs, faults = _resolved(NOTEBOOKS[notebook.stem], grid, entries, fixed)
    if faults:
        lines = "\n".join(f"  {fault} ({_whose(labels, count)})" for fault, labels in faults.items())
        raise ConfigError(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in a sweep of {count}:\n{lines}")
    shown = [name for name in swept if len({repr(getattr(config, name)) for config, _ in configs}) > 1] or swept
    read: dict[str, dict[str, str]] = {}  # most points read the same files
    for config, _ in configs:
        if named_inputs(config) not in read:
            read[named_inputs(config)] = what_is_read(config)
    return [
        Point(
            {name: getattr(config, name) for name in given},
            {name: getattr(config, name) for name in shown},
            run_folder(notebook, config, read[named_inputs(config)]),
        )
        for config, given in configs
    ]


def _resolved(
    model: type[Parameters], grid: Mapping[str, list], entries: list[dict], fixed: Mapping[str, Any]
) -> tuple[list[tuple[Parameters, dict[str, Any]]], dict[str, list[str]]]:
    """Distinct configurations with what was given of each, and the points by fault."""
    found: dict[Parameters, dict[str, Any]] = {}
    faults: dict[str, list[str]] = {}
    looked: dict[str, list[str]] = {}
    for entry, *values in itertools.product(entries, *grid.values()):
        own = {**entry, **dict(zip(grid, values, strict=True))}
        try:
            config = resolve(model, {**fixed, **own})
            found.setdefault(config, {**fixed, **own})
            named, given = named_inputs(config), config.model_dump()
            if named not in looked:
                looked[named] = [*input_faults(given), *weights_faults(given)]
            for line in looked[named]:
                faults.setdefault(line, []).append(_label(own))
        except ConfigError as error:
            for line in str(error).splitlines()[1:]:
                faults.setdefault(line.strip(), []).append(_label(own))
    return list(found.items()), faults


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
    if len(labels) == count:
        return "every point"
    return labels[0] + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")
