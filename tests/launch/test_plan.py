import json
import shutil
from pathlib import Path

import pytest
import torch

from handclip_lib.cli import main
from handclip_lib.errors import ConfigError, RunError
from handclip_lib.launch import launcher
from handclip_lib.launch.launcher import find_notebook, launch
from handclip_lib.launch.plan import find_checkpoint, plan, resumed_from
from handclip_lib.runs.record import read_record, write_record
from handclip_lib.training.state import save_checkpoint

NOTEBOOK = find_notebook("03")
GIVEN = {"epochs": 5, "drawn_subjects": 12}


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (1, "SIGTERM"))
    return tmp_path / "reports"


def stopped(epochs_done: int = 2, **given) -> Path:
    """A run that SIGTERM stopped, with a checkpoint."""
    folder = launch(NOTEBOOK, GIVEN | given).folder
    rows = [{"epoch": n} for n in range(epochs_done + 1)]
    facts = {"options": {"epochs": 5}, "history": rows, "best_epoch": 0}
    save_checkpoint(folder / "image.safetensors", {"now.x": torch.ones(3)}, facts)
    return folder


def test_a_plan_makes_nothing_and_names_every_parameter(reports: Path, capsys):
    assert main(["run", "03", "--dry-run", "-p", "epochs", "5"]) == 0
    said = capsys.readouterr().out
    assert not reports.exists()
    assert f"run     {plan(NOTEBOOK, {'epochs': 5}).folder.name}\n" in said
    assert "not started yet" in said
    assert [line.split()[1:] for line in said.splitlines() if line.startswith("* ")] == [["epochs", "5", "[8]"]]
    assert "\n  learning_rate         0.0\n" in said
    assert "learning rates: learning_rate 0.0005, head_learning_rate 0.005 (of 0: measured here with tiny" in said
    true = str(plan(NOTEBOOK, {"backbone": "vitb16", "head_learning_rate": 0.01}))
    assert "learning rates: learning_rate 1e-05, head_learning_rate 0.01 (of 0: CLIP-FH's best ViT-B/16" in true


@pytest.mark.parametrize(("lent", "free", "most"), [(4, 2**40, 4), (64, 2**31, 5), (64, 0, 1)])
def test_processes_without_room_here_are_refused_before_a_run_and_not_of_a_sweep(
    reports, monkeypatch, lent, free, most
):
    monkeypatch.setattr("handclip_lib.training.launch.cores", lambda: lent)
    monkeypatch.setattr("handclip_lib.training.launch.free_memory", lambda: free)
    given = {"processes": 64, "device": "cpu"}
    for words in (["--dry-run"], []):
        assert main(["run", "03", *words, "-p", "processes", "64", "-p", "device", "cpu"]) == 2
    with pytest.raises(ConfigError, match=rf"1 parameter is wrong:\n  processes=64: .*; give at most {most}$"):
        plan(NOTEBOOK, given)
    assert not reports.exists()
    assert plan(NOTEBOOK, given | {"processes": most}).state() == "not started yet"
    assert plan(NOTEBOOK, given, {}).config.processes == 64, "its points may run on another machine"


def test_the_folder_is_the_one_that_a_launch_makes_and_the_state_is_told(capsys):
    folder = stopped()
    planned = plan(NOTEBOOK, GIVEN)
    assert planned.folder == folder
    assert planned.state() == ("interrupted (stopped by SIGTERM); would go on from image.safetensors, epoch 2 of 5")
    write_record(folder, read_record(folder) | {"status": "succeeded"})
    assert "not run again without --force" in plan(NOTEBOOK, GIVEN).state()
    assert plan(NOTEBOOK, GIVEN).checkpoint is None


@pytest.mark.matrix("damaged file", "resume: a checkpoint", "passed over for the one before")
def test_the_image_training_is_ahead_of_the_prompts_and_a_damaged_file_is_none(tmp_path: Path):
    assert find_checkpoint(tmp_path) is None
    facts = {"options": {"epochs": 7}, "history": [{}, {}], "best_epoch": 0}
    save_checkpoint(tmp_path / "prompts.safetensors", {"x": torch.ones(1)}, facts)
    assert str(find_checkpoint(tmp_path)) == "prompts.safetensors, epoch 1 of 7"
    save_checkpoint(tmp_path / "image.safetensors", {"x": torch.ones(1)}, facts | {"history": [{}] * 4})
    assert str(find_checkpoint(tmp_path)) == "image.safetensors, epoch 3 of 7"
    (tmp_path / "image.safetensors").write_bytes(b"half")
    assert find_checkpoint(tmp_path).file == "prompts.safetensors"


def test_a_run_that_was_killed_in_its_folds_goes_on_from_the_last_of_them(tmp_path: Path):
    facts = {"options": {"epochs": 7}, "history": [{}] * 8, "best_epoch": 0}
    for number, epochs in ((2, 8), (9, 8), (10, 3)):
        place = tmp_path / "folds" / str(number)
        place.mkdir(parents=True)
        save_checkpoint(place / "image.safetensors", {}, facts | {"history": [{}] * epochs})
    save_checkpoint(tmp_path / "prompts.safetensors", {"x": torch.ones(1)}, facts)
    assert str(find_checkpoint(tmp_path)) == "folds/10/image.safetensors, epoch 2 of 7"
    save_checkpoint(tmp_path / "image.safetensors", {}, facts | {"history": [{}] * 2})
    assert str(find_checkpoint(tmp_path)) == "image.safetensors, epoch 1 of 7", "all people train, after the folds"


def test_resume_says_from_where_and_starts(capsys):
    folder = stopped()
    words = ["run", "03", "--resume", "-p", "epochs", "5", "-p", "drawn_subjects", "12"]
    assert main(words) == 143
    said = capsys.readouterr()
    assert f"resumes {folder.name} from image.safetensors, epoch 2 of 5" in said.out
    assert "the same command goes on from image.safetensors, epoch 2 of 5" in said.err


def test_there_is_nothing_to_resume(capsys):
    with pytest.raises(RunError, match="not started yet; leave out --resume; no other run of 03"):
        resumed_from(plan(NOTEBOOK, GIVEN))
    stopped(seed=3)
    with pytest.raises(RunError, match=r"(?s)these could go on:\n  03_.*image.safetensors, epoch 2 of 5\): seed=3$"):
        resumed_from(plan(NOTEBOOK, GIVEN))
    with pytest.raises(RunError, match="05_evaluation trains nothing"):
        resumed_from(plan(find_notebook("05"), {}))
    folder = stopped()
    (folder / "image.safetensors").unlink()
    with pytest.raises(RunError, match=r"is interrupted .*no checkpoint"):
        resumed_from(plan(NOTEBOOK, GIVEN))
    assert main(["run", "03", "--resume", "-p", "epochs", "5", "-p", "drawn_subjects", "12"]) == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_a_run_of_another_library_is_named_as_such(monkeypatch):
    stopped()
    monkeypatch.setattr("handclip_lib.runs.identity._library_stamp", lambda *_, **__: "changed")
    with pytest.raises(RunError, match="same parameters, but the library, the notebook or the data changed"):
        resumed_from(plan(NOTEBOOK, GIVEN))


def test_force_starts_a_training_anew_and_a_plain_rerun_keeps_its_checkpoint():
    folder = stopped()
    launch(NOTEBOOK, GIVEN)
    assert find_checkpoint(folder).epoch == 2
    launch(NOTEBOOK, GIVEN, force=True)
    assert find_checkpoint(folder) is None


@pytest.mark.parametrize(
    ("ending", "status", "words", "code"),
    [
        ((138, None), "died", "the kernel was killed (out of memory?); lower batch_size", 137),
        ((-9, None), "died", "papermill was killed (out of memory?)", 137),
        ((1, "a time-out after 3 s"), "interrupted", "stopped by a time-out after 3 s", 124),
        ((1, "SIGTERM"), "interrupted", "stopped by SIGTERM", 143),
        ((1, "SIGINT"), "interrupted", "stopped by SIGINT", 130),
        ((1, None), "failed", "papermill ended with code 1", 1),
        ((0, None), "failed", "without run.finish", 1),
    ],
)
def test_how_a_run_ended_is_told_apart(ending, status, words, code, monkeypatch):
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: ending)
    done = launch(NOTEBOOK, GIVEN)
    record = json.loads((done.folder / "run.json").read_text())
    assert record["status"] == done.status == status
    assert words in record["error"]
    assert done.exit_code == code


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_time_out_is_a_time(seconds):
    with pytest.raises(ConfigError, match="timeout="):
        launch(NOTEBOOK, GIVEN, timeout=seconds)


def test_reports_of_several_runs_and_of_the_latest(reports: Path, capsys):
    folders = [stopped(seed=seed) for seed in (1, 2)]
    for day, folder in enumerate(folders, 1):
        write_record(folder, read_record(folder) | {"started": f"2026-01-0{day}T00:00:00+00:00"})
        (folder / "report.html").unlink()
    assert main(["report", folders[0].name, "nothing", str(folders[1])]) == 2
    said = capsys.readouterr()
    assert "nothing: run.json is not there; run the notebook again" in said.err
    assert all((folder / "report.html").is_file() for folder in folders)
    assert main(["report", "latest"]) == 0
    assert folders[1].name in capsys.readouterr().out


def test_a_report_is_not_replaced_by_an_empty_one_where_the_notebook_has_gone(reports: Path, capsys):
    folder = stopped()
    write_record(folder, read_record(folder) | {"status": "succeeded"})
    (folder / "report.html").write_text("the figures")
    assert main(["report", folder.name]) == 2
    assert "executed.ipynb is not there" in capsys.readouterr().err
    assert (folder / "report.html").read_text() == "the figures"
    (folder / "report.html").unlink()
    assert main(["report", folder.name]) == 0


def test_a_report_of_a_run_elsewhere_leaves_no_index_there_and_a_relative_one_is_found(reports: Path, monkeypatch):
    folder = stopped()
    copy = reports.parent / "desktop" / "my run"
    shutil.copytree(folder, copy)
    (reports.parent / "index.html").write_text("mine")
    assert main(["report", str(copy)]) == 0
    assert (reports.parent / "index.html").read_text() == "mine"
    (reports / "index.html").unlink()
    monkeypatch.chdir(folder)
    assert main(["report", "."]) == 0
    assert (reports / "index.html").is_file()
    assert not (folder / "index.html").exists()


@pytest.mark.matrix("signal", "report", "the run keeps its status; the command that makes the report")
def test_ctrl_c_while_the_report_is_written_leaves_the_run_and_says_how_to_have_it(reports: Path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("handclip_lib.report.pages.render_report", interrupted)
    assert main(["run", "03", "-p", "epochs", "5"]) == 130
    (folder,) = (reports / "runs").glob("03_*")
    assert f"{folder.name} interrupted, but its report is not written: handclip report" in capsys.readouterr().err
    assert read_record(folder)["status"] == "interrupted"


def test_a_report_that_is_missing_is_made_up_for(reports: Path):
    folder = stopped()
    write_record(folder, read_record(folder) | {"status": "succeeded"})
    (folder / "report.html").unlink()
    done = launch(NOTEBOOK, GIVEN)
    assert (done.status, done.report.is_file()) == ("skipped", True)
