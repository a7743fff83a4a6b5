import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from nbformat import v4

from handclip_lib.cli import main
from handclip_lib.errors import ConfigError, RunError
from handclip_lib.launch import launcher
from handclip_lib.launch.launcher import find_notebook, gather, launch, parameters_of
from handclip_lib.runs.record import read_record

SMALL = {"drawn_subjects": 8, "drawn_images": 3, "draws": 2, "resolution": 32, "samples": 4}


pytestmark = pytest.mark.usefixtures("reports")


def test_later_parameters_win_and_raw_ones_stay_text(tmp_path: Path):
    (tmp_path / "a.yml").write_text("seed: 1\naspect: palmar_r\nlr: 1e-3\n")
    (tmp_path / "b.yml").write_text("seed: 2\n")
    files = [str(tmp_path / "a.yml"), str(tmp_path / "b.yml")]
    merged = gather(files, [("draws", "3"), ("flag", "true"), ("lr", "2e-3")], [("data_root", "007")])
    assert merged == {"seed": 2, "aspect": "palmar_r", "lr": 0.002, "draws": 3, "flag": "true", "data_root": "007"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("seed: 1\nseed: 2", r"seed stands twice.*line 2"), ("grid: {seed: [1], seed: [2]}", "seed stands twice"),
        ("yes: 1", "True is no name"), ("1: 2", "1 is no name"), ("_seed: 1", "'_seed' is no name"),
        ("[]", "holds a list"), ("- 1\n- 2", "holds a list"), ("a: [", "is not YAML"),
        ("seed:\t1\n\tdraws: 2", "is not YAML"), (None, "No such file"),
    ],
)  # fmt: skip
def test_nothing_of_a_parameters_file_is_passed_over_in_silence(content, words, tmp_path: Path):
    if content is not None:
        (tmp_path / "given.yml").write_text(content)
    with pytest.raises(ConfigError, match=rf"given\.yml.*{words}"):
        gather([str(tmp_path / "given.yml")], [], [])


def test_a_parameters_file_is_read_as_papermill_reads_it_with_anchors_and_without_dates(tmp_path: Path):
    (tmp_path / "given.yml").write_text("data_root: 2026-11-20\nlist: [&a {seed: 3, draws: 1}, {<<: *a, draws: 2}]\n")
    found = gather([str(tmp_path / "given.yml")], [], [])
    assert found == {"data_root": "2026-11-20", "list": [{"seed": 3, "draws": 1}, {"seed": 3, "draws": 2}]}
    (tmp_path / "given.yml").write_text("")
    assert gather([str(tmp_path / "given.yml")], [], []) == {}


def test_what_several_notebooks_are_given_is_for_those_that_have_it_or_for_the_one_that_is_named(tmp_path: Path):
    (tmp_path / "a.yml").write_text("seed: 1\nbackbone: vitb16\n")
    notebooks = [find_notebook(name) for name in ("01", "03", "05")]
    typed = [("3.epochs", "6"), ("draws", "3"), ("05.draws", "4"), ("03.data_root", "7")]
    found = parameters_of(notebooks, [str(tmp_path / "a.yml")], typed, [("data_root", "007")])
    assert found == [
        {"seed": 1, "draws": 3, "data_root": "007"},
        {"seed": 1, "backbone": "vitb16", "draws": 3, "epochs": 6, "data_root": "007"},
        {"seed": 1, "backbone": "vitb16", "draws": 4, "data_root": "007"},
    ]
    with pytest.raises(ConfigError, match=r"04\.epochs: 04 is none of the notebooks that are run: 01_data"):
        parameters_of(notebooks, [], [("04.epochs", "6")], [])
    with pytest.raises(ConfigError) as refused:  # of all, before the first has run for hours
        parameters_of(notebooks, [], [("drows", "6"), ("03.epochs", "x")], [])
    assert str(refused.value).count("drows: no such parameter; did you mean draws") == 3
    assert "03_image_finetune: 2 parameters are wrong" in str(refused.value)


def test_a_chain_of_notebooks_ends_with_the_first_that_fails(monkeypatch, capsys):
    begun = []
    monkeypatch.setattr(launcher.Papermill, "run", lambda _, task, __: begun.append(task) or (1, None))
    assert main(["run", "02", "01", "05"]) == 1
    assert [(Path(task["notebook"]).stem[:2], task["last"]) for task in begun] == [("02", False)]
    assert "not run after it: 01_data_exploration, 05_evaluation" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-p", "-r"])
def test_a_name_that_a_kernel_keeps_for_itself_is_no_parameter(option: str, capsys):
    assert main(["run", "01", "--dry-run", option, "_seed", "1"]) == 2
    assert "'_seed' is no name" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["05", "5", "05_evaluation", "notebooks/05_evaluation.ipynb"])
def test_a_notebook_is_found_by_number_name_or_path(name):
    assert find_notebook(name).stem == "05_evaluation"


def test_an_unknown_notebook_lists_those_there_are():
    names = "01_data_exploration, 02_prompt_learning, 03_image_finetune, 04_joint_training, 05_evaluation, 06_ana"
    with pytest.raises(ConfigError, match=names):
        find_notebook("09")


def test_a_notebook_that_was_removed_from_a_study_is_named_with_the_way_to_get_it_again(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "study.toml").touch()
    monkeypatch.setenv("HANDCLIP_PROJECT", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"05_evaluation\.ipynb is not there: copy it from a new study: handclip init"
    ):
        find_notebook("05")


def test_a_launch_makes_a_report_that_is_its_owners_alone_and_is_not_repeated(reports: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o022)
    done = launch(find_notebook("01"), SMALL)
    os.umask(before)
    written = [path for top in (reports, tmp_path / "cache") for path in (top, *top.rglob("*"))]
    assert len({path.suffix for path in written}) > 8, "pixels, drawn hands, locks, figures, tables, the report, …"
    assert [path for path in written if path.stat().st_mode & 0o077] == []
    assert (done.status, done.error) == ("succeeded", None)
    files = {path.name for path in done.folder.iterdir()}
    assert {"run.json", "executed.ipynb", "report.html", "split.csv", "split.json", "metrics.json"} <= files
    assert not [name for name in files if name.startswith(".")]
    assert done.folder.name in (reports / "index.html").read_text()
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: pytest.fail("run again"))
    assert launch(find_notebook("01"), SMALL).status == "skipped"
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (1, None))
    assert launch(find_notebook("01"), SMALL, force=True).status == "failed"
    assert read_record(done.folder)["status"] == "failed"


def notebook_of(folder: Path, *cells: str) -> Path:
    """A notebook 01 with these cells after the guard."""
    guard = "from handclip_lib.parameters.notebooks import DataExploration\nfrom handclip_lib.runs import start"
    sources = [guard, "seed = 0", "config, run = start(DataExploration, globals())", *cells, "run.finish()"]
    new = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
    new.cells[1].metadata.tags = ["parameters"]
    new.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir()
    nbformat.write(new, folder / "01_data_exploration.ipynb")
    return folder / "01_data_exploration.ipynb"


def test_notebooks_that_run_together_share_a_kernel_and_nothing_else(tmp_path: Path):
    looks = "import os, sys\nprint(os.getpid(), 'left' in globals(), len(In), os.environ['HANDCLIP_RUN'])"
    says = "os.write(2, f'seed {config.seed}'.encode())\nleft = 1"  # of no stream, as a process's below
    notebook = notebook_of(tmp_path / "own", looks, says)
    broken = notebook_of(tmp_path / "broken", "1 / 0")
    with launcher.Papermill() as papermill:
        runs = [launch(notebook, {"seed": seed}, papermill=papermill, last=False) for seed in (1, 2)]
        assert [run.status for run in runs] == ["succeeded", "succeeded"]
        assert (
            launch(broken, {"seed": 3}, papermill=papermill, last=False).error == "ZeroDivisionError: division by zero"
        )
        after = launch(notebook, {"seed": 4}, papermill=papermill)
    said = []
    for run, seed in zip([*runs, after], (1, 2, 4), strict=True):
        cells = nbformat.read(run.folder / "executed.ipynb", 4).cells
        assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5, 6, 7]  # papermill's own among them
        said.append(cells[4].outputs[0].text.split())
        assert said[-1][1:] == ["False", "6", str(run.folder)]
        assert f"seed {seed}" in (log := (run.folder / launcher.LOG).read_text())
        assert sum(f"seed {other}" in log for other in (1, 2, 4)) == 1
    assert said[0][0] == said[1][0] != said[2][0], "after one that failed there is a new kernel"


def test_a_notebook_that_does_not_reach_its_end_has_failed(monkeypatch):
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (0, None))
    done = launch(find_notebook("01"), SMALL | {"seed": 5})
    assert (done.status, "run.finish" in done.error) == ("failed", True)


@pytest.mark.matrix("two at once", "start", "the second is refused")
def test_the_same_run_is_not_started_twice(monkeypatch):
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (1, None))
    folder = launch(find_notebook("01"), SMALL | {"seed": 6}).folder
    with FileLock(folder.parent / f".{folder.name}.lock"), pytest.raises(RunError, match="another process"):
        launch(find_notebook("01"), SMALL | {"seed": 6})


LOSES_THE_FIRST = """
import signal, sys, time
lost = []
signal.signal(signal.SIGINT, lambda *_: sys.exit(3) if lost else lost.append(1))
open(sys.argv[1], "w").close()
while True:
    time.sleep(0.01)
"""


@pytest.mark.matrix("signal", "papermill, which loses it", "asked again until it ends")
def test_a_notebook_that_loses_the_signal_is_asked_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(launcher, "AGAIN", 0.2)
    ready = tmp_path / "ready"

    def stop() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    command = [sys.executable, "-c", LOSES_THE_FIRST, str(ready)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert launcher.waited_for(child, None) == (3, "SIGTERM"), "-9 where it is ended by force"


def test_the_command_line_lists_runs_and_refuses_without_a_traceback(monkeypatch, capsys):
    assert main(["runs"]) == 0
    assert "no runs in" in capsys.readouterr().out
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (1, None))
    assert main(["run", "01", "-p", "draws", "2", "-p", "drawn_subjects", "8"]) == 1
    capsys.readouterr()
    assert main(["runs"]) == 0
    assert "failed" in capsys.readouterr().out
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["parameters"]["draws"] == 2
    assert main(["run", "01", "-p", "drows", "2"]) == 2
    assert "did you mean draws" in capsys.readouterr().err
    assert main(["data", "check", "/nowhere/at/all"]) == 2
    assert "/nowhere/at/all" in capsys.readouterr().err
