"""A sweep: many runs of one notebook, each a normal run; what succeeded before is not repeated, and a summary is kept.

`summary.csv` and `summary.md` are whole after each run that ends; figures of the effects follow at the end.
"""

import csv
import io
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
from handclip_lib.evaluation.tables import in_percent
from handclip_lib.files import file_lock, make_folder, whole_file, write_text, writing
from handclip_lib.launch.executors import Place, answers, on_dask, on_slurm, on_this_machine
from handclip_lib.launch.launcher import asked_to_stop
from handclip_lib.launch.plan import Point
from handclip_lib.launch.worker import ELSEWHERE, NOT_RUN
from handclip_lib.machine import cores
from handclip_lib.places import PROJECT, reports_folder
from handclip_lib.runs.record import lock_of, now, read_record, record_of, write_record
from handclip_lib.terminal import one_line

Opener = Callable[[str, Path], AbstractContextManager[Place]]
"""Opens the place where a sweep runs, given the sweep's own word and its folder."""
Row = Mapping[str, Any]
HELD_OUT = {
    "strangers_rank1": "rank-1",
    "strangers_map": "mAP",
    "strangers_gain": "gain over the frozen model",
    "strangers_gain_low": "95 % from",
    "strangers_gain_high": "to",
    "strangers_worst": "gain of the worst fold",
}  # of `Generalisation.figures`
MEASURES = (
    {"strangers_rank1": "rank-1 of people held out", "strangers_map": "mAP of people held out"},
    {"rank1": "rank-1", "map": "mAP"},
    {"val_image_to_text@1": "validation image→text@1", "val_text_to_image@1": "validation text→image@1"},
    {"image_to_text@1": "training image→text@1", "text_to_image@1": "training text→image@1"},
)  # what a notebook's runs are compared by: the first pair that they have
HEADLINE = (*HELD_OUT, "rank1", "rank1_low", "rank1_high", "map")
LAST = ("seconds", "status", "error", "run")
DPI = 144


def sweep(notebook: Path, points: Sequence[Point], name: str, place: Opener, *, force: bool = False) -> int:
    """Run the points that have not succeeded, and keep a summary of all.

    A point that fails does not stop the others. SIGINT and SIGTERM interrupt what is under way, each run by its own
    honest end; the same sweep started again goes on from there.

    Returns:
        Exit code: 0 all succeeded now or before, 1 some did not, 130 or 143 interrupted.

    Raises:
        ConfigError: The place to run is not there.
        RunError: The folder `name` of `reports/sweeps/` cannot be written or is in use, or the place is gone.
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
    title = f"Sweep {name} of {notebook.stem}"
    with lock, asked_to_stop() as asked:
        rows = {point.folder.name: row_of(point) for point in points}
        waiting = [point for point in points if force or rows[point.folder.name]["status"] != "succeeded"]
        if waiting:
            shared: dict[str, Any] = {
                "sweep": uuid4().hex, "notebook": str(notebook.absolute()), "force": force, "cwd": str(Path.cwd()),
                "log": str(folder / "sweep.log"),
                "environment": {"HANDCLIP_REPORTS": str(reports_folder()), PROJECT: os.environ.get(PROJECT, "")},
            }  # fmt: skip
            with place(shared["sweep"], folder) as opened:
                _run(shared, waiting, rows, opened, lambda: write_summary(folder, title, list(rows.values())), asked)
            for point in waiting:  # what another sweep ran has perhaps ended since
                row = row_of(point)
                if rows[point.folder.name]["status"] == ELSEWHERE and row["status"] != "running":
                    rows[point.folder.name] = row
        table = list(rows.values())
        # the mean over everything else at each seed says nothing, unless the seed is all there is
        names = [parameter for parameter in points[0].varied if parameter != "seed"] or ["seed"]
        figures = draw_effects(folder, table, names)
        write_summary(folder, title, table, figures)
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

    Here, runs that train on several GPUs are given as many each; `workers` run at once, 0: one a GPU, or one for two
    cores where there is none.
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


def row_of(point: Point, status: str = "", error: str | None = None) -> dict[str, Any]:
    """A point's row: what it varies, the figures of its run's record, seconds, status, error, id.

    `status` is how it ended in this sweep, as `run_point` answers; "" for what the record says.
    """
    record: dict[str, Any] = record_of(point.folder) if point.folder.is_dir() else {"status": NOT_RUN}
    status = "succeeded" if status == "skipped" else status or record["status"]
    metrics = {name: value for name, value in (record.get("metrics") or {}).items() if isinstance(value, int | float)}
    if "rank1" in metrics:
        metrics = {name: metrics[name] for name in HEADLINE if name in metrics}
    ended = {"seconds": record.get("seconds"), "status": status, "error": error or record.get("error")}
    return {**point.varied, **(metrics if status == "succeeded" else {}), **ended, "run": point.folder.name}


def write_summary(folder: Path, title: str, rows: Sequence[Row], figures: Mapping[str, str] | None = None) -> None:
    """Write rows of `row_of` as `summary.csv`, in full precision, and `summary.md`, each whole or not at all.

    `figures` says by its file's name what each figure on the page shows.
    """
    columns = [*dict.fromkeys(name for row in rows for name in row if name not in LAST), *LAST]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "summary.csv", text.getvalue())
    lines = [columns, ["---"] * len(columns), *([_shown(row.get(name)) for name in columns] for row in rows)]
    done = sum(row["status"] == "succeeded" for row in rows)
    page = [f"# {title}", "", f"{done} of {len(rows)} runs succeeded. Shares are in 0..1.", ""]
    if choice := _choice(rows):
        page += ["Training people who were held out, in percent and points, the best gain first. Choose by them. The"]
        page += ["interval is over folds, or over seeds where there are several: of two it is wide.", ""]
        tested = "`rank1` and `map` are of the people tested: chosen by them is selected on test."
        page += [*_table(choice), "", tested, ""]
    page += [*_table(lines), ""]
    page += [line for name, alt in (figures or {}).items() for line in (f"![{alt}]({name})", "")]
    write_text(folder / "summary.md", "\n".join(page))


def _choice(rows: Sequence[Row]) -> list[list[str]]:
    """Settings and their figures of people held out, over all seeds, the best gain first; empty where nobody was.

    The interval of the gain is that of one seed's folds, or of the mean over seeds, Student's t.
    """
    from handclip_lib.evaluation.intervals import mean_interval

    settings: dict[tuple[str, ...], list[Row]] = {}
    varied = [name for name in rows[0] if name not in (*HEADLINE, *LAST, "seed")]
    for row in rows:
        if "strangers_gain" in row:
            settings.setdefault(tuple(_shown(row.get(name)) for name in varied), []).append(row)
    found = []
    for setting, those in settings.items():
        each = {name: [row[name] for row in those if name in row] for name in HELD_OUT}
        mean = {name: sum(values) / len(values) for name, values in each.items() if values}
        mean["strangers_worst"] = min(each["strangers_worst"])
        if len(those) > 1:
            mean["strangers_gain_low"], mean["strangers_gain_high"] = mean_interval(each["strangers_gain"])
        cells = [f"{100 * mean[name]:.1f}" if name in mean else "" for name in HELD_OUT]
        found.append((mean["strangers_gain"], [*setting, str(len(those)), *cells]))
    head = [*varied, "runs", *HELD_OUT.values()]
    best = [cells for _, cells in sorted(found, key=lambda one: -one[0])]
    return [head, ["---"] * len(head), *best] if best else []


def draw_effects(folder: Path, rows: Sequence[Row], names: Sequence[str]) -> dict[str, str]:
    """Draw the effect of each parameter that the sweep varies, over all values of the others, as `effect_NAME.png`.

    What each shows, by its file's name; none where fewer than two runs succeeded, or nothing compares them.
    """
    done = [row for row in rows if row["status"] == "succeeded"]
    measures = next((pair for pair in MEASURES if done and all(set(pair) <= set(row) for row in done)), None)
    if measures is None or len(done) < 2:
        return {}
    import pandas as pd

    from handclip_lib.plots.comparison import sweep_effect

    files = {}
    for name in names:
        table = pd.DataFrame([{"value": row[name], **{measure: row[measure] for measure in measures}} for row in done])
        path = folder / f"effect_{name}.png"
        with whole_file(path) as private:
            sweep_effect(table, name, measures).savefig(private, dpi=DPI)
        files[path.name] = f"{' and '.join(measures.values())} over {name}: lines are means, dots single runs"
    return files


def line_of(row: Row, label: str) -> str:
    """One line for a run that ended: its point, what it reached, its seconds or what is wrong."""
    if row["status"] != "succeeded":
        first = str(row["error"] or "").strip().splitlines()[:1]
        return one_line(f"{label}: {row['status']}" + (f": {first[0]}" if first else ""))
    measures = next((pair for pair in MEASURES if set(pair) <= set(row)), {})
    share = {name: in_percent(row[name]) for name in (*measures, *HEADLINE) if name in row}  # "" of NaN: not measurable
    parts = [f"{text} {share[name]} %" if share[name] else f"{text} not measurable" for name, text in measures.items()]
    if "strangers_gain" in row:
        parts.append(f"{100 * row['strangers_gain']:+.1f} points over the frozen model")
    elif share.get("rank1_low"):
        parts[0] += f" ({share['rank1_low']}–{share['rank1_high']})"
    return one_line(f"{label}: " + ", ".join([*parts, f"{row['seconds']} s"]))


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _shown(value: Any) -> str:
    """A cell of Markdown: four digits, one line, and no sign that would end it."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _run(
    shared: dict[str, Any], waiting: Sequence[Point], rows: dict[str, dict[str, Any]], place: Place,
    keep: Callable[[], None], asked: Sequence[str],
) -> None:  # fmt: skip
    from tqdm.auto import tqdm

    def task_of(point: Point) -> dict[str, Any]:
        return shared | {"run": point.folder.name, "parameters": point.parameters}

    live = sys.stderr.isatty()
    bar = tqdm(total=len(rows), initial=len(rows) - len(waiting), desc="runs", unit="run", disable=not live)
    with bar:
        for point, answer in answers(waiting, task_of, place, lambda: bool(asked)):
            if answer["status"] in ("lost", "died"):
                answer = {"status": "died", "error": answer["error"]}
                _settle(point, answer["error"])
            row = rows[point.folder.name] = row_of(point, answer["status"], answer["error"])
            keep()
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
        with suppress(Timeout), file_lock(lock_of(point.folder), timeout=0):
            write_record(point.folder, record | {"status": "died", "error": error, "finished": now()})


def _gpus() -> list[str]:
    """The GPUs of this machine that are ours to use, without the seconds that importing torch takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True)
        named = done.stdout.replace("\n", ",") if done.returncode == 0 else ""
    return [gpu.strip() for gpu in (named or "").split(",") if gpu.strip() not in ("", "-1")]
