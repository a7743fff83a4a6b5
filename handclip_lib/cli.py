"""The command `handclip`: run a notebook to a report, or many of it; list and clean runs; look at data; take scores.

Exit codes: 0 done (or done before); 1 the notebook or a run of a sweep failed, or `doctor` found something broken; 2
bad parameters or input, or a file that cannot be written; 124 time-out, 130 Ctrl-C, 143 SIGTERM; 137 killed, most
often for memory; 141 nobody reads the output. After 124, 130, 137 and 143 a training goes on from its last epoch when
it is run again.
"""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from handclip_lib.errors import ConfigError, HandClipError, RunError
from handclip_lib.file_commands import add_file_commands
from handclip_lib.parameters.parts import Aspect, Dataset
from handclip_lib.parameters.study import study_parameters
from handclip_lib.places import PROJECT, elsewhere, project, reports_folder, settle_home
from handclip_lib.runs.listing import ORDERS, all_records, as_lines, chosen, columns_of, ordered
from handclip_lib.runs.record import DAMAGED, STATUSES
from handclip_lib.terminal import in_units, one_line, visible
from handclip_lib.version import described

if TYPE_CHECKING:
    from handclip_lib.launch.launcher import Launched

EXIT_CODES = __doc__[__doc__.index("Exit codes:") :] if __doc__ else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settle_home()
        if options.project:
            os.environ[PROJECT] = str(Path(options.project).absolute())  # for the kernel and other processes too
            project()
        code = options.action(options)
        sys.stdout.flush()
        return code
    except HandClipError as error:
        print(f"handclip: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("handclip: stopped by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `handclip runs | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of what is left to write
        return 128 + signal.SIGPIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="handclip", description="Hand re-identification with CLIP.")
    parser.add_argument("--version", action=_Version, nargs=0, help="and the commit, where it is known")
    help_of_project = f"the study to work in ({PROJECT}, or the nearest at or above here)"
    parser.add_argument("--project", default="", metavar="FOLDER", help=help_of_project)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_starts(commands.add_parser)
    _add_looks(commands.add_parser)
    add_file_commands(commands.add_parser)
    for command in commands.choices.values():
        command.add_argument("--project", default=argparse.SUPPRESS, metavar="FOLDER", help=help_of_project)
    return parser


class _Version(argparse.Action):
    """Asks git for the commit, which takes too long for every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(described())
        parser.exit()


def _add_starts(command: Callable[..., argparse.ArgumentParser]) -> None:
    init = command("init", help="make a folder of your own with the notebooks and parameter files, or bring newer ones")
    init.add_argument("folder", nargs="?", default="", metavar="FOLDER", help="to make; with --update: the study's")
    init.add_argument("--update", action="store_true", help="bring newer files, beside what you edited as NAME.new")
    init.set_defaults(action=_init)

    run = command("run", help="run notebooks, each in a folder of its own, and write their reports", epilog=EXIT_CODES)
    run.add_argument("notebooks", nargs="+", metavar="notebook", help="its number (05), name or path; several in turn")
    _add_parameters(run, "YAML file of parameters", name="NAME, or NN.NAME of notebook NN alone")
    start = run.add_mutually_exclusive_group()
    start.add_argument("--force", action="store_true", help="run again from the beginning, whatever there is")
    start.add_argument("--resume", action="store_true", help="only go on with a training that was stopped")
    run.add_argument("--dry-run", action="store_true", help="say what would be run, and start nothing")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="interrupt the run after so long")
    run.set_defaults(action=_run)

    sweep = command("sweep", help="run a notebook at every point of a grid or a list")
    sweep.add_argument("notebook", help="its number (05), name or path")
    _add_parameters(sweep, "YAML file with grid: or list:; files of parameters may come before it", required=True)
    sweep.add_argument("--name", default="", help="of its folder in reports/sweeps; else the number and FILE")
    sweep.add_argument("--force", action="store_true", help="run again what succeeded before")
    sweep.add_argument("--dry-run", action="store_true", help="list the points, their runs and which are done")
    where = sweep.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=0, help="runs at once here; else one a GPU, or one for two cores")
    where.add_argument("--scheduler", default="", metavar="tcp://HOST:PORT", help="run on this Dask cluster")
    where.add_argument("--slurm", action="store_true", help="run in jobs of Slurm")
    sweep.add_argument(
        "-s", dest="slurm_options", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="option of sbatch: partition, time (minutes), gpus_per_node, cpus_per_task, mem, account",
    )  # fmt: skip
    sweep.set_defaults(action=_sweep)


def _add_looks(command: Callable[..., argparse.ArgumentParser]) -> None:
    runs = command("runs", help="list the runs")
    runs.add_argument("--notebook", default="", help="runs of this one: its number (03) or name")
    runs.add_argument("--dataset", default="", choices=get_args(Dataset), help="runs on this one")
    runs.add_argument("--aspect", default="", choices=get_args(Aspect), help="runs on this one")
    runs.add_argument("--status", default="", choices=(*STATUSES, DAMAGED))
    runs.add_argument("--since", default="", metavar="DATE", help="started on this day (UTC) or later: 2026-11-20")
    runs.add_argument(
        "--changed", action="append", default=[], metavar="NAME[=VALUE]",
        help="this parameter is not its default, or has this value; repeatable",
    )  # fmt: skip
    runs.add_argument("--sort", default="started", choices=ORDERS, help="the newest or the highest first")
    runs.add_argument("--json", action="store_true", help="whole records, one JSON list")
    runs.set_defaults(action=_runs)

    report = command("report", help="write reports of runs again")
    report.add_argument("runs", nargs="+", metavar="RUN", help="id, folder, or latest: the newest, however it ended")
    report.add_argument(
        "--interactive", action="store_true",
        help="write report_interactive.html too, larger, whose panels answer: a picture for each choice is in it",
    )  # fmt: skip
    report.add_argument(
        "--private", action="store_true",
        help="write report_private.html instead, to hand on: no photograph, name or place is in it",
    )  # fmt: skip
    report.set_defaults(action=_report)

    clean = command("clean", help="remove old runs without a result, unused caches, half-written files")
    clean.add_argument("--days", type=float, default=30.0, help="age from which runs and cache entries go (30)")
    clean.add_argument("--runs", nargs="+", default=[], metavar="ID", help="these runs alone, even if they succeeded")
    clean.add_argument("--yes", action="store_true", help="remove without asking")
    clean.set_defaults(action=_clean)

    doctor = command("doctor", help="what is installed and there, and what will work")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(action=_doctor)


def _add_parameters(command: argparse.ArgumentParser, file: str, *, name: str = "NAME", required: bool = False) -> None:
    add = partial(command.add_argument, action="append", default=[])
    add("-f", dest="files", metavar="FILE", help=file, required=required)
    add("-p", dest="typed", nargs=2, metavar=(name, "VALUE"), help="a parameter, as papermill reads it")
    add("-r", dest="raw", nargs=2, metavar=(name, "TEXT"), help="as text")


def _init(options: argparse.Namespace) -> int:
    from handclip_lib.study import begin, update

    here = project() if options.update and not options.folder else None
    if not options.folder and here is None:
        raise ConfigError("name the folder: handclip init FOLDER, or handclip init --update FOLDER")
    folder = here or Path(options.folder).expanduser()
    print("\n".join((update if options.update else begin)(folder).lines()))
    print(f"study: {one_line(folder)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from handclip_lib.launch.launcher import Papermill, find_notebook, launch, parameters_of
    from handclip_lib.launch.plan import plan, resumed_from

    notebooks = [find_notebook(name) for name in options.notebooks]
    given = parameters_of(notebooks, options.files, options.typed, options.raw)
    for notebook, own in zip(notebooks, given, strict=True) if options.resume or options.dry_run else ():
        planned = plan(notebook, own)
        if options.dry_run:
            print(planned)
        if options.resume:
            print(f"resumes {planned.folder.name} from {resumed_from(planned)}", flush=True)
    if options.dry_run:
        return 0
    print(f"writes to {reports_folder() / 'runs'}{elsewhere()}", flush=True)
    with Papermill() as papermill:
        for number, (notebook, own) in enumerate(zip(notebooks, given, strict=True), start=1):
            last = number == len(notebooks)
            done = launch(notebook, own, force=options.force, timeout=options.timeout, papermill=papermill, last=last)
            _tell(done)
            if done.exit_code:
                if not last:
                    left = ", ".join(path.stem for path in notebooks[number:])
                    print(f"handclip: not run after it: {left}", file=sys.stderr)
                return done.exit_code
    return 0


def _tell(done: "Launched") -> None:
    from handclip_lib.launch.launcher import LOG
    from handclip_lib.launch.plan import find_checkpoint

    if done.status == "skipped":
        print(f"{done.folder.name} succeeded before; --force runs it again")
    elif done.status != "succeeded":
        print(f"handclip: {done.folder.name} {done.status}: {visible(done.error)}", file=sys.stderr)
        print(f"handclip: what was said meanwhile: {done.folder / LOG}", file=sys.stderr)
        if checkpoint := find_checkpoint(done.folder):
            print(f"handclip: the same command goes on from {checkpoint}", file=sys.stderr)
    if done.report:
        print(f"report: {done.report}", flush=True)


def _sweep(options: argparse.Namespace) -> int:
    from handclip_lib.launch.launcher import find_notebook, gather
    from handclip_lib.launch.plan import read_points
    from handclip_lib.launch.sweep import choose_place, row_of, sweep

    notebook, file = find_notebook(options.notebook), options.files[-1]
    if not re.fullmatch(r"(\w[^/\\\0]*)?", options.name):
        raise ConfigError(f"--name {options.name!r}: give the name of one folder, which begins with a letter or digit")
    base = study_parameters(notebook.stem) | gather(options.files[:-1], [], [])
    typed = gather([], options.typed, options.raw)
    points = read_points(notebook, gather([file], [], []), base, typed)
    rows = [row_of(point) for point in points]
    done = sum(row["status"] == "succeeded" for row in rows)
    print(f"{len(points)} points, {done} of them done")
    if options.dry_run:
        columns = [*points[0].varied, "status", "run"]
        print("\n".join(columns_of([columns, *([one_line(row[column]) for column in columns] for row in rows)])))
        return 0
    if options.workers < 0:
        raise ConfigError(f"--workers {options.workers}: 1 or more are wanted")
    if options.slurm_options and not options.slurm:
        raise ConfigError("-s is an option of Slurm; give --slurm too")
    slurm = gather([], options.slurm_options, []) if options.slurm else None
    place = choose_place(points, workers=options.workers, scheduler=options.scheduler, slurm=slurm)
    name = options.name or f"{notebook.stem[:2]}-{Path(file).stem}"
    print(f"writes to {reports_folder()}{elsewhere()}", flush=True)
    code = sweep(notebook, points, name, place, force=options.force)
    print(f"summary: {reports_folder() / 'sweeps' / name / 'summary.md'}")
    return code


def _runs(options: argparse.Namespace) -> int:
    records = all_records(reports_folder() / "runs")
    asked = (options.notebook, options.dataset, options.aspect, options.status, options.since, options.changed)
    found = ordered(chosen(records, *asked), options.sort)
    if options.json:
        whole = json.loads(json.dumps(found), parse_constant=lambda _: None)  # what is NaN has no word in JSON
        print(json.dumps(whole, indent=1))
    elif not records:
        print(f"no runs in {reports_folder() / 'runs'}; try: handclip run 05{elsewhere()}")
    elif not found:
        print(f"none of {len(records)} runs is one that was asked for")
    else:
        print("\n".join(as_lines(found)))
    return 0


def _report(options: argparse.Namespace) -> int:
    from handclip_lib.report.pages import keep_report, render_report, write_index

    runs, faults = reports_folder() / "runs", []
    for name in dict.fromkeys(options.runs):
        if name == "latest":
            if not (newest := ordered(all_records(runs))):
                raise RunError(f"no runs in {runs}; try: handclip run 05")
            name = str(newest[0]["id"])
        folder = (Path(name) if Path(name).is_dir() else runs / Path(name).name).resolve()
        try:
            keep_report(folder)
            for interactive in (False, True) if options.interactive else (False,):
                written = render_report(folder, interactive=interactive, private=options.private)
                print(f"report: {one_line(written)}")
                if folder.parent == runs.resolve():  # beside a run that was copied elsewhere lies no index of ours
                    write_index(runs)
        except HandClipError as error:
            faults.append(str(error))
    if faults:
        raise RunError("\n".join(faults))
    return 0


def _clean(options: argparse.Namespace) -> int:
    from handclip_lib.report.pages import write_index
    from handclip_lib.runs.listing import named_runs, removable, remove

    items = named_runs(options.runs) if options.runs else removable(options.days)
    if not items:
        print("nothing to remove")
        return 0
    print("\n".join(map(str, items)))
    agreed = options.yes
    try:
        question = f"remove {len(items)}, {in_units(sum(item.size for item in items))} in all? [y/N] "
        agreed = agreed or input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print("(nobody to ask: --yes removes without asking)")
    if not agreed:
        print("nothing was removed")
        return 0
    freed, stays = remove(items)
    runs = reports_folder() / "runs"
    if runs.is_dir():
        write_index(runs)
    print(f"removed {len(items) - len(stays)} of {len(items)}, {in_units(freed)} freed")
    if stays:
        raise RunError("\n".join(stays))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from handclip_lib.doctor import examine

    diagnosis = examine()
    print(diagnosis.as_json() if options.json else diagnosis)
    return 0 if diagnosis.sound else 1


if __name__ == "__main__":
    sys.exit(main())
