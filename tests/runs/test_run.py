import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from handclip_lib.backbone.properties import Properties
from handclip_lib.errors import ConfigError, RunError, WriteError
from handclip_lib.evaluation.tables import result_table
from handclip_lib.parameters.notebooks import Analysis, Evaluation, ImageFinetune, PromptLearning
from handclip_lib.report.pages import render_report
from handclip_lib.runs import start
from handclip_lib.runs.identity import run_id
from handclip_lib.runs.record import read_record, this_process, write_record
from handclip_lib.runs.run import Run
from handclip_lib.runs.shown import as_png

pytestmark = pytest.mark.usefixtures("reports")


def test_a_run_tells_its_story_in_run_json(reports: Path):
    config, run = start(Evaluation, {"draws": 3})
    assert run.folder.parent == reports / "runs"
    record = read_record(run.folder)
    assert (record["status"], record["parameters"]["draws"], record["defaults"]["draws"]) == ("running", 3, 10)
    assert record["versions"]["torch"][0].isdigit()
    run.finish(rank1=0.5)
    record = read_record(run.folder)
    assert (record["status"], record["metrics"], record["error"]) == ("succeeded", {"rank1": 0.5}, None)
    assert json.loads((run.folder / "metrics.json").read_text()) == {"rank1": 0.5}
    assert config.draws == 3


@pytest.mark.parametrize(
    "inside", ["", "notebooks pyproject.toml", "study.toml", "handclip_lib notebooks pyproject.toml"]
)
def test_every_start_says_where_it_writes_and_whether_that_is_in_a_project(
    tmp_path: Path, monkeypatch, capfd, inside: str
):
    monkeypatch.delenv("HANDCLIP_REPORTS")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "of the user"))
    for name in inside.split():
        (tmp_path / name).touch() if name.endswith(".toml") else (tmp_path / name).mkdir()
    ours = inside.startswith(("study", "handclip_lib"))
    reports = tmp_path / "reports" if ours else tmp_path / "of the user" / "handclip" / "reports"
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    _, run = start(Evaluation, {})
    run.finish()
    printed = capfd.readouterr()
    for said in (printed.out, printed.err):  # the notebook, and the terminal that papermill was started in
        assert f"writes to {reports / 'runs'}" in said
        assert ("is in no project of HandCLIP" in said) == (not ours)


def test_bad_parameters_make_no_folder(reports: Path):
    with pytest.raises(ConfigError, match="did you mean draws"):
        start(Evaluation, {"draw": 3})
    assert not reports.exists()


def test_another_run_ends_the_one_before(reports: Path):
    _, first = start(Evaluation, {"draws": 3})
    _, second = start(Evaluation, {"draws": 4})
    assert (read_record(first.folder)["status"], read_record(second.folder)["status"]) == ("interrupted", "running")
    second.finish()


def test_an_analysis_is_another_one_when_there_are_other_runs(reports: Path):
    config = Analysis()
    empty = run_id(config, "source")
    assert empty.startswith("06_analysis-") and empty.count("-") == 1, "it has no backbone, data set or aspect"
    _, run = start(Evaluation, {"draws": 3})
    begun = run_id(config, "source")
    run.finish(rank1=0.5)
    done = run_id(config, "source")
    assert len({empty, begun, done}) == 3
    _, analysis = start(Analysis, {})
    assert analysis.folder.name.startswith("06_analysis-")
    analysis.finish()
    assert run_id(config, "source") == done, "an analysis is no run to analyse"


def test_the_answer_is_shown_escaped_and_kept_with_what_must_be_said(reports: Path, monkeypatch):
    shown = []
    monkeypatch.setattr("handclip_lib.runs.run._display", lambda data, metadata: shown.append(data))
    _, run = start(Evaluation, {})
    run.conclude("<b> finds 3 %", ["few people."])
    assert shown[0]["text/html"] == "<p><strong>&lt;b&gt; finds 3 %.</strong></p><ul><li>few people.</li></ul>"
    record = read_record(run.folder)
    assert (record["answer"], record["cautions"]) == ("<b> finds 3 %.", ["few people."])
    run.finish()


def test_a_table_is_kept_whole_and_shown_escaped(reports: Path, monkeypatch):
    shown = []
    monkeypatch.setattr("handclip_lib.runs.run._display", lambda data, metadata: shown.append(data))
    _, run = start(Evaluation, {})
    frame = pd.DataFrame({"identity": ["<script>x</script>"], "rank1": [1 / 3], "n": [7], "rank1_gain": [-0.0003]})
    run.table(result_table(frame), "people", "who & what")
    assert pd.read_csv(run.folder / "people.csv")["rank1"][0] == 1 / 3
    page = shown[0]["text/html"]
    assert "<script" not in page
    assert all(text in page for text in ("&lt;script&gt;", "who &amp; what", ">33.3<", "Rank-1, %", ">7<", ">0.0<"))
    run.finish()


def test_a_run_says_which_weights_made_its_figures(reports: Path, monkeypatch):
    shown = []
    monkeypatch.setattr("handclip_lib.runs.run._display", lambda data, metadata: shown.append(data["text/html"]))
    _, run = start(Evaluation, {})
    said = Properties(heads=8, sources={"activation": "config.json"})
    model, tuned = (
        SimpleNamespace(name="tiny", fingerprint=text * 8, source=f"file {text}", properties=said) for text in "ab"
    )
    run.weights(model)
    run.weights(tuned, "tiny, fine-tuned")
    kept = {"fingerprint": "a" * 8, "source": "file a", "properties": said.lines()}
    assert read_record(run.folder)["weights"]["tiny"] == kept
    for models in (["tiny, fine-tuned", "floor: pixels"], ["floor: pixels"]):
        run.table(pd.DataFrame({"model": models}), "results", "Means")
    run.table(pd.DataFrame({"n": [1]}), "counts", "Counts")
    run.table(pd.DataFrame({"n": []}), "groups", "Groups")
    captions = [page.partition("<caption>")[2].partition("<")[0] for page in shown]
    assert captions == ["Means; weights: tiny, fine-tuned bbbbbbbb", "Means", "Counts", "Groups; none here"]
    page = render_report(run.folder).read_text()
    assert "tiny: aaaaaaaa, file a" in page and "8 (not stated)" in page
    assert "tiny, fine-tuned: bbbbbbbb, file b" in page
    run.finish()


def test_rows_that_are_no_claim_are_grey(reports: Path, monkeypatch):
    shown = []
    monkeypatch.setattr("handclip_lib.runs.run._display", lambda data, _: shown.append(data["text/html"]))
    _, run = start(Evaluation, {"draws": 3})
    frame = pd.DataFrame({"model": ["<tr>a", "b", "c"], "fnmr": [0.1, 0.2, 0.3], "supported": [True, False, True]})
    run.table(result_table(frame), "targets", "errors")
    rows = shown[0].split("<tbody>")[1].split("</tr>")[:3]
    assert ["666666" in row for row in rows] == [False, True, False]
    assert [f">{name}<" in row for name, row in zip("bc", rows[1:], strict=True)] == [True, True]


def test_a_figure_is_saved_under_a_plain_name(reports: Path):
    _, run = start(Evaluation, {})
    figure = Figure()
    figure.subplots().plot(np.arange(3))
    run.show(figure, "curve", "a rising line")
    assert (run.folder / "figures" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(RunError, match="lower-case"):
        run.show(figure, "../../x", "elsewhere")
    run.finish()


def test_a_figure_may_have_a_shorter_caption_than_its_description(reports: Path, monkeypatch):
    shown = []
    monkeypatch.setattr("handclip_lib.runs.run._display", lambda data, metadata: shown.append(metadata["image/png"]))
    _, run = start(Evaluation, {})
    run.show(Figure(), "a", "What is seen, in many words", "What is seen")
    run.show(Figure(), "b", "What is seen")
    assert [(about["alt"], about.get("caption")) for about in shown] == [
        ("What is seen, in many words", "What is seen"), ("What is seen", None),
    ]  # fmt: skip
    run.finish()


def test_a_live_figure_is_one_display_drawn_anew_but_not_too_often(reports: Path, monkeypatch):
    _, run = start(Evaluation, {"draws": 3})
    shown, drawn, clock = [], [], [0.0]
    monkeypatch.setattr("handclip_lib.runs.run._display", lambda *_, **place: shown.append(place))
    monkeypatch.setattr("handclip_lib.runs.run.time.monotonic", lambda: clock[0])

    def draw(value: int) -> Figure:
        drawn.append(value)
        return Figure()

    live = run.live(draw, "curves", "a curve")
    for value, now in enumerate((0, 1, 4, 6, 7)):
        clock[0] = now
        live(value)
    live(9, last=True)
    assert drawn == [0, 3, 9], "at least five seconds apart, and the last one always"
    assert [place["update"] for place in shown] == [False, True, True]
    assert len({place["display_id"] for place in shown}) == 1
    assert (run.folder / "figures" / "curves.png").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="HANDCLIP_REPORTS"):
        Run(tmp_path / "file" / "run", Evaluation())


@pytest.mark.parametrize(
    ("process", "status"),
    [({"pid": pid}, "died") for pid in (2**22 + 1, None, "x", [1], 10**17)]
    + [({"began": "1"}, "died"), ({}, "running"), ({"host": "another machine", "pid": 1}, "running")],
)
def test_a_run_whose_process_is_gone_has_died(process, status, tmp_path: Path):
    assert this_process() | {"host": socket.gethostname(), "pid": os.getpid()} == this_process()
    write_record(tmp_path, {"id": "x", "status": "running", "process": this_process() | process})
    assert read_record(tmp_path)["status"] == status


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "running"}'])
def test_a_damaged_record_is_none(content, tmp_path: Path):
    (tmp_path / "run.json").write_text(content)
    assert read_record(tmp_path) is None


def test_the_id_follows_parameters_notebook_and_data(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    config = Evaluation(dataset="folder", data_root=str(tmp_path))
    ids = [run_id(config, "code"), run_id(config, "other code"), run_id(config.model_copy(update={"seed": 1}), "code")]
    (tmp_path / "b.jpg").write_bytes(b"2")
    ids.append(run_id(config, "code"))
    assert len(set(ids)) == 4
    assert all(name.startswith("05_evaluation-tiny-folder-dorsal_r-") for name in ids)
    assert run_id(config, "code") == ids[-1]


@pytest.mark.matrix("two at once", "start by hand", "refused; the process is named")
def test_a_run_that_goes_on_in_another_notebook_is_not_begun_in_this_one(reports: Path):
    _, run = start(Evaluation, {"draws": 3})
    start(Evaluation, {"draws": 3})[1].finish()  # the guard cell again, in the same kernel
    with subprocess.Popen(["sleep", "9"]) as other:
        began = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
        process = this_process() | {"pid": other.pid, "began": began}
        theirs = read_record(run.folder) | {"status": "running", "process": process}
        write_record(run.folder, theirs)
        with pytest.raises(RunError, match=f"by another process, {other.pid}, .*shut its kernel down"):
            start(Evaluation, {"draws": 3})
        assert read_record(run.folder) == theirs
        other.kill()
    start(Evaluation, {"draws": 3})[1].finish()


def test_a_link_to_nothing_among_the_photographs_is_a_part_of_the_data(tmp_path: Path):
    config = Evaluation(dataset="folder", data_root=str(tmp_path))
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    dangling = run_id(config, "code")
    (tmp_path / "b.jpg").write_bytes(b"2")
    assert run_id(config, "code") != dangling


def finished(reports: Path, draws: int, started: str, status: str = "succeeded") -> Path:
    _, run = start(PromptLearning, {"draws": draws})
    (run.folder / "text_features.safetensors").write_text("prompts")
    run.finish()
    record = read_record(run.folder) | {"started": started, "status": status}
    write_record(run.folder, record)
    return run.folder


def test_an_earlier_run_is_found_by_id_folder_or_latest_and_noted(reports: Path):
    old = finished(reports, 3, "2026-01-01T00:00:00+00:00")
    new = finished(reports, 4, "2026-01-02T00:00:00+00:00")
    finished(reports, 5, "2026-01-03T00:00:00+00:00", "failed")
    _, run = start(Evaluation, {})
    assert run.earlier("latest", "02_prompt_learning") == new
    assert read_record(run.folder)["inputs"] == {"02_prompt_learning": new.name}
    assert run.earlier(old.name, "02_prompt_learning") == run.earlier(str(old), "02_prompt_learning") == old


def test_a_run_that_cannot_be_used_is_refused_with_a_remedy(reports: Path):
    _, run = start(Evaluation, {})
    with pytest.raises(RunError, match=r"no run of 02_prompt_learning succeeded.*handclip run 02"):
        run.earlier("latest", "02_prompt_learning")
    failed = finished(reports, 5, "2026-01-03T00:00:00+00:00", "failed")
    _, run = start(Evaluation, {})
    with pytest.raises(RunError, match="is a run of 02_prompt_learning that failed"):
        run.earlier(failed.name, "02_prompt_learning")
    with pytest.raises(RunError, match="'nothing' is no run"):
        run.earlier("nothing", "02_prompt_learning")


def test_latest_is_another_run_once_there_is_a_newer_one(reports: Path):
    config = ImageFinetune(prompt_run="latest", text_weight=1.0)
    none = run_id(config, "")
    finished(reports, 3, "2026-01-01T00:00:00+00:00")
    first = run_id(config, "")
    finished(reports, 4, "2026-01-02T00:00:00+00:00")
    assert len({none, first, run_id(config, "")}) == 3


def test_a_figure_is_drawn_once_to_what_savefig_draws_in_two_passes():
    def drawn() -> Figure:
        figure = Figure(figsize=(5, 3), layout="constrained")
        for axis in figure.subplots(1, 2):
            axis.plot([1, 2, 30_000], [-3e6, 0, 2], label="a curve")
            axis.set(title="a title\nof two lines", xlabel="one", ylabel="another")
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
        return figure

    plain, figure = io.BytesIO(), drawn()
    drawn().savefig(plain, format="png", dpi=144)
    canvas, dpi = figure.canvas, figure.dpi
    ours, theirs = (Image.open(io.BytesIO(png)) for png in (as_png(figure, 144), plain.getvalue()))
    assert (ours.mode, ours.info["dpi"]) == ("RGB", pytest.approx((144, 144), abs=0.1))
    assert ours.convert("RGBA").tobytes() == theirs.tobytes()
    assert (figure.canvas, figure.dpi) == (canvas, dpi)
