"""A run is what it read: whatever is read decides its id, and what cannot be read is refused before it starts."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest

from handclip_lib.backbone.load import SHAPES
from handclip_lib.cli import main
from handclip_lib.data import decoder
from handclip_lib.errors import ConfigError, DataError, RunError
from handclip_lib.launch import launcher
from handclip_lib.launch.launcher import find_notebook, launch
from handclip_lib.launch.plan import plan, read_points
from handclip_lib.parameters.notebooks import Analysis, Evaluation, ImageFinetune
from handclip_lib.runs import start
from handclip_lib.runs.identity import run_id
from handclip_lib.runs.inputs import as_opened, what_is_read
from handclip_lib.runs.record import read_record, write_record

LABELS = "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities\n"
FIRST, SECOND = (f"{person},30,male,fair,0,0,dorsal right,Hand_{person}.jpg,0\n" for person in (1, 2))


pytestmark = pytest.mark.usefixtures("reports")


def a_data_set(root: Path, linked: bool = False) -> Path:
    photographs = root.parent / "elsewhere" if linked else root / "Hands"
    photographs.mkdir(parents=True)
    root.mkdir(exist_ok=True)
    if linked:
        (root / "Hands").symlink_to(photographs)
    for person in (1, 2):
        (photographs / f"Hand_{person}.jpg").write_bytes(b"person %d" % person)
    (root / "HandInfo.csv").write_text(LABELS + FIRST + SECOND)
    return root


def id_of(**given) -> str:
    return run_id(Evaluation(**given), "code")


def replaced(file: Path, data: bytes) -> None:
    """Other bytes of equal size under the old name and date."""
    before = file.stat()
    assert before.st_size == len(data) and file.read_bytes() != data
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_reader_that_is_installed_makes_another_run_where_it_reads_something(tmp_path: Path, monkeypatch):
    root = a_data_set(tmp_path / "data")
    given = {"dataset": "11k", "data_root": str(root)}
    monkeypatch.setattr(decoder, "readable_formats", lambda: ("JPEG",))
    plain = id_of(**given)
    (root / "Hands" / "Hand_2.heic").write_bytes(b"person 2, of a telephone")
    without = id_of(**given)
    monkeypatch.setattr(decoder, "readable_formats", lambda: ("JPEG", "HEIF"))
    assert len({plain, without, id_of(**given)}) == 3
    (root / "Hands" / "Hand_2.heic").unlink()
    assert id_of(**given) == plain


@pytest.mark.parametrize("linked", [False, True])
def test_photographs_and_labels_of_equal_size_and_date_make_another_run(tmp_path, linked):
    root = a_data_set(tmp_path / "data", linked)
    given = {"dataset": "11k", "data_root": str(root)}
    ids = [id_of(**given)]
    assert id_of(**given) == ids[0]
    replaced(root / "HandInfo.csv", (LABELS + FIRST.replace("1,", "3,", 1) + SECOND).encode())
    ids.append(id_of(**given))
    replaced(root / "Hands" / "Hand_1.jpg", b"person 9")
    ids.append(id_of(**given))
    assert len(set(ids)) == 3


def test_what_is_not_read_of_a_data_set_makes_no_other_run(tmp_path):
    root = a_data_set(tmp_path / "data")
    before = id_of(dataset="11k", data_root=str(root))
    (root / "notes.txt").write_text("mine")
    assert id_of(dataset="11k", data_root=str(root)) == before


def test_photographs_in_folders_behind_links_are_seen_and_links_back_end(tmp_path):
    root, people = tmp_path / "data", tmp_path / "people"
    for person in "ab":
        (people / person).mkdir(parents=True)
        (people / person / "1.jpg").write_bytes(person.encode())
    root.mkdir()
    (root / "a").symlink_to(people / "a")
    (people / "a" / "back").symlink_to(root)
    (people / "a" / "itself").symlink_to("itself")
    before = id_of(dataset="folder", data_root=str(root))
    replaced(people / "a" / "1.jpg", b"c")
    assert id_of(dataset="folder", data_root=str(root)) != before


def test_other_weights_under_the_old_name_and_date_make_another_run(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"one")
    before = id_of(weights=str(file))
    replaced(file, b"two")
    assert id_of(weights=str(file)) != before


def test_other_embeddings_under_the_old_name_make_another_run_and_none_start_nothing(tmp_path):
    file = tmp_path / "e.npz"
    file.write_bytes(b"a")
    before = id_of(embeddings=str(file))
    replaced(file, b"b")
    assert id_of(embeddings=str(file)) != before
    for name in ("none.npz", "."):
        with pytest.raises(ConfigError, match=r"embeddings=.*is no file; give the \.npz or \.parquet"):
            plan(find_notebook("05"), {"embeddings": str(tmp_path / name)})


def a_training(runs: Path, name: str = "03_image_finetune-tiny-a1", started: int = 1, **changes) -> Path:
    """A run of 03 as it ends: its weights, its split, and a record that says what it left."""
    folder = runs / name
    folder.mkdir(parents=True)
    for file in ("best.safetensors", "split.csv", "split.json"):
        (folder / file).write_text(f"{file} of {name}")
    config = ImageFinetune()
    record = launcher.new_record(folder, config, {}) | {"status": "succeeded", **changes}
    write_record(folder, record | {"started": f"2026-01-0{started}T00:00:00+00:00"})
    return folder


@pytest.mark.parametrize("file", ["best.safetensors", "split.csv"])
@pytest.mark.parametrize("named", ["latest", "03_image_finetune-tiny-a1", "folder"])
def test_a_training_made_again_under_its_id_makes_another_run(reports, file, named):
    folder = a_training(reports / "runs")
    given = {"trained_run": str(folder) if named == "folder" else named}
    before = id_of(**given)
    assert id_of(**given) == before
    replaced(folder / file, (folder / file).read_bytes()[::-1])
    assert id_of(**given) != before


def test_an_analysis_of_a_changed_evaluation_is_another_one(reports):
    folder = a_training(reports / "runs")
    before = what_is_read(Analysis())
    (folder / "per_query.csv").write_text("figures")
    assert what_is_read(Analysis()) != before
    write_record(folder, read_record(folder) | {"status": "running"})
    running = what_is_read(Analysis())
    (folder / "per_query.csv").write_text("other figures")
    assert what_is_read(Analysis()) == running, "what a run under way has written is not taken"


def test_points_of_a_sweep_are_runs_of_what_they_read(tmp_path, monkeypatch):
    root = a_data_set(tmp_path / "data")
    looks: list[str] = []
    monkeypatch.setattr(
        "handclip_lib.launch.plan.what_is_read",
        lambda config: looks.append(config.data_root) or what_is_read(config),
    )
    given = {"dataset": "11k", "data_root": str(root)}

    def folders():
        return [point.folder for point in read_points(find_notebook("05"), {"grid": {"seed": [0, 1, 2]}}, given)]

    before = folders()
    assert len(looks) == 1, "three points of one data set"
    assert before[0] == plan(find_notebook("05"), given | {"seed": 0}).folder
    replaced(root / "Hands" / "Hand_1.jpg", b"person 9")
    assert not set(before) & set(folders())


def test_a_run_whose_data_change_while_it_goes_on_fails_by_name(tmp_path):
    root = a_data_set(tmp_path / "data")
    _, run = start(Evaluation, {"dataset": "11k", "data_root": str(root)})
    replaced(root / "Hands" / "Hand_1.jpg", b"person 9")
    with pytest.raises(RunError, match="what data_root names changed while this run went on"):
        run.finish(rank1=0.5)
    assert not (run.folder / "metrics.json").exists()
    assert read_record(run.folder)["metrics"] == {}


def test_a_run_launched_on_data_that_change_has_no_figures(tmp_path, monkeypatch):
    root = a_data_set(tmp_path / "data")

    def notebook(_, task, __):
        monkeypatch.setenv("HANDCLIP_RUN", task["environment"]["HANDCLIP_RUN"])
        replaced(root / "Hands" / "Hand_1.jpg", b"person 9")
        with pytest.raises(RunError, match="what data_root names changed"):
            start(Evaluation, {"dataset": "11k", "data_root": str(root)})[1].finish(rank1=0.5)
        return 1, None

    monkeypatch.setattr(launcher.Papermill, "run", notebook)
    done = launch(find_notebook("05"), {"dataset": "11k", "data_root": str(root)})
    assert (done.status, read_record(done.folder)["metrics"]) == ("failed", {})


def test_latest_is_the_run_it_was_when_the_run_began(reports):
    first = a_training(reports / "runs")
    _, run = start(Evaluation, {"trained_run": "latest"})
    second = a_training(reports / "runs", "03_image_finetune-tiny-a2", started=2)
    assert run.earlier("latest", "03_image_finetune", "04_joint_training") == first
    run.finish(rank1=0.5)
    assert read_record(run.folder)["inputs"] == {"03_image_finetune": first.name}
    assert start(Evaluation, {"trained_run": "latest"})[1].earlier("latest", "03_image_finetune") == second


def test_an_analysis_may_end_while_other_runs_go_on(reports):
    folder = a_training(reports / "runs")
    _, run = start(Analysis, {})
    a_training(reports / "runs", "03_image_finetune-tiny-a2")
    run.finish()
    _, run = start(Analysis, {"seed": 1})
    (folder / "split.csv").write_text("other")
    with pytest.raises(RunError, match="what 03_image_finetune-tiny-a1 names changed"):
        run.finish()


def test_a_forced_rerun_that_fails_leaves_nothing_of_the_success_before_it(reports, monkeypatch):
    def succeeds(_, task, __):
        monkeypatch.setenv("HANDCLIP_RUN", task["environment"]["HANDCLIP_RUN"])
        _, run = start(ImageFinetune, {})
        (run.folder / "figures").mkdir()
        for name in ("results.csv", "figures/cmc.png", "best.safetensors", "image.safetensors", "split.json"):
            (run.folder / name).write_text("old")
        run.finish(rank1=0.9)
        return 0, None

    monkeypatch.setattr(launcher.Papermill, "run", succeeds)
    done = launch(find_notebook("03"), {})
    assert (done.status, read_record(done.folder)["metrics"]) == ("succeeded", {"rank1": 0.9})
    (done.folder / "my notes.txt").write_text("mine")
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (-9, None))
    again = launch(find_notebook("03"), {}, force=True)
    assert (again.folder, again.status, read_record(again.folder)["metrics"]) == (done.folder, "died", {})
    left = {file.relative_to(done.folder).as_posix() for file in done.folder.rglob("*") if file.is_file()}
    assert left == {"run.json", "parameters.yml", "papermill.log", "report.html", "my notes.txt"}


@pytest.mark.parametrize("forced", [True, False])
def test_what_is_removed_at_the_start_is_no_success_any_more(forced, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    if forced:
        monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (1, None))
        folder = launch(find_notebook("03"), {}).folder
    else:
        folder = start(ImageFinetune, {})[1].folder
    write_record(folder, read_record(folder) | {"status": "succeeded", "metrics": {"rank1": 0.9}})
    monkeypatch.setattr("handclip_lib.launch.launcher.remove_results", killed)
    monkeypatch.setattr("handclip_lib.runs.run.remove_results", killed)
    with pytest.raises(KeyboardInterrupt):
        launch(find_notebook("03"), {}, force=True) if forced else start(ImageFinetune, {})
    record = read_record(folder)
    assert (record["status"], record["metrics"]) == ("running", {})


def test_a_stopped_training_keeps_its_checkpoint_and_no_half_result(reports, monkeypatch):
    monkeypatch.setattr(launcher.Papermill, "run", lambda *_: (1, "SIGTERM"))
    folder = launch(find_notebook("03"), {}).folder
    for name in ("image.safetensors", "history.csv"):
        (folder / name).write_text("half")
    assert launch(find_notebook("03"), {}).folder == folder
    assert (folder / "image.safetensors").exists() and not (folder / "history.csv").exists()


def test_weights_replaced_after_their_training_are_refused_by_name(reports):
    folder = a_training(reports / "runs")
    monkey = {"best.safetensors": "0" * 32}
    write_record(folder, read_record(folder) | {"left": monkey})
    with pytest.raises(ConfigError, match=r"trained_run: best\.safetensors in .* is not the file .* run 03 again"):
        plan(find_notebook("05"), {"trained_run": "latest"})


def test_a_run_records_what_it_left(reports):
    _, run = start(ImageFinetune, {})
    (run.folder / "best.safetensors").write_text("weights")
    run.finish(rank1=0.5)
    assert set(read_record(run.folder)["left"]) == {"best.safetensors"}
    _, evaluation = start(Evaluation, {"trained_run": "latest"})
    (run.folder / "best.safetensors").write_text("WEIGHTS")
    with pytest.raises(RunError, match=r"best\.safetensors in .* is not the file that 03_image"):
        evaluation.earlier("latest", "03_image_finetune")
    (run.folder / "best.safetensors").unlink()
    with pytest.raises(RunError, match=r"left no best\.safetensors, or it was removed; run 03 again"):
        evaluation.earlier("latest", "03_image_finetune")


def test_all_faults_of_files_are_said_at_once_with_those_of_parameters(reports, tmp_path, capsys):
    words = ["run", "05", "--dry-run", "-p", "drows", "2", "-p", "weights", str(tmp_path / "none.pt")]
    words += ["-p", "dataset", "11k", "-p", "data_root", str(tmp_path), "-p", "trained_run", "03_none"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "5 parameters are wrong" in said
    for fault in ("did you mean draws", "no weights at", "needs HandInfo.csv", "trained_run: '03_none' is no run"):
        assert fault in said
    assert main(["run", "05", "-p", "weights", str(tmp_path / "none.pt")]) == 2
    assert not reports.exists()


def test_faults_of_files_are_said_of_the_points_of_a_sweep(tmp_path):
    with pytest.raises(ConfigError, match=r"no weights at .*none\.pt.*every point"):
        read_points(find_notebook("05"), {"grid": {"seed": [0, 1]}}, {"weights": str(tmp_path / "none.pt")})


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"<html>", "is a web page"), (b"PK\3\4 and no more", "cut short"), (b"x" * 99, "is damaged")],
)
def test_a_file_that_holds_no_weights_starts_nothing(content, words, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=f"(?s)1 parameter is wrong.*w.pt.*{words}"):
        plan(find_notebook("05"), {"weights": str(tmp_path / "w.pt")})


def test_weights_of_another_shape_than_the_backbone_start_nothing_and_the_remedy_starts(checkpoints, tmp_path):
    file = tmp_path / "tiny_256.pt"
    checkpoints.write_checkpoint(file, replace(SHAPES["tiny"], resolution=256))
    with pytest.raises(ConfigError, match=r"vitb32 is a ViT.* holds a ResNet.*256 px.*leave backbone out"):
        plan(find_notebook("05"), {"backbone": "vitb32", "weights": str(file)})
    assert plan(find_notebook("05"), {"weights": str(file)}).record is None


def test_an_input_size_that_fits_no_patches_starts_nothing():
    with pytest.raises(ConfigError, match="multiples of 32 pixels; try 224x224"):
        plan(find_notebook("05"), {"backbone": "vitb32", "input_size": "230x225"})
    assert plan(find_notebook("05"), {"backbone": "vitb32", "input_size": "224x224"}).record is None


def test_weights_that_are_no_file_start_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("pipe", "is no file; give the path of a checkpoint"), ("", "a folder with 0 files of weights")):
        with pytest.raises(ConfigError, match=says):
            plan(find_notebook("05"), {"weights": str(tmp_path / name)})


def test_a_file_in_place_of_a_folder_and_a_device_that_is_none_start_nothing(tmp_path):
    (tmp_path / "ViT-B-16.pt").touch()
    wrong = {"backbone": "vitb16", "download_root": str(tmp_path / "ViT-B-16.pt")}
    with pytest.raises(ConfigError, match=r"(?s)2 parameters.*device='gpu'.*is a file: name the folder it is in"):
        plan(find_notebook("05"), wrong | {"device": "gpu"})
    right = wrong | {"download_root": str(tmp_path), "device": "cuda:1"}  # whether it is there only its machine knows
    assert plan(find_notebook("05"), right).record is None


def test_what_succeeded_before_is_not_looked_into_again(tmp_path, monkeypatch):
    (tmp_path / "w.pt").write_bytes(b"x")
    monkeypatch.setattr("handclip_lib.launch.plan.weights_faults", lambda given: [])
    folder = plan(find_notebook("05"), {"weights": str(tmp_path / "w.pt")}).folder
    write_record(folder, {"id": folder.name, "status": "succeeded", "metrics": {}})
    monkeypatch.setattr("handclip_lib.launch.plan.weights_faults", lambda given: pytest.fail("opened"))
    assert plan(find_notebook("05"), {"weights": str(tmp_path / "w.pt")}).record is not None


def test_photographs_without_aspect_are_called_unspecified_in_parameters_and_id(tmp_path):
    for who, n in itertools.product("abcd", range(2)):
        (tmp_path / "plain" / who).mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / who / f"{n}.jpg").write_bytes(b"x")
        (tmp_path / "named" / "palmar_l" / who).mkdir(parents=True, exist_ok=True)
        (tmp_path / "named" / "palmar_l" / who / f"{n}.jpg").write_bytes(b"x")
    plain, named = (
        as_opened(Evaluation(dataset="folder", data_root=str(tmp_path / name))) for name in ("plain", "named")
    )
    assert (plain.aspect, named.aspect, as_opened(Evaluation()).aspect) == ("unspecified", "dorsal_r", "dorsal_r")
    assert run_id(plain, None, {}).startswith("05_evaluation-tiny-folder-unspecified-")
    (tmp_path / "plain" / "a" / "crops").mkdir()
    (tmp_path / "plain" / "a" / "crops" / "0.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="a/crops"):
        as_opened(plain)
