import base64
import io
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4
from PIL import Image

from handclip_lib.errors import RunError, WriteError
from handclip_lib.report.cells import cleaned
from handclip_lib.report.facts import index_row
from handclip_lib.report.pages import render_report, write_index

SCRIPT = "<script>alert(1)</script>"
RECORD = {
    "id": "evaluation-tiny-drawn-dorsal_r-3fa9c1d2", "notebook": "05_evaluation", "status": "succeeded",
    "parameters": {"dataset": "drawn", "aspect": "palmar_r", "draws": 10, "backbone": "tiny"},
    "defaults": {"dataset": "drawn", "aspect": "dorsal_r", "draws": 10, "backbone": "tiny"},
    "versions": {"torch": "2.15.0"}, "git": {"commit": "3fa9c1d2e8b04455", "changed": True},
    "split": {"checksum": "9d8a7b6c5d4e3f"},
    "seed": 0, "started": "2026-11-21T03:40:11+00:00", "finished": "2026-11-21T03:41:15+00:00", "seconds": 64.2,
    "metrics": {"rank1": 0.714, "map": 0.79, "spread": {"low": 0.6512345678}},
    "command": "papermill notebooks/05_evaluation.ipynb out.ipynb -p aspect palmar_r",
}  # fmt: skip


def _png() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def _display(metadata: dict | None = None, **data: str) -> nbformat.NotebookNode:
    kinds = {"png": "image/png", "html": "text/html", "plain": "text/plain", "javascript": "application/javascript"}
    bundle = {kinds[kind]: value for kind, value in data.items()}
    return v4.new_output("display_data", data=bundle, metadata=metadata or {})


def _code(source: str = "1", *outputs: nbformat.NotebookNode, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    return v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def _report(folder: Path, cells: list, **record: object) -> BeautifulSoup:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(RECORD | record))
    nbformat.write(v4.new_notebook(cells=cells), folder / "executed.ipynb")
    path = render_report(folder)
    assert path == folder / "report.html"
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def test_the_header_says_what_was_done_where_something_else_was_asked(tmp_path: Path):
    given = {"dataset": "folder", "aspect": "dorsal_r", "backbone": "tiny", "embeddings": "theirs.npz"}
    split = {"dataset": "folder", "aspect": "unspecified", "checksum": "0"}
    page = _report(tmp_path / "a", [], parameters=given, defaults={}, split=split, metrics={})
    facts = {fact.dt.text: fact.dd.text for fact in page.select("dl.facts div")}
    assert (facts["Aspect"], "Model" in facts) == ("unspecified", False), "the default backbone is none that ran"
    row = index_row(tmp_path / "a", {"id": "a", "status": "succeeded", "parameters": given, "split": split})
    assert (row["aspect"], row["backbone"]) == ("unspecified", "")


def test_the_header_says_what_ran_when_and_what_differs(tmp_path: Path):
    cells = [v4.new_markdown_cell("# 05 Evaluation\n\n**Question.** Who?\n\n**Needs.** Nothing.")]
    weights = {"tiny": {"fingerprint": "3fa9", "source": "shipped here", "properties": {"heads": "8 (as written)"}}}
    page = _report(tmp_path / RECORD["id"], cells, weights=weights)
    assert page.title.text == f"05 Evaluation · {RECORD['id']}"
    assert page.h1.text == "05 Evaluation"
    assert page.select_one(".status.good").text == "succeeded"
    facts = {fact.dt.text: fact.dd.text for fact in page.select("dl.facts div")}
    assert facts == {
        "Data set": "drawn", "Aspect": "palmar_r", "Model": "tiny", "Weights": "tiny: 3fa9, shipped here",
        "Changed from default": "aspect = palmar_r", "Started": "2026-11-21 03:40 UTC", "Took": "64 s",
    }  # fmt: skip
    rows = {row.th.text: [cell.text.strip() for cell in row("td")] for row in page.select("#about-run tbody tr")}
    meaning = "dorsal_r, dorsal_l, palmar_r, palmar_l, all, or unspecified where none is recorded"
    assert rows["aspect"] == ["palmar_r", "dorsal_r changed", meaning]
    assert rows["tiny.properties.heads"] == ["8 (as written)"]
    assert rows["draws"] == ["10", "", "query/gallery draws"]
    assert (page.main.p.text, "Needs." in page.text) == ("Question. Who?", False)
    assert page.select_one(".status.wait").text == "synthetic data"
    assert rows["spread.low"] == ["0.651235"]
    assert (rows["git.changed"], rows["split.checksum"]) == (["true"], ["9d8a7b6c5d4e3f"])


def test_a_conclusion_stands_on_the_first_screen_alone_and_in_the_cells_of_a_run_that_failed(tmp_path: Path):
    shown = {"text/html": "<p><b>It is 5.</b></p><ul><li>Few.</li></ul>", "text/plain": "It is 5.\n- Few."}
    cells = [v4.new_code_cell("run.conclude()", outputs=[v4.new_output("display_data", shown)])]
    page = _report(tmp_path / "done", cells, answer="It is 5.", cautions=["Few."])
    assert page.text.count("It is 5.") == page.text.count("Few.") == 1
    page = _report(tmp_path / "failed", cells, answer="It is 5.", cautions=["Few."], status="failed", error="It")
    assert page.main.text.count("It is 5.") == 1


def test_a_failed_report_ends_where_it_failed(tmp_path: Path):
    error = v4.new_output("error", ename="DataError", evalue="one person", traceback=["one person"])
    cells = [
        v4.new_markdown_cell("## Before"), _code("1", error), v4.new_markdown_cell("## After\n\nWhat figures mean."),
        _code("2"),
    ]  # fmt: skip
    page = _report(tmp_path / "failed", cells, status="failed", error="one person")
    assert [heading.text for heading in page.select(".prose h2")] == ["Before"]
    cells[-1] = _code("2", _display(plain="went on by hand"))
    page = _report(tmp_path / "on", cells, status="failed", error="one person")
    assert [heading.text for heading in page.select(".prose h2")] == ["Before", "After"]


def test_an_interval_stays_whole_and_a_long_name_may_end_a_line_within(tmp_path: Path):
    row = "<tr><td>vitb16_prompts_of_the_lab_2026/best=1</td><td>63.1 [56.9, 69.0]</td></tr>"
    table = f"<table><thead><tr><th>model</th><th>Rank-1 (95 % CI), %</th></tr></thead><tbody>{row * 2}</tbody></table>"
    cells = [v4.new_code_cell("", outputs=[v4.new_output("display_data", {"text/html": table, "text/plain": ""})])]
    page = _report(tmp_path, cells)
    name, figure = page.select_one(".cell tbody tr")("td")
    assert name.decode_contents() == "vitb16_<wbr/>prompts_<wbr/>of_<wbr/>the_<wbr/>lab_<wbr/>2026/<wbr/>best=<wbr/>1"
    assert (figure.text, figure["class"]) == ("63.1 [56.9,\u00a069.0]", ["number", "interval"])
    assert page.select(".cell th")[1].text == "Rank\u20111 (95\u00a0%\u00a0CI), %"


def test_of_a_table_without_rows_the_caption_says_so_and_no_heading_stands_alone(tmp_path: Path):
    headings = "<thead><tr><th>model</th></tr></thead><tbody></tbody>"
    table = f"<table><caption>By session; none here</caption>{headings}</table>"
    cells = [v4.new_code_cell("", outputs=[v4.new_output("display_data", {"text/html": table, "text/plain": ""})])]
    page = _report(tmp_path, cells)
    assert page.select_one(".cell .caption").text == "Table 1. By session; none here"
    assert not page.select(".cell table")


def test_parameters_that_are_all_as_by_default_have_no_column_of_defaults(tmp_path: Path):
    as_by_default = {"parameters": {"draws": 10}, "defaults": {"draws": 10}}
    table = _report(tmp_path, [], **as_by_default).select_one("#about-run table")
    assert [cell.text for cell in table("th", scope="col")] == ["Name", "Value", "Meaning"]
    assert [cell.text for cell in table.tbody("td")] == ["10", "query/gallery draws"]


def test_the_first_screen_is_what_the_notebook_concluded_beside_the_baselines(tmp_path: Path):
    (tmp_path / "results.csv").write_text(
        "model,gallery,rank1,rank1_low,rank1_high,map,supported\ntiny,aspect,0.631,0.572,0.694,0.7,False\n"
        "trivial baseline: pixels,aspect,0.341,0.28,0.4,0.4,True\ntiny,all,0.5,0.4,0.6,0.5,True\n"
    )
    concluded = {"answer": f"It is {SCRIPT}.", "cautions": ["Few people.", SCRIPT]}
    page = _report(tmp_path, [v4.new_markdown_cell("# 05")], metrics={"gallery": "aspect", "rank1": 0.631}, **concluded)
    assert page.select_one("header .answer").text == concluded["answer"]
    assert [line.text for line in page.select("header .warnings li")] == concluded["cautions"]
    assert [[cell.text for cell in row(["th", "td"])] for row in page.select("header tr")] == [
        ["model", "Rank\u20111 (95\u00a0%\u00a0CI), %", "mAP, %"],
        ["tiny", "63.1 [57.2,\u00a069.4]", "70.0"],
        ["trivial baseline: pixels", "34.1 [28.0,\u00a040.0]", "40.0"],
    ]
    assert [row.get("class") for row in page.select("header tbody tr")] == [["unclaimed"], None]  # grey: no claim


def test_where_a_run_lies_is_no_part_of_what_it_found(tmp_path: Path):
    place = f"finished, but it did not learn: {tmp_path}/05_evaluation-tiny-drawn-dorsal_r-0fc937ed"
    printed = (
        f"finished: the third of 3\n{place}\nits report: handclip report 05_evaluation-tiny-drawn-dorsal_r-0fc937ed\n"
    )
    page = _report(tmp_path, [_code("run.finish()", v4.new_output("stream", name="stdout", text=printed))])
    shown = page.select_one("main").text
    assert "finished: the third of 3" in shown and "0fc937ed" not in shown and "did not learn" not in shown


@pytest.mark.parametrize(
    ("record", "said", "warned"),
    [
        ({"metrics": {"gallery": "aspect", "rank1": 0.5}}, "This run succeeded after 64 s.", []),
        ({"metrics": {"learnt": "no: epoch 0 was best"}}, "This run succeeded after 64 s.", ["learnt no: epoch 0"]),
        ({"status": "failed", "answer": "It is 3.", "cautions": ["x"]}, "This run failed after 64 s.", []),
        ({"status": "running", "seconds": None}, "This run goes on.", []),
    ],
)  # fmt: skip
def test_a_run_without_an_answer_still_says_how_it_ended(record: dict, said: str, warned: list[str], tmp_path: Path):
    (tmp_path / "results.csv").write_bytes(b"\xff\x00")
    page = _report(tmp_path, [], **record)
    assert page.select_one(".answer").text == said
    for line, words in zip(page.select("header .warnings li"), warned, strict=True):
        assert words in line.text
    assert page.select("header table") == []


def test_a_table_of_contents_leads_to_every_heading(tmp_path: Path):
    cells = [v4.new_markdown_cell("# Title\n\n## Data & *split*"), v4.new_markdown_cell("### Draws\n\n## Data & split")]
    page = _report(tmp_path, cells)
    links = page.select("nav a")
    assert [link.text for link in links] == ["Data & split", "Draws", "Data & split", "About this run"]
    targets = [page.find(id=link["href"].removeprefix("#")) for link in links]
    assert [target.name for target in targets] == ["h2", "h3", "h2", "section"]
    assert len({link["href"] for link in links}) == 4


def test_every_figure_has_alt_text_a_number_and_a_caption(tmp_path: Path):
    cells = [
        v4.new_markdown_cell("# Title\n\n## Samples"),
        _code("grid", _display({"image/png": {"alt": "Twelve hands"}}, png=_png(), plain="<Figure>")),
        _code("cmc", _display({"image/png": {"alt": "Rising curves", "caption": "CMC"}}, png=_png())),
        _code("bare", _display(png=_png())),
    ]
    page = _report(tmp_path, cells)
    assert [image["alt"] for image in page("img")] == ["Twelve hands", "Rising curves", "Samples"]
    captions = [caption.text for caption in page("figcaption")]
    said = [f"Figure {n}. {what} Synthetic: drawn hands." for n, what in ((1, "Twelve hands."), (2, "CMC."))]
    assert captions == [*said, "Figure 3.  Synthetic: drawn hands."]
    assert [(link["href"], link.img is not None) for link in page.select("figure > a:not(.close)")] == [
        (f"#{figure['id']}", True) for figure in page("figure")
    ], "a click opens it large"
    assert "<Figure>" not in page.main.text


def test_a_panel_is_its_picture_and_a_bare_control_is_nothing(tmp_path: Path):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "12ab"}}
    panel = v4.new_output("display_data", data={**view, "image/png": _png(), "text/plain": "Panel"})
    slider = v4.new_output("display_data", data={**view, "text/plain": "IntSlider(value=3)"})
    page = _report(tmp_path, [_code("panel", panel), _code("slider", slider)])
    assert len(page("img")) == 1
    assert "IntSlider" not in page.main.text
    assert "12ab" not in str(page)


def test_progress_bars_are_taken_out_and_warnings_kept(tmp_path: Path):
    noise = "\r  0%|          | 0/9 [00:00<?, ?it/s]\r100%|##########| 9/9 [00:00<00:00, 95.1it/s]\n"
    stderr = v4.new_output("stream", name="stderr", text=noise + "UserWarning: 3 subjects cannot be queried\n")
    only_noise = v4.new_output("stream", name="stderr", text=noise)
    stdout = v4.new_output("stream", name="stdout", text="1 of 2\r2 of 2\nrank-1 100%\n")
    page = _report(tmp_path, [_code("encode", stderr, stdout), _code("again", only_noise)])
    assert [text.text for text in page.select("pre.text")] == [
        "UserWarning: 3 subjects cannot be queried",
        "2 of 2\nrank-1 100%",
    ]


def test_tables_align_numbers_to_the_right_and_scroll_by_keyboard(tmp_path: Path):
    rows = [("tiny", "71.4", "68.1–74.0", "7"), ("pixels", "68.0", "–", "../../x")]
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    head = "<tr>" + "".join(f"<th>{name}</th>" for name in ("model", "rank-1", "interval", "note")) + "</tr>"
    page = _report(tmp_path, [_code("t", _display(html=f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"))])
    table = page.select_one(".cell table")
    assert [("number" in cell.get("class", [])) for cell in table("th")] == [False, True, True, False]
    assert [("number" in cell.get("class", [])) for cell in table("td")] == [False, True, True, False] * 2
    assert table.parent["tabindex"] == "0"


def test_code_is_there_but_hidden_behind_one_switch(tmp_path: Path):
    page = _report(tmp_path, [_code("answer = 6 * 7")])
    assert page.select_one(".code").text.strip() == "answer = 6 * 7"
    assert len(page.select("input[type=checkbox]")) == 1
    assert re.search(r"\.on, \.code[^{]*{ display: none", page.style.text)


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_failed_run_says_why_first(tmp_path: Path, status: str):
    error = v4.new_output(
        "error", ename="DataError", evalue=f"no identity {SCRIPT}", traceback=[f"DataError: {SCRIPT}"]
    )
    box = v4.new_markdown_cell("<span style='color:red'>An Exception was encountered</span>")
    box.metadata.tags = ["papermill-error-cell-tag"]
    page = _report(tmp_path, [box, _code("open()", error)], status=status)
    assert page.select_one(".outcome pre").text == f"DataError: no identity {SCRIPT}"
    assert page.find(id="failure") is not None
    assert page.select_one(".status.bad").text == status
    assert "An Exception" not in page.text
    assert page.script is None


def test_a_run_that_ended_before_its_notebook_still_has_a_report(tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps(RECORD | {"status": "failed", "error": "kernel killed"}))
    page = BeautifulSoup(render_report(tmp_path).read_text("utf-8"), "html.parser")
    assert page.select_one(".outcome pre").text == "kernel killed"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"<p>{SCRIPT}x</p>", "<p>x</p>"),
        ("&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('<img src="x" onerror="alert(1)">', ""),
        ('<img src="https://a.example/i.png">', ""),
        ('<img src="data:image/svg+xml;base64,AAAA">', ""),
        ('<img alt="a" src="data:image/png;base64,AAAA">', '<img alt="a" src="data:image/png;base64,AAAA">'),
        (
            '<img alt="a" src="data:image/png;base64,AAAA" srcset="//a 2x">',
            '<img alt="a" src="data:image/png;base64,AAAA">',
        ),
        ('<a href="javascript:alert(1)">a</a>', "<a>a</a>"),
        ('<a href="https://a.example">a</a>', '<a href="https://a.example">a</a>'),
        ('<iframe src="https://a.example"></iframe>', ""),
        ("<style>body{display:none}</style>", ""),
        ('<b style="color: red">1</b>', "<b>1</b>"),
        ('<span style="color: red; background-image: url(//a)">1</span>', '<span style="color: red;">1</span>'),
        ('<p id="about-run" onclick="alert(1)">a</p>', "<p>a</p>"),
        ('<form action="https://a.example"><input name="a"></form>', ""),
        ('<svg onload="alert(1)"><path></svg>', ""),
        ('<meta http-equiv="refresh" content="0;url=https://a.example">', ""),
    ],
)
def test_foreign_markup_is_made_inert(given: str, kept: str):
    assert cleaned(given) == kept


def test_what_holds_nothing_foreign_is_cleaned_as_what_does(monkeypatch: pytest.MonkeyPatch):
    given = '<table onclick="x()"><tr style="color: #666; top: 0"><td>a &lt;script&gt;<br>b<td>&amp; 2 < 3</table>'
    quick = cleaned(given)
    monkeypatch.setattr("handclip_lib.report.cells.MAY_GO", re.compile(""))  # by a tree, as where something must go
    assert quick == cleaned(given)
    assert "onclick" not in quick


@pytest.mark.parametrize("name", [SCRIPT, "../../x", '"><img src=x onerror=alert(1)>'])
def test_names_from_a_data_set_stay_text_everywhere(tmp_path: Path, name: str):
    cells = [
        v4.new_markdown_cell(f"# Hands of {name}\n\n## {name}"),
        _code("f", _display({"image/png": {"alt": name, "caption": name}}, png=_png())),
        _code("t", _display(html=f"<table><tbody><tr><td>{name}</td></tr></tbody></table>")),
        _code("p", _display(plain=name), v4.new_output("stream", name="stdout", text=name)),
        _code("j", _display(javascript="alert(1)")),
    ]
    page = _report(tmp_path, cells, id=name, parameters={"data_root": name, name: 1}, status=name)
    assert page.script is None
    assert not [tag for tag in page(True) if any(key.startswith("on") for key in tag.attrs)]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page("img"))
    assert page.select_one("figure img")["alt"] == name
    assert page.select_one("figcaption").text == f"Figure 1. {name}"
    assert page.select_one(".status").text == name
    assert name in page.select_one("#about-run").text


def test_the_policy_forbids_every_request_and_every_script(tmp_path: Path):
    page = _report(tmp_path, [])
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "script-src" not in policy


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", "{"), ("run.json", "[]"), ("executed.ipynb", "{}"), ("executed.ipynb", "<html>")],
)
def test_a_damaged_record_is_named(tmp_path: Path, name: str, content: str):
    _report(tmp_path, [])
    (tmp_path / "report.html").unlink()
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=name):
        render_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_a_record_is_no_run(tmp_path: Path):
    with pytest.raises(RunError, match=r"run\.json is not there"):
        render_report(tmp_path)


@pytest.mark.matrix("full disk", "report, written again", "the one before is kept")
def test_a_write_that_fails_keeps_the_report_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _report(tmp_path, [])
    before = (tmp_path / "report.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteError, match=r"report\.html cannot be written .*No space left"):
        render_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def _run(runs: Path, name: str, **record: object) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(RECORD | {"id": name} | record))
    return folder


def test_the_index_lists_runs_newest_first_with_figures_and_links(tmp_path: Path):
    runs = tmp_path / "runs"
    _run(runs, "older", started="2026-11-20T10:00:00+00:00", metrics={}, seconds=None)
    known = {"rank1": 0.714, "rank1_low": 0.651, "rank1_high": 0.7777, "best_floor_rank1": 0.2, "map": 0.79}
    given = RECORD["parameters"] | {"draws": 3}
    newer = _run(runs, "newer #1", started="2026-11-21T10:00:00+00:00", metrics=known, parameters=given, seconds=184)
    (newer / "report.html").touch()
    (newer / "figures").mkdir()
    (newer / "figures" / "b first.png").touch()
    (newer / "figures" / "a second.png").touch()
    os.utime(newer / "figures" / "b first.png", (1, 1))
    path = write_index(runs)
    assert path == tmp_path / "index.html"
    page = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    newest, oldest = page.select("tbody tr")
    cells = newest(["td", "th"])
    assert [" ".join(cell.stripped_strings) for cell in cells] == [
        "", "newer #1 draws = 3", "succeeded", "05 evaluation", "drawn", "palmar_r", "tiny", "71.4 65.1–77.8", "20.0",
        "79.0", "3 min", "2026-11-21 10:00 UTC",
    ]  # fmt: skip
    assert [cell["data-value"] for cell in cells if cell.has_attr("data-value")] == [
        "71.4", "184", "2026-11-21T10:00:00+00:00",
    ]  # fmt: skip
    assert newest.a["href"] == "runs/newer%20%231/report.html"
    assert newest.img["src"] == "runs/newer%20%231/figures/b%20first.png"
    assert newest.img["loading"] == "lazy"
    assert oldest.th.text == "older"
    assert oldest.a is None
    (newer / "report_interactive.html").touch()
    (newer / "figures" / "cmc.png").touch()
    links = BeautifulSoup(write_index(runs).read_text("utf-8"), "html.parser").select_one("tbody tr")
    assert [link["href"] for link in links("a")][1:] == ["runs/newer%20%231/report_interactive.html"]
    assert links.img["src"] == "runs/newer%20%231/figures/cmc.png", "it tells more than the first one"


@pytest.mark.parametrize(("metrics", "called"), [({"model": "w 3fa9, fine-tuned"}, "w 3fa9, fine-tuned"), ({}, "")])
def test_the_index_calls_a_file_of_weights_by_its_name_and_not_by_the_backbone_that_is_default(
    tmp_path: Path, metrics: dict, called: str
):
    _run(tmp_path / "runs", "one", metrics=metrics, parameters=RECORD["parameters"] | {"weights": "/x/w.pt"})
    page = BeautifulSoup(write_index(tmp_path / "runs").read_text("utf-8"), "html.parser")
    assert page.select_one("tbody tr")("td")[5].text == called


def _saved_picture(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (1200, 300), colour).save(path)


def test_a_run_has_a_thumbnail_of_its_most_telling_figure_else_of_its_first_picture(tmp_path: Path):
    figures, small = tmp_path / "figures", tmp_path / "thumbnail.png"
    _report(tmp_path, [])
    assert not small.exists()
    _report(tmp_path, [_code("panel", _display(png=_png()))])
    with Image.open(small) as picture:
        assert picture.size == (40, 30), "a small one is not made larger"
        assert picture.convert("RGB").getpixel((20, 15)) == (0, 128, 128)
    _saved_picture(figures / "a.png", "red")
    _saved_picture(figures / "cmc.png", "blue")
    _report(tmp_path, [_code("panel", _display(png=_png()))])
    with Image.open(small) as picture:
        assert picture.size == (288, 72)
        assert picture.convert("RGB").getpixel((20, 15)) == (0, 0, 255)
    (figures / "cmc.png").write_bytes(b"torn")
    _report(tmp_path, [])
    assert not small.exists(), "a report needs no picture"


@pytest.mark.matrix("hostile text", "index of runs", "text, and no markup")
def test_the_index_survives_hostile_and_damaged_runs(tmp_path: Path):
    runs = tmp_path / "runs"
    _run(runs, "a", id=SCRIPT, status=SCRIPT, notebook=SCRIPT, parameters={"dataset": SCRIPT}, error=f'">{SCRIPT}')
    (runs / "empty").mkdir()
    _run(runs, "torn").joinpath("run.json").write_text('{"id": ')
    _run(runs, "odd", parameters=[1], metrics=3, seconds="x", started=None)
    _run(runs, "nan", metrics={"rank1": float("nan"), "map": True}, defaults=None)
    page = BeautifulSoup(write_index(runs).read_text("utf-8"), "html.parser")
    statuses = {row.th.text: row.select_one(".status").text for row in page.select("tbody tr")}
    assert statuses == {"a": SCRIPT, "empty": "damaged", "torn": "damaged", "odd": "damaged", "nan": "succeeded"}
    assert len(page("script")) == 1
    assert "nan" not in [cell.text for cell in page.select("td.number")]


def test_no_title_breaks_out_of_the_style_of_the_printed_page(tmp_path: Path):
    name = '"; } <style><script>alert(1)<script>'
    page = _report(tmp_path / name, [])
    assert page.script is None
    printed = re.search(r'@bottom-left { content: "([^"]*)"', page.style.text)[1]
    # a CSS escape is the code point in hexadecimal and a blank
    assert "".join(chr(int(code, 16)) for code in re.findall(r"\\([0-9a-f]+) ", printed)) == name


def test_an_index_of_nothing_says_what_to_do(tmp_path: Path):
    assert "handclip run 01" in write_index(tmp_path / "runs").read_text("utf-8")


def test_frames_are_a_slider_of_radio_buttons_and_their_labels_are_text(tmp_path: Path):
    frames = [["0", _png()], [SCRIPT, _png()], ['"><img src=x>', _png()]]
    about = {"image/png": {"alt": "Cosine over epochs", "width": 40, "frames": frames}}
    page = _report(tmp_path, [_code("1", _display(about, png=_png()))])
    assert not page.find_all("script")
    (figure,) = page.select(".cell figure.frames")
    buttons, labels, pictures = figure("input"), figure("label"), figure("img")
    assert [label.text for label in labels] == ["0", SCRIPT, '"><img src=x>']
    assert [label["for"] for label in labels] == [button["id"] for button in buttons]
    assert len({button["name"] for button in buttons}) == 1
    assert [button.has_attr("checked") for button in buttons] == [False, False, True]
    assert pictures[0]["alt"] == "Cosine over epochs (0)"
    assert figure.figcaption.text == "Figure 1. Cosine over epochs. Synthetic: drawn hands."
