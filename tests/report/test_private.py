"""A private report names nobody, shows nobody, and says nothing of the machine."""

import base64
import getpass
import io
import json
import re
import socket
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from nbformat import v4
from PIL import Image

from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import RunError
from handclip_lib.evaluation.tables import result_table
from handclip_lib.parameters.notebooks import Evaluation
from handclip_lib.report.pages import render_report, write_index
from handclip_lib.report.private import Redaction, redaction_of
from handclip_lib.runs import start

PEOPLE = ("anna-schmidt", "bertil.lund", "carla rossi", "7", "0042", "erik", "train", "jana_k")
ROOT = "mueller-klinik"


@pytest.fixture
def private(reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A run of a folder with telling names, whose cells showed what the notebooks show; and its pictures' bytes."""
    root = tmp_path / "Frau Doktor" / ROOT
    rng = np.random.default_rng(0)
    for person in PEOPLE:
        (root / person).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / person / f"{person} hochzeit {number}.jpg")
    outputs: list = []

    def noted(data, metadata, **_):
        data = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in data.items()}
        outputs.append(v4.new_output("display_data", data=data, metadata=metadata))

    monkeypatch.setattr("handclip_lib.runs.run._display", noted)
    _, run = start(Evaluation, {"dataset": "folder", "data_root": str(root), "aspect": "all", "private": True})
    rows = [
        {"path": str(f.relative_to(root)), "identity": f.parent.name, "aspect": "dorsal_r"}
        for f in sorted(root.rglob("*.jpg"))
    ]
    split = make_split(HandTable.build("folder", root, rows, {}), "dorsal_r", "proportional", 0, 2)
    run.split(split)
    paths = split.images["path"]
    confused = pd.DataFrame({"identity": PEOPLE, "mistaken for": PEOPLE[::-1], "n_query": 7, "rank1": 0.42})
    run.table(result_table(confused), "most_confused", "Pairs of people, erik first")
    run.table(pd.DataFrame({"reason": ["damaged"], "for example": [paths[0]]}), "left_out", "Left out")
    run.table(pd.DataFrame({"fact": ["alone"], "value": [f"2 ({PEOPLE[3]}, {PEOPLE[4]}, …)"]}), "split_facts", "Split")
    photograph, matrix, plain = (Figure(figsize=(3, 2)) for _ in range(3))
    photograph.subplots().imshow(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8))
    matrix.subplots().set_xticks(range(len(PEOPLE)), PEOPLE)
    plain.subplots().plot([1, 7], [0, 7])
    run.show(photograph, "queries", "A query of erik")
    run.show(matrix, "similarity", "Cosine")
    run.show(plain, "cmc", "CMC of the model")
    run.conclude(f"tiny confuses {PEOPLE[0]} with {PEOPLE[1]}", [f"See {root / paths[0]} and {paths[1]}"])
    run.finish(rank1=0.5, gallery="aspect")
    outputs += [
        v4.new_output("stream", name="stdout", text=f"writes to {run.folder}\n~/{ROOT} of {getpass.getuser()}"),
        v4.new_output("stream", name="stderr", text=f"{paths[2]} is damaged"),
        v4.new_output("display_data", data={"image/png": "QUJDREVGR0g="}),
    ]
    cells = [v4.new_markdown_cell("# 05 · Evaluation\n\n## Result\n\n![x](data:image/png;base64,AAAA)")]
    cells += [v4.new_code_cell(f"open({str(root)!r})", outputs=outputs)]
    nbformat.write(v4.new_notebook(cells=cells), run.folder / "executed.ipynb")
    return run.folder, [out.data["image/png"] for out in outputs if "image/png" in out.get("data", {})]


def _seen(page: str) -> str:
    """The page without pictures, and without its style, whose code names classes."""
    soup = BeautifulSoup(re.sub(r"data:image/png;base64,[^\"]+", "", page), "html.parser")
    soup.style.decompose()
    return str(soup)


def test_no_name_place_or_photograph_is_in_a_private_report(private: tuple[Path, list[str]]):
    folder, pictures = private
    page = render_report(folder).read_text("utf-8")
    seen = _seen(page)
    names = [*(name for name in PEOPLE if not name.isdecimal() and name != "train"), "hochzeit", ROOT, "0042"]
    for name in [*names, "Frau", "Doktor", "/tmp", str(Path.home()) + "/", socket.gethostname(), "damaged<"]:
        assert name not in seen.replace("damaged</td>", ""), name
    assert not re.search(r"[\w.]\.jpg", seen)
    assert [png in page for png in pictures] == [False, False, True, False], "the plain curves alone are shown"
    soup = BeautifulSoup(page, "html.parser")
    assert len([1 for text in soup.stripped_strings if text.startswith("Left out, for it shows")]) == 3
    body = [[cell.text for cell in row("td")] for row in soup.select(".cell table")[0].select("tbody tr")]
    known = {person: row[0] for person, row in zip(PEOPLE, body, strict=True)}
    assert all(name.startswith("person-") for name in known.values())
    assert len(set(known.values())) == len(PEOPLE)
    assert [row[1] for row in body] == [known[person] for person in PEOPLE[::-1]], "one pseudonym each, in all places"
    assert {(row[2], row[3]) for row in body} == {("7", "42.0")}, "a number is none"
    assert known[PEOPLE[0]] in soup.select_one(".answer").text
    assert f"2 ({known['7']}, {known['0042']}, …)" in seen
    rows = {row.th.text: row("td")[0].text for row in soup.select("#about-run tbody tr")}
    assert (rows["data_root"], rows["command"], rows["process"]) == ("withheld", "withheld", "withheld")
    assert "pseudonyms" in soup.select_one("header .private").text
    assert not (folder / "thumbnail.png").exists()
    assert ROOT not in write_index(folder.parent).read_text("utf-8")
    assert (folder / "figures" / "queries.png").is_file(), "the run's folder is as it was"
    assert PEOPLE[0] in (folder / "most_confused.csv").read_text()


def test_pseudonyms_are_new_in_each_report_and_a_whole_one_can_be_made_private(private: tuple[Path, list[str]]):
    folder, _ = private
    first, second = (set(re.findall(r"person-\w+", render_report(folder).read_text("utf-8"))) for _ in range(2))
    assert first
    assert not first & second
    record = json.loads((folder / "run.json").read_text())
    record["parameters"]["private"] = False
    (folder / "run.json").write_text(json.dumps(record))
    whole, apart = render_report(folder), render_report(folder, private=True)
    assert (whole.name, apart.name) == ("report.html", "report_private.html")
    assert PEOPLE[0] in whole.read_text("utf-8")
    assert PEOPLE[0] not in _seen(apart.read_text("utf-8"))
    with pytest.raises(RunError, match="no live panels"):
        render_report(folder, interactive=True, private=True)


def test_of_a_private_run_that_failed_the_kind_of_error_is_told_alone(private: tuple[Path, list[str]]):
    folder, _ = private
    record = json.loads((folder / "run.json").read_text()) | {"status": "failed", "error": "DataError: erik twice"}
    (folder / "run.json").write_text(json.dumps(record))
    error = v4.new_output("error", ename="DataError", evalue="Kaspar is nobody", traceback=["Kaspar"])
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[error])]), folder / "executed.ipynb")
    page = render_report(folder).read_text("utf-8")
    assert "DataError" in page
    assert not re.search("Kaspar|erik", page)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("of query and gallery, 1/2", "of query and gallery, 1/2"),
        ("see /home/x/y.csv or C:\\Users\\x or ~/z", "see [withheld] or [withheld] or [withheld]"),
        ("https://example.org/a is public", "https://example.org/a is public"),
        ("new/Other Name.JPG", "new/Other [withheld]"),
        ("IMG_7.HEIC, a.jfif and x.raw", "[withheld], [withheld] and x.raw"),
        ("7 images of erika", "7 images of erika"),
        ("identity '7'", "identity 'person-'"),
        ("3 (erik, 7, …)", "3 (person-, person-, …)"),
        ("erik, erik's", "person-, person-'s"),
    ],
)
def test_what_is_taken_out_of_a_sentence(text: str, told: str):
    redaction = Redaction({"person": ["7", "erik"]})
    assert re.sub(r"person-\w{8}", "person-", redaction.text(text)) == told


def test_subjects_sessions_and_files_of_embeddings_are_names_too(tmp_path: Path):
    (tmp_path / "split.csv").write_text("path,identity,subject,session\na1.jpg,erik left,erik,Haus Ost\na2.jpg,x,y,2\n")
    given = {"embeddings": "klinik/of_mueller.npz"}
    redaction = redaction_of(tmp_path, {"parameters": given})
    by_weights = redaction_of(tmp_path, {"parameters": {"weights": "CLIP of Weber/model.pt"}})
    told = by_weights.record({"id": "05_evaluation-CLIP_of_Weber-folder-all-12345678", "status": "failed"})
    assert re.fullmatch(r"05_evaluation-folder-\w{8}-folder-all-12345678", told["id"])
    said = redaction.text("embeddings of_mueller: erik of Haus Ost, session (2)")
    assert re.sub(r"-\w{8}", "-", said) == "embeddings folder-: person- of session-, session (2)"
    assert redaction.value("parameters", given) == dict.fromkeys(given, "withheld")


def test_a_picture_says_whether_it_holds_photographs(tmp_path: Path):
    from handclip_lib.plots.style import matrix, picture_grid
    from handclip_lib.runs.shown import about_figure

    pixels = [np.zeros((8, 8, 3), np.uint8)]
    grid, _ = picture_grid(pixels, ["erik"], 2, 1.0)
    plain = Figure()
    matrix(plain.subplots(), np.eye(3))
    for figure, wanted in ((grid, True), (plain, False)):
        figure.savefig(io.BytesIO())
        assert about_figure(figure, "x")["photographs"] is wanted
    assert "erik" in about_figure(grid, "x")["texts"]
    assert not any(text.isdecimal() for text in about_figure(plain, "x")["texts"]), "ticks that are numbers name nobody"


def test_the_name_of_a_published_data_set_stays_a_word_of_ours(tmp_path: Path):
    (tmp_path / "split.csv").write_text("path,identity\nHands/Hand_0000002.jpg,0000000\nlab/x.jpg,anna\n")
    redaction = redaction_of(tmp_path, {"parameters": {}})
    told = redaction.text("chosen with 11k Hands in view, as Hand_0000002.jpg in lab shows")
    assert told.startswith("chosen with 11k Hands in view, as ")
    assert "Hand_0000002" not in told and " lab " not in told
