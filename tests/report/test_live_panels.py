import base64
import io
import json
import os
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from nbformat import v4
from PIL import Image

from handclip_lib.cli import main
from handclip_lib.errors import RunError
from handclip_lib.parameters.notebooks import Evaluation
from handclip_lib.report.live_panels import drawn_ahead, live_panels
from handclip_lib.report.pages import render_report
from handclip_lib.widgets.panel import Panel

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}


def painted(colour: str, width: int) -> Figure:
    if colour == "lime" and width == 2:
        raise LookupError("no lime so wide")
    return Figure(figsize=(width, 1), facecolor=colour)


def painter() -> Panel:
    choice = ipywidgets.Dropdown(options=list(COLOURS), value="lime")
    return Panel(painted, alt="Paint", colour=choice, width=ipywidgets.IntSlider(1, 1, 3))


def picture(frame: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(frame["picture"])))


def test_every_combination_is_the_panel_s_own_picture_and_equal_ones_are_kept_once():
    live = drawn_ahead(painter(), {"colour": ["red", "lime"], "width": [1, 2, 3, 9], "size": [1]}, "A note")
    # the slider ends at 3, so 9 is 3: of 2 x 4 places 2 x 3 frames, and one of them is the panel's error
    assert live.order == [0, 1, 2, 2, 3, 4, 5, 5]
    said = [frame["alt"] for frame in live.frames]
    assert said[0] == "Paint (colour: red, width: 1)"
    assert said[4] == "LookupError: no lime so wide"
    for number, (colour, width) in {0: ("red", 1), 2: ("red", 3), 5: ("lime", 3)}.items():
        with picture(live.frames[number]) as seen:
            assert seen.format == "WEBP"
            assert seen.width == 144 * width
            difference = np.abs(np.array(seen.getpixel((50, 50)), int) - COLOURS[colour])
            assert difference.max() < 12, "lossy, by a little"
        assert live.frames[number]["width"] == 96 * width
    assert live.frames[4]["picture"] == ""
    assert [(control["name"], control["start"], control["slides"]) for control in live.controls] == [
        ("colour", 1, False), ("width", 0, True),
    ]  # fmt: skip
    assert live.as_metadata()["live"]["start"] == 3, "lime and 1, as the panel was"


@pytest.fixture
def evaluated(tmp_path: Path, saved_runs, monkeypatch) -> Path:
    """A run of 05 whose photographs are gone."""
    monkeypatch.setattr("handclip_lib.report.live_panels.THRESHOLDS", 2)
    monkeypatch.setattr("handclip_lib.widgets.panel.DPI", 36)
    folder = tmp_path / "runs" / "05_evaluation-x"
    saved_runs.evaluated(folder)
    record = {"id": folder.name, "notebook": "05_evaluation", "status": "succeeded"}
    record["parameters"] = Evaluation(dataset="folder", data_root=str(tmp_path / "gone")).model_dump()
    (folder / "run.json").write_text(json.dumps(record))
    alts = (
        "Distribution of the scores of pairs of one person and of two people, with a line at the threshold (model: x)",
        "A query and its 8 best gallery images; green frames are the same person, orange ones someone else (draw: 0)",
    )
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "png")
    png = base64.b64encode(buffer.getvalue()).decode()
    foreign = {"alt": "Other", "live": {"frames": [], "controls": [], "order": [], "start": 0}}
    cells = [
        v4.new_code_cell(
            "1", outputs=[v4.new_output("display_data", {"image/png": png}, metadata={"image/png": about})]
        )
        for about in (*({"alt": alt} for alt in alts), foreign)
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / "executed.ipynb")
    return folder


def test_a_panel_takes_the_place_of_its_picture_and_one_without_its_data_says_why(evaluated: Path):
    path = render_report(evaluated, interactive=True)
    assert path.name == "report_interactive.html"
    page = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    live, *others = page.select(".cell figure")
    assert live["class"] == ["live"]
    (slider,) = live.select("input[type=range]")
    labels = slider["data-labels"].split("|")
    assert len(labels) == int(slider["max"]) + 1 == 3, "and the one the panel starts at"
    assert [float(label) for label in labels] == sorted(float(label) for label in labels)
    assert [option.text for option in live("option")] == ["tiny"]
    shown = [image for image in live("img") if not image.has_attr("hidden")]
    assert [image["alt"].split("threshold: ")[1][:4] for image in shown] == [labels[int(slider["value"])][:4]]
    assert "Trivial baselines are left out" in live.figcaption.text
    assert [len(figure("img")) for figure in others] == [1, 1]
    assert "not live: data_root=" in others[0].figcaption.text
    assert "live" not in others[1].get("class", []), "a notebook cannot ask for controls of its own"
    assert len(page("script")) == 1
    plain = BeautifulSoup(render_report(evaluated).read_text("utf-8"), "html.parser")
    assert plain.script is None
    assert not plain.select("figure.live")


def test_the_command_writes_both_reports_and_the_index_links_to_both(evaluated: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(evaluated.parents[1]))
    assert main(["report", "latest", "--interactive"]) == 0
    assert f"report: {evaluated / 'report_interactive.html'}" in capsys.readouterr().out
    links = BeautifulSoup((evaluated.parents[1] / "index.html").read_text("utf-8"), "html.parser").select("tbody a")
    assert [link["href"].rpartition("/")[2] for link in links] == ["report.html", "report_interactive.html"]
    assert main(["report", "latest"]) == 0
    assert (evaluated / "report_interactive.html").exists()
    os.utime(evaluated / "report_interactive.html", (1, 1))
    assert main(["report", "latest"]) == 0
    assert not (evaluated / "report_interactive.html").exists(), "the run ran again after it"
    assert "report_interactive" not in (evaluated.parents[1] / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"notebook": "02_prompt_learning"}, "no panel that can be drawn ahead. report.html shows all"),
        ({"status": "failed"}, "failed: the panels of a run that succeeded"),
        ({"parameters": {"draws": "many"}}, "other parameters than this version"),
    ],
)
def test_a_run_without_panels_is_refused_with_the_reason(evaluated: Path, change: dict, words: str):
    record = json.loads((evaluated / "run.json").read_text())
    (evaluated / "run.json").write_text(json.dumps(record | change))
    with pytest.raises(RunError, match=words):
        render_report(evaluated, interactive=True)
    assert not (evaluated / "report_interactive.html").exists()


def test_runs_that_are_gone_are_named_where_two_would_be_compared(tmp_path: Path):
    record = {"id": "06_analysis-x", "notebook": "06_analysis", "status": "succeeded", "parameters": {}}
    (panel,) = live_panels(tmp_path, record)
    assert panel.frames == []
    assert "comparison.csv cannot be read" in panel.note


def test_a_panel_whose_picture_is_not_there_is_refused(evaluated: Path):
    notebook = nbformat.read(evaluated / "executed.ipynb", as_version=4)
    del notebook.cells[1]
    nbformat.write(notebook, evaluated / "executed.ipynb")
    with pytest.raises(RunError, match="no picture described as 'A query and its'…; run it again"):
        render_report(evaluated, interactive=True)
