import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from handclip_lib.cli import main
from handclip_lib.errors import ConfigError, RunError
from handclip_lib.launch import launcher
from handclip_lib.launch.launcher import find_notebook, gather, launch
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
    monkeypatch.setattr(launcher, "_papermill", lambda *_: pytest.fail("run again"))
    assert launch(find_notebook("01"), SMALL).status == "skipped"
    monkeypatch.setattr(launcher, "_papermill", lambda *_: (1, None))
    assert launch(find_notebook("01"), SMALL, force=True).status == "failed"
    assert read_record(done.folder)["status"] == "failed"


def test_a_notebook_that_does_not_reach_its_end_has_failed(monkeypatch):
    monkeypatch.setattr(launcher, "_papermill", lambda *_: (0, None))
    done = launch(find_notebook("01"), SMALL | {"seed": 5})
    assert (done.status, "run.finish" in done.error) == ("failed", True)


@pytest.mark.matrix("two at once", "start", "the second is refused")
def test_the_same_run_is_not_started_twice(monkeypatch):
    monkeypatch.setattr(launcher, "_papermill", lambda *_: (1, None))
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
    assert launcher._papermill(command, dict(os.environ), None) == (3, "SIGTERM"), "-9 where it is ended by force"


def test_the_command_line_lists_runs_and_refuses_without_a_traceback(monkeypatch, capsys):
    assert main(["runs"]) == 0
    assert "no runs in" in capsys.readouterr().out
    monkeypatch.setattr(launcher, "_papermill", lambda *_: (1, None))
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
