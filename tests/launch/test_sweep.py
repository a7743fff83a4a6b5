import csv
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from filelock import FileLock

from handclip_lib.cli import main
from handclip_lib.errors import ConfigError, RunError
from handclip_lib.launch import executors, worker
from handclip_lib.launch.executors import Place, _Listed, answers, on_slurm, on_this_machine
from handclip_lib.launch.launcher import find_notebook
from handclip_lib.launch.plan import MOST, read_points
from handclip_lib.launch.sweep import choose_place, line_of, row_of, sweep, write_summary
from handclip_lib.launch.worker import ELSEWHERE, run_point
from handclip_lib.runs.record import UnderWayError, this_process

Launch = Callable[[dict[str, Any]], dict[str, Any]]


pytestmark = pytest.mark.usefixtures("reports")


def points_of(text: str, notebook: str = "02", **more):
    return read_points(find_notebook(notebook), yaml.safe_load(text), **more)


def test_a_grid_is_every_combination_in_the_order_of_the_file_over_what_is_fixed():
    points = points_of("epochs: 3\ngrid:\n  n_ctx: [8, 2]\n  seed: [0, 1]")
    assert [point.label for point in points] == ["n_ctx=8 seed=0", "n_ctx=8 seed=1", "n_ctx=2 seed=0", "n_ctx=2 seed=1"]
    assert points[0].parameters == {"epochs": 3, "n_ctx": 8, "seed": 0}
    assert len({point.folder for point in points}) == 4


def test_a_list_is_combined_with_the_grid_and_leaves_the_rest_as_it_is_fixed():
    text = "list: [{n_ctx: 2, epochs: 5}, {n_ctx: 8}]\ngrid: {seed: [0, 1]}"
    points = points_of(text, base={"epochs": 3})
    assert [point.varied for point in points] == [
        {"n_ctx": 2, "epochs": 5, "seed": 0}, {"n_ctx": 2, "epochs": 5, "seed": 1},
        {"n_ctx": 8, "epochs": 3, "seed": 0}, {"n_ctx": 8, "epochs": 3, "seed": 1},
    ]  # fmt: skip


def test_points_that_are_the_same_run_are_one_and_text_becomes_a_number():
    # 1e-2 is text to YAML; 0.02 is the default, so the second and the third are the run of no parameter at all
    points = points_of("grid: {learning_rate: [1e-2, 0.02, 2.0e-2]}")
    assert [point.parameters for point in points] == [{"learning_rate": 0.01}, {"learning_rate": 0.02}]


def test_the_command_line_wins_over_what_is_fixed_and_files_before_are_overridden():
    (point,) = points_of(
        "epochs: 3\ngrid: {n_ctx: [8]}", base={"epochs": 2, "n_ctx": 1, "draws": 4}, typed={"draws": 2}
    )
    assert point.parameters == {"epochs": 3, "n_ctx": 8, "draws": 2}
    assert point.varied == {"n_ctx": 8}


def test_every_fault_of_every_point_is_told_once_with_its_points():
    with pytest.raises(ConfigError) as caught:
        points_of("epoch: 3\ngrid:\n  n_ctx: [4, 99, many]\n  seed: [0, 1]\n")
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 faults in a sweep of 6:"
    assert lines[1] == "  epoch: no such parameter; did you mean epochs? (every point)"
    assert [line for line in lines if line.startswith("  n_ctx=99: ") and line.endswith("(n_ctx=99 seed=0 and 1 more)")]
    assert [line for line in lines if line.startswith("  n_ctx='many': a whole number is wanted")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: 3", "neither grid nor list"), ("grid: {}", "no mapping"), ("grid: [1, 2]", "no mapping"),
        ("grid: {n_ctx: 4}", r"write n_ctx: \[value, value\]"), ("grid: {n_ctx: []}", "n_ctx: .* is no list of values"),
        ("list: {n_ctx: 4}", "no list of mappings"), ("list: []", "no list of mappings"),
        ("list: [4]", "no list of mappings"), ("list: [{n_ctx: 4}]\ngrid: {n_ctx: [2]}", "n_ctx: in grid and in list"),
        ("n_ctx: 4\ngrid: {n_ctx: [2]}", "n_ctx: fixed and swept in one file"),
        ("epochs: 4\nfixed: {epochs: 3}\ngrid: {n_ctx: [2]}", "epochs: fixed twice"),
        ("fixed: 3\ngrid: {n_ctx: [2]}", "fixed: 3 is no mapping"),
        ("grid: {4: [2]}", "4 is no name"),
        ("grid: {_seed: [1, 2]}", "'_seed' is no name"),
        (f"grid: {{seed: {list(range(40))}, n_ctx: {list(range(1, 41))}}}", f"1600 points, and {MOST} are the most"),
    ],
)  # fmt: skip
def test_an_empty_ambiguous_or_absurd_sweep_is_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        points_of(text)


def test_a_swept_parameter_is_not_typed_too():
    with pytest.raises(ConfigError, match="-p n_ctx: the sweep varies it"):
        points_of("grid: {n_ctx: [2, 4]}", typed={"n_ctx": 8})


def record(task: dict[str, Any], reports: Path, **values: Any) -> dict[str, Any]:
    """What a launch leaves: a run's folder with its record."""
    folder = reports / "runs" / task["run"]
    folder.mkdir(parents=True, exist_ok=True)
    given = {"id": task["run"], "status": "succeeded", "error": None, "seconds": 2.0, "metrics": {}} | values
    (folder / "run.json").write_text(json.dumps(given))
    return {"status": given["status"], "error": given["error"]}


def in_turn(launch: Launch):
    """A place that runs one point at a time, here."""

    def submit(tasks: list[dict[str, Any]]) -> list[Future]:
        (task,) = tasks
        future: Future = Future()
        future.set_result(launch(task))
        return [future]

    return lambda word, folder: nullcontext(Place(submit, lambda: None, lambda: 1))


def summary(reports: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((reports / "sweeps" / "one" / "summary.csv").open()))


def test_what_succeeded_is_not_repeated_a_failure_stops_no_other_and_the_code_says_so(reports: Path):
    points, begun = points_of("grid: {n_ctx: [1, 2, 4]}"), []

    def launch(task: dict[str, Any]) -> dict[str, Any]:
        n_ctx = task["parameters"]["n_ctx"]
        begun.append(n_ctx)
        if n_ctx == 2 and begun.count(2) == 1:
            return record(task, reports, status="failed", error="TrainingError: a | b\nand more")
        return record(
            task, reports, metrics={"val_image_to_text@1": n_ctx / 10, "val_text_to_image@1": 0.5, "best": "x"}
        )

    assert sweep(find_notebook("02"), points, "one", in_turn(launch)) == 1
    assert begun == [1, 2, 4]
    assert [(row["n_ctx"], row["status"], row["val_image_to_text@1"]) for row in summary(reports)] == [
        ("1", "succeeded", "0.1"), ("2", "failed", ""), ("4", "succeeded", "0.4"),
    ]  # fmt: skip
    assert "TrainingError: a \\| b and more" in (reports / "sweeps" / "one" / "summary.md").read_text()
    assert sweep(find_notebook("02"), points, "one", in_turn(launch)) == 0
    assert begun == [1, 2, 4, 2]
    files = {path.name for path in (reports / "sweeps" / "one").iterdir()}
    assert files == {".lock", "summary.csv", "summary.md", "effect_n_ctx.png"}
    assert sweep(find_notebook("02"), points, "one", in_turn(launch), force=True) == 0
    assert begun == [1, 2, 4, 2, 1, 2, 4]


def test_figures_of_what_a_changed_file_no_longer_varies_go(reports: Path):
    measured = {"val_image_to_text@1": 0.5, "val_text_to_image@1": 0.5}
    place = in_turn(lambda task: record(task, reports, metrics=measured))
    for name in ("n_ctx", "epochs"):
        sweep(find_notebook("02"), points_of(f"grid: {{{name}: [3, 4]}}"), "one", place)
        assert [path.name for path in (reports / "sweeps" / "one").glob("*.png")] == [f"effect_{name}.png"]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/", "../runs", ".lock"])
def test_the_name_of_a_sweep_is_that_of_one_folder(name: str, reports: Path, capsys):
    assert main(["sweep", "02", "-f", "params/sweeps/n_ctx.yml", "--dry-run", "--name", name]) == 2
    assert "give the name of one folder" in capsys.readouterr().err
    assert not reports.exists()


def test_the_summary_is_whole_after_every_run(reports: Path):
    seen = []

    def launch(task: dict[str, Any]) -> dict[str, Any]:
        file = reports / "sweeps" / "one" / "summary.csv"
        seen.append([row["status"] for row in summary(reports)] if file.exists() else [])
        return record(task, reports)

    sweep(find_notebook("02"), points_of("grid: {n_ctx: [1, 2, 4]}"), "one", in_turn(launch))
    assert seen == [[], ["succeeded", "not run", "not run"], ["succeeded", "succeeded", "not run"]]


@pytest.mark.matrix("killed", "sweep: a worker, again and again", "died after three attempts; the others go on")
def test_a_lost_run_is_begun_three_times_and_its_record_then_says_that_it_died(reports: Path):
    points, begun = points_of("grid: {n_ctx: [1, 2]}"), []

    def launch(task: dict[str, Any]) -> dict[str, Any]:
        begun.append(task["parameters"]["n_ctx"])
        lost = {"status": "lost", "error": "job 7 ended without an answer"}
        if begun == [1] or begun[-1] == 2:  # the first is lost once, the second always
            record(task, reports, status="running", process={"host": "elsewhere", "pid": 1, "began": "1"})
            return lost
        return record(task, reports)

    assert sweep(find_notebook("02"), points, "one", in_turn(launch)) == 1
    assert begun == [1, 1, 2, 2, 2]
    assert [row["status"] for row in summary(reports)] == ["succeeded", "died"]
    written = json.loads((points[1].folder / "run.json").read_text())
    assert (written["status"], written["error"]) == ("died", "job 7 ended without an answer")


@pytest.mark.matrix(
    "two at once", "a second sweep over runs under way", "waited for, or running elsewhere; none failed"
)
def test_what_another_sweep_runs_is_running_elsewhere_and_counts_when_it_has_succeeded(reports: Path):
    points, theirs = points_of("grid: {n_ctx: [1, 2]}"), this_process() | {"host": "node7"}
    endings = []

    def launch(task: dict[str, Any]) -> dict[str, Any]:
        if task["parameters"]["n_ctx"] == 1:
            record(task, reports, status="running", process=theirs)
            return {"status": ELSEWHERE, "error": "it is running on node7"}
        (points[0].folder / "run.json").write_text(json.dumps({"id": "", "status": endings[-1], "process": theirs}))
        return record(task, reports)

    for ended, code, status in (("running", 1, ELSEWHERE), ("failed", 1, "failed"), ("succeeded", 0, "succeeded")):
        endings.append(ended)
        assert sweep(find_notebook("02"), points, "one", in_turn(launch), force=True) == code
        assert [row["status"] for row in summary(reports)] == [status, "succeeded"]


@pytest.mark.parametrize("wait", [0.0, 60.0])
def test_a_run_under_way_is_waited_for_and_then_running_elsewhere(wait: float, monkeypatch):
    (point,) = points_of("grid: {n_ctx: [3]}")
    task = {"notebook": str(find_notebook("02")), "parameters": point.parameters, "run": point.folder.name}
    clock, tried = iter(range(0, 1000, 10)), []

    def refused(*_, **__):
        tried.append(1)
        error = UnderWayError("it is running on node7")
        error.wait = wait
        raise error

    monkeypatch.setattr("sys.argv", [])  # it is set for the record
    monkeypatch.setattr(worker, "launch", refused)
    monkeypatch.setattr(worker.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(worker.time, "sleep", lambda _: None)
    answer = worker._launched(task | {"force": False})
    assert answer == {"status": ELSEWHERE, "error": "it is running on node7"}
    assert len(tried) == (7 if wait else 4), "a machine that may be gone is waited for longer"


def test_once_stopped_nothing_is_begun_and_what_runs_is_interrupted():
    points, stopped, run = points_of("grid: {n_ctx: [1, 2, 4]}"), [], Future()

    def submit(tasks):
        stopped.append(True)
        return [run for _ in tasks]

    place = Place(submit, lambda: run.set_result({"status": "interrupted", "error": "stopped"}), lambda: 1)
    ended = [(point.label, answer["status"]) for point, answer in answers(points, vars, place, lambda: bool(stopped))]
    assert ended == [("n_ctx=2", "not run"), ("n_ctx=4", "not run"), ("n_ctx=1", "interrupted")]


@pytest.mark.matrix("two at once", "sweep", "the second is refused")
def test_a_sweep_under_way_is_not_started_twice(reports: Path):
    (reports / "sweeps" / "one").mkdir(parents=True)
    with FileLock(reports / "sweeps" / "one" / ".lock"), pytest.raises(RunError, match=r"under way.*--name"):
        sweep(find_notebook("02"), points_of("grid: {n_ctx: [1]}"), "one", in_turn(lambda task: {}))


def test_a_run_s_line_has_its_figures_with_the_interval(reports: Path):
    (point,) = points_of("grid: {learning_rate: [0.001]}", "03")
    metrics = {"rank1": 0.9204, "rank1_low": 0.89, "rank1_high": 0.947, "map": 0.95, "minp": 0.9, "n_query": 245}
    record({"run": point.folder.name}, reports, metrics=metrics)
    row = row_of(point, "skipped")
    assert " ".join(row) == "learning_rate rank1 rank1_low rank1_high map seconds status error run"
    assert line_of(row, point.label) == "learning_rate=0.001: rank-1 92.0 % (89.0–94.7), mAP 95.0 %, 2.0 s"


def test_a_sweep_of_trainings_is_chosen_from_by_people_held_out_over_seeds_and_the_worst_fold(reports: Path):
    points = points_of("folds: 2\ngrid:\n  interpolation: [1.0, 0.5]\n  seed: [1, 2]", "03")
    gains = {(1.0, 1): (0.02, -0.06), (1.0, 2): (0.04, 0.01), (0.5, 1): (0.05, 0.03), (0.5, 2): (0.07, 0.02)}

    def launch(task: dict[str, Any]) -> dict[str, Any]:
        gain, worst = gains[task["parameters"]["interpolation"], task["parameters"]["seed"]]
        metrics = {
            "strangers_rank1": 0.8 + gain,
            "strangers_map": 0.9,
            "strangers_gain": gain,
            "strangers_worst": worst,
        }
        metrics |= {
            "strangers_gain_low": gain - 0.2,
            "strangers_gain_high": gain + 0.2,
            "rank1": 0.99 - gain,
            "map": 0.9,
        }
        return record(task, reports, metrics=metrics)

    assert sweep(find_notebook("03"), points, "one", in_turn(launch)) == 0
    page = (reports / "sweeps" / "one" / "summary.md").read_text()
    tables = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert tables[0] == [
        "interpolation", "runs", "rank-1", "mAP", "gain over the frozen model", "95 % from", "to",
        "gain of the worst fold",
    ]  # fmt: skip
    # the mean of two seeds ± 12.706 · 0.02 / √2 · 1 / √2
    assert tables[2] == ["0.5", "2", "86.0", "90.0", "6.0", "-6.7", "18.7", "2.0"]
    assert tables[3] == ["1", "2", "83.0", "90.0", "3.0", "-9.7", "15.7", "-6.0"]
    assert "`rank1` and `map` are of the people tested" in page
    row = row_of(points[0])
    assert line_of(row, "it") == "it: rank-1 of people held out 82.0 %, mAP of people held out 90.0 %, " + (
        "+2.0 points over the frozen model, 2.0 s"
    )
    (alone,) = points_of("grid: {seed: [3]}", "03")
    launch({"run": alone.folder.name, "parameters": {"interpolation": 1.0, "seed": 1}})
    write_summary(reports / "sweeps" / "one", "one seed", [row_of(alone)])
    assert "| 1 | 82.0 | 90.0 | 2.0 | -18.0 | 22.0 | -6.0 |" in (reports / "sweeps" / "one" / "summary.md").read_text()


def test_what_could_not_be_measured_is_told_as_that():
    row = {"status": "succeeded", "rank1": float("nan"), "rank1_low": float("nan"), "map": 0.5, "seconds": 2.0}
    assert line_of(row, "seed=1") == "seed=1: rank-1 not measurable, mAP 50.0 %, 2.0 s"


def test_each_worker_has_its_gpus_and_a_run_on_two_has_two(monkeypatch):
    given = {}
    monkeypatch.setattr("handclip_lib.launch.sweep.on_this_machine", lambda word, **options: given.update(options))
    monkeypatch.setattr("handclip_lib.launch.sweep.cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def chosen(text: str, gpus: str, workers: int = 0) -> dict[str, Any]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        choose_place(points_of(text, "03"), workers=workers)("", Path())
        return given

    many = "grid: {seed: [0, 1, 2, 3, 4, 5, 6, 7, 8]}"
    assert chosen(many, "0,2,5") == {"workers": 3, "gpus": ["0", "2", "5"], "threads": "2"}
    assert chosen("processes: 2\n" + many, "0,2,5") == {"workers": 1, "gpus": ["0,2"], "threads": "8"}
    assert chosen(many, "") == {"workers": 4, "gpus": [], "threads": "2"}
    assert chosen(many, "-1", workers=8) == {"workers": 8, "gpus": [], "threads": "1"}
    assert chosen("grid: {seed: [0]}", "", workers=8) == {"workers": 1, "gpus": [], "threads": "8"}


def test_a_dry_run_lists_the_points_with_their_runs_and_makes_nothing(reports: Path, tmp_path: Path, capsys):
    (tmp_path / "grid.yml").write_text("grid: {n_ctx: [1, 2]}")
    points = points_of("grid: {n_ctx: [1, 2]}")
    record({"run": points[1].folder.name}, reports)
    assert main(["sweep", "02", "-f", str(tmp_path / "grid.yml"), "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["2", "points,", "1", "of", "them", "done"], ["n_ctx", "status", "run"],
        ["1", "not", "run", points[0].folder.name], ["2", "succeeded", points[1].folder.name],
    ]  # fmt: skip
    assert not (reports / "sweeps").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "n_ctx", "3"], "the sweep varies it"), (["--workers", "-1"], "1 or more"),
        (["-s", "time", "5"], "give --slurm too"), (["--slurm"], "-s time MINUTES"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler with a worker answers"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_without_a_traceback(words, message, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("handclip_lib.launch.executors.ANSWERS_WITHIN", 1)
    (tmp_path / "grid.yml").write_text("grid: {n_ctx: [1, 2]}")
    assert main(["sweep", "02", "-f", str(tmp_path / "grid.yml"), *words]) == 2
    assert message in capsys.readouterr().err


def test_slurm_names_what_is_missing_and_lists_its_options(tmp_path: Path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="sbatch, srun, squeue, scancel not found"):
        on_slurm(tmp_path, {"time": 5}).__enter__()
    monkeypatch.setattr("shutil.which", lambda name: "/bin/true")
    with pytest.raises(ConfigError, match=r"Unavailable parameter.*partitoin"):
        on_slurm(tmp_path, {"time": 5, "partitoin": "gpu"}).__enter__()
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'handclip\[slurm\]'"):
        on_slurm(tmp_path, {"time": 5}).__enter__()


def test_a_job_is_lost_that_slurm_has_not_listed_for_some_time(tmp_path: Path, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\ncat $(dirname $0)/queue || exit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    clock = [0.0]
    monkeypatch.setattr(executors.time, "monotonic", lambda: clock[0])
    listed = _Listed()

    def lacks(seconds: float, queue: str | None) -> bool:
        clock[0] = seconds
        (tmp_path / "queue").unlink(missing_ok=True)
        if queue is not None:
            (tmp_path / "queue").write_text(queue)
        return listed.lacks("12_1")

    assert not lacks(0, "12_0\n12_1\n")
    assert not lacks(10, "12_0\n")  # its answer may be on its way
    assert not lacks(20, "12_1\n")  # requeued
    assert not lacks(30, "")
    assert not lacks(100, None)  # no controller answers: nothing is known
    assert lacks(110, "")


def test_a_worker_that_does_not_see_the_reports_is_told_of_the_file_system(tmp_path: Path):
    answer = run_point({"log": str(tmp_path / "nowhere" / "papermill.log")})
    assert answer["status"] == "failed"
    assert "file system" in answer["error"]


def test_a_process_refuses_a_run_that_is_another_here_and_a_lost_process_is_told(reports: Path, tmp_path: Path):
    """Through the real local place: the processes start, answer and end; no kernel is started."""
    (point,) = points_of("grid: {n_ctx: [3]}")
    task = {
        "sweep": "w", "notebook": str(find_notebook("02")), "force": False, "cwd": str(Path.cwd()), "environment": {},
        "log": str(tmp_path / "log"), "run": "02-another", "parameters": point.parameters,
    }  # fmt: skip
    broken = task | {"cwd": str(tmp_path), "environment": {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}}
    with on_this_machine("w", workers=1, threads="1") as place:
        ((_, answer),) = answers([point], lambda _: task, place, lambda: False)
        assert answer["status"] == "failed"
        assert "02-another would be 02_prompt_learning" in answer["error"]
        ((_, answer),) = answers([point], lambda _: broken, place, lambda: False)
        assert answer["status"] == "lost"
        assert "ended with code 1" in answer["error"]
        assert [each for each in psutil.Process().net_connections("inet") if each.status == psutil.CONN_LISTEN] == []


def test_each_run_at_once_has_gpus_of_its_own_and_gives_them_back(monkeypatch):
    held, most = Counter(), []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")

    def run(task: dict[str, Any]) -> dict[str, Any]:
        gpu = task["environment"]["CUDA_VISIBLE_DEVICES"]
        held[gpu] += 1
        most.append(max(held.values()))
        time.sleep(0.02)
        held[gpu] -= 1
        return {"status": "succeeded", "gpu": gpu}

    monkeypatch.setattr(executors, "run_point", run)
    points = points_of(f"grid: {{n_ctx: {list(range(1, 9))}}}")
    with on_this_machine("w", workers=2, gpus=["0,1", "2,3"], threads="1") as place:
        used = {answer["gpu"] for _, answer in answers(points, lambda _: {"environment": {}}, place, lambda: False)}
    assert (used, max(most)) == ({"0,1", "2,3"}, 1)


def test_a_run_on_dask_computes_on_its_share_of_the_cores(monkeypatch):
    """Dask's nanny sets all three to 1; what a person set stays."""
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(address="tcp://10.0.0.2:4001"))
    monkeypatch.setattr(executors, "run_point", lambda task: task["environment"])
    monkeypatch.setattr(executors, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "6")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    at_once = {"tcp://10.0.0.2": 2, "tcp://10.0.0.3": 8}
    environment = executors.run_with_cores({"environment": {"HANDCLIP_REPORTS": "r"}}, at_once)
    assert environment == {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4", "HANDCLIP_REPORTS": "r"}
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(address="tcp://10.0.0.3:4001"))
    assert executors.run_with_cores({"environment": {}}, at_once)["OMP_NUM_THREADS"] == "1"
