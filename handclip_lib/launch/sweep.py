"""A sweep: many runs of one notebook, each a normal run; what succeeded before is not repeated."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import Timeout

from handclip_lib.errors import RunError
from handclip_lib.files import file_lock, make_folder, writing
from handclip_lib.launch.executors import Place, answers, on_dask, on_slurm, on_this_machine
from handclip_lib.launch.launcher import asked_to_stop
from handclip_lib.launch.points import Point
from handclip_lib.launch.summary import draw_effects, line_of, row_of, write_summary
from handclip_lib.launch.worker import ELSEWHERE, NOT_RUN
from handclip_lib.machine import cores
from handclip_lib.places import reports_folder
from handclip_lib.runs.record import now, read_record, write_record

Opener = Callable[[str, Path], AbstractContextManager[Place]]
"""Opens the place where a sweep runs, given the sweep's own word and its folder."""


def sweep(notebook: Path, points: Sequence[Point], name: str, place: Opener, *, force: bool = False) -> int:
    """Run the points that have not succeeded, and keep a summary of all.

    A point that fails does not stop the others. SIGINT and SIGTERM interrupt what is under way, each run by its own
    honest end; the same sweep started again goes on from there.

    Args:
        points: Of `read_points`.
        name: Of the folder in `reports/sweeps/`.
        place: Of `choose_place`.
        force: Run again what succeeded before.

    Returns:
        Exit code: 0 all succeeded now or before, 1 some did not, 130 or 143 interrupted.

    Raises:
        ConfigError: The place to run is not there.
        RunError: The folder cannot be written or is in use, or the place is gone.
    """
    folder = reports_folder() / "sweeps" / name
    with writing(folder):
        make_folder(folder)
        try:
            lock = file_lock(folder / ".lock", timeout=0).acquire()
        except Timeout as error:  # an OSError too, of another kind
            raise RunError(
                f"the sweep {name} is under way in another process; wait, or give this one a --name"
            ) from error
    with lock, asked_to_stop() as asked:
        rows = {point.folder.name: row_of(point) for point in points}
        waiting = [point for point in points if force or rows[point.folder.name]["status"] != "succeeded"]
        if waiting:
            _run(notebook, waiting, rows, folder, place, force, asked)
            for point in waiting:  # what another sweep ran has perhaps ended since
                row = row_of(point)
                if rows[point.folder.name]["status"] == ELSEWHERE and row["status"] != "running":
                    rows[point.folder.name] = row
        table = list(rows.values())
        # the mean over everything else at each seed says nothing, unless the seed is all there is
        names = [parameter for parameter in points[0].varied if parameter != "seed"] or ["seed"]
        figures = draw_effects(folder, table, names)
        write_summary(folder, _title(notebook, name), table, figures)
        for old in folder.glob("effect_*.png"):  # of what its file varied before
            if old.name not in figures:
                old.unlink()
    if asked:
        return 128 + signal.Signals[asked[0]]
    return 0 if all(row["status"] == "succeeded" for row in table) else 1


def choose_place(
    points: Sequence[Point], *, workers: int = 0, scheduler: str = "", slurm: Mapping[str, Any] | None = None
) -> Opener:
    """Where a sweep runs: on this machine, unless a Dask scheduler or options of Slurm are given.

    Args:
        points: Runs that train on several GPUs are given as many each.
        workers: Runs at once on this machine; 0 for one a GPU, or one for two cores where there is none.
        scheduler: Address of a Dask cluster's; "" for none.
        slurm: Options of `on_slurm`; None for no Slurm.
    """
    if slurm is not None:
        return lambda _, folder: on_slurm(folder / "slurm", slurm)
    if scheduler:
        return lambda word, _: on_dask(word, scheduler)
    each = max(point.parameters.get("processes", 1) for point in points)
    gpus = _gpus()
    groups = [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)]
    lent = cores()
    workers = min(workers or len(groups) or max(1, lent // 2), len(points))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, lent // workers)))
    return lambda word, _: on_this_machine(word, workers=workers, gpus=groups, threads=threads)


def _run(
    notebook: Path, waiting: Sequence[Point], rows: dict[str, dict[str, Any]], folder: Path, place: Opener,
    force: bool, asked: Sequence[str],
) -> None:  # fmt: skip
    from tqdm.auto import tqdm

    shared: dict[str, Any] = {
        "sweep": uuid4().hex, "notebook": str(notebook.absolute()), "force": force, "cwd": str(Path.cwd()),
        "log": str(folder / "papermill.log"), "environment": {"HANDCLIP_REPORTS": str(reports_folder())},
    }  # fmt: skip

    def task_of(point: Point) -> dict[str, Any]:
        return shared | {"run": point.folder.name, "parameters": point.parameters}

    live = sys.stderr.isatty()
    bar = tqdm(total=len(rows), initial=len(rows) - len(waiting), desc="runs", unit="run", disable=not live)
    with bar, place(shared["sweep"], folder) as opened:
        for point, answer in answers(waiting, task_of, opened, lambda: bool(asked)):
            if answer["status"] in ("lost", "died"):
                answer = {"status": "died", "error": answer["error"]}
                _settle(point, answer["error"])
            row = rows[point.folder.name] = row_of(point, answer["status"], answer["error"])
            write_summary(folder, _title(notebook, folder.name), list(rows.values()))
            bar.update(answer["status"] != NOT_RUN)
            bar.set_postfix_str(line_of(row, point.label))
            if not live:
                print(line_of(row, point.label), flush=True)  # a log is read while the sweep goes on
            elif row["status"] in ("failed", ELSEWHERE):
                tqdm.write(line_of(row, point.label))


def _settle(point: Point, error: str) -> None:
    """Let the record of a run whose worker is lost say so, unless another process has taken it up."""
    record = read_record(point.folder)
    if record and record["status"] in ("running", "died", "lost"):
        with suppress(Timeout), file_lock(point.folder.with_name(f".{point.folder.name}.lock"), timeout=0):
            write_record(point.folder, record | {"status": "died", "error": error, "finished": now()})


def _gpus() -> list[str]:
    """The GPUs of this machine that are ours to use, without the seconds that importing torch takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True)
        named = done.stdout.replace("\n", ",") if done.returncode == 0 else ""
    return [gpu.strip() for gpu in (named or "").split(",") if gpu.strip() not in ("", "-1")]


def _title(notebook: Path, name: str) -> str:
    return f"Sweep {name} of {notebook.stem}"
