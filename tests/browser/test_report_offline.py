import base64
import contextlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat import v4
from PIL import Image

from handclip_lib.report.live_panels import drawn_ahead
from handclip_lib.report.pages import render_report, write_index
from handclip_lib.widgets.panel import Panel

pytestmark = pytest.mark.browser
HOSTILE = ["<script>alert(1)</script>", "../../x", '"><img src=x onerror=alert(1)>']
HOLE = '<script>document.title = "run"</script><img src="https://a.example/i.png" onerror="alert(1)">'


class Watched:
    """A page, with everything it asked for and everything that went wrong on it."""

    def __init__(self, page):
        self.page = page
        self.requests: list[str] = []
        self.faults: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda line: line.type == "error" and self.faults.append(line.text))

    def open(self, path: Path) -> list[str]:
        """Load a file; what it asked for beyond itself and its inlined pictures."""
        self.page.goto(path.as_uri(), wait_until="load")
        return [url for url in self.requests if url != path.as_uri() and not url.startswith("data:")]


@pytest.fixture
def watched(browser) -> Iterator[Watched]:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    yield Watched(context.new_page())
    context.close()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run whose identities are hostile, in a title, a table, a figure's alt text, a message and a parameter."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(buffer, "png")
    png = base64.b64encode(buffer.getvalue()).decode()
    cells = [v4.new_markdown_cell("# Evaluation\n\nWhat came out.")]
    for name in HOSTILE:
        about = {"image/png": {"alt": name}}
        head = f"<thead><tr><th>model</th>{'<th>mAP (trapezoid), %</th>' * 6}</tr></thead>"
        table = f"<table>{head}<tbody><tr><td>{name}</td>{'<td>1.5</td>' * 6}</tr></tbody></table>"
        outputs = [
            v4.new_output("display_data", data={"image/png": png}, metadata=about),
            v4.new_output("display_data", data={"text/html": table}),
            v4.new_output("display_data", data={"application/javascript": "alert(1)"}),
            v4.new_output("stream", name="stdout", text=name),
        ]
        cells += [v4.new_markdown_cell(f"## {name}"), v4.new_code_cell("answer = 6 * 7", outputs=outputs)]
    folder = tmp_path / "runs" / "evaluation-1"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "first figure.png").write_bytes(buffer.getvalue())
    nbformat.write(v4.new_notebook(cells=cells), folder / "executed.ipynb")
    record = {"id": "evaluation-1", "notebook": HOSTILE[0], "status": "failed", "error": HOSTILE[0], "seconds": 9}
    record |= {"parameters": {"data_root": HOSTILE[0]}, "metrics": {"rank1": 0.5}, "started": "2026-11-21T10:00"}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_report_needs_no_network_and_runs_nothing(watched: Watched, run_folder: Path):
    beyond = watched.open(render_report(run_folder))
    assert beyond == []
    assert watched.faults == []
    pictures = watched.page.evaluate("[...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0])")
    assert pictures == [[name, True] for name in HOSTILE]
    assert watched.page.locator(".outcome pre").inner_text() == HOSTILE[0]


def test_the_policy_holds_even_where_cleaning_would_fail(watched: Watched, run_folder: Path):
    path = render_report(run_folder)
    path.write_text(path.read_text("utf-8").replace("</main>", f"{HOLE}</main>"), "utf-8")
    watched.open(path)
    assert watched.page.title() != "run"
    assert not [fault for fault in watched.faults if fault.startswith("dialog")]
    assert [fault for fault in watched.faults if "Content Security Policy" in fault]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("what", ["report", "report with its code", "index"])
def test_no_rule_of_accessibility_is_broken(watched: Watched, run_folder: Path, width: int, what: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    watched.page.set_viewport_size({"width": width, "height": 800})
    report = render_report(run_folder)
    watched.open(report if what != "index" else write_index(run_folder.parent))
    if "code" in what:
        watched.page.get_by_text("Show code").click()
    broken = axe.Axe().run(watched.page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in broken] == []


def test_a_click_opens_a_figure_large_and_another_closes_it_without_a_script(browser, run_folder: Path):
    context = browser.new_context(offline=True, java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(render_report(run_folder).as_uri())
    figure = page.locator("figure").nth(1)
    picture, close = figure.locator("img"), figure.locator(".close")
    at_first = picture.bounding_box()
    assert not close.is_visible()
    picture.click()
    assert close.is_visible()
    assert figure.bounding_box() | {"height": 800} == {"x": 0, "y": 0, "width": 390, "height": 800}
    close.click()
    assert not close.is_visible()
    assert picture.bounding_box()["width"] == at_first["width"]
    assert -1 < page.locator("#at-figure-2").bounding_box()["y"] < 800, "where the reader was"
    context.close()


def test_the_tables_of_results_and_of_a_comparison_fit_a_window_of_1280_pixels(watched: Watched, tmp_path: Path):
    """Both by what the library itself shows of them, with names as long as a run of 04 gives its model."""
    from handclip_lib.analysis.comparison import SHOWN
    from handclip_lib.evaluation.ranking.protocol import HEADLINE
    from handclip_lib.evaluation.tables import readable, result_table

    name = "vitb16, joint in part (the interpolation took the frozen weights)"
    outputs = []
    for shown in (HEADLINE, SHOWN):
        row = {column: -0.4219 for column in shown if not column.startswith(("n_", "model", "gallery"))}
        row |= {f"{column}_{end}": -0.4219 for column in ("rank1", "rank1_gain", "map_gain") for end in ("low", "high")}
        row |= {"model": name, "gallery": "aspect", "n_identities": 1171, "n_query": 10_471.5, "same_as": ""}
        table = readable(result_table([row, row], [column for column in shown if column != "same_as"]))
        outputs.append(v4.new_output("display_data", data={"text/html": table.to_html(index=False, border=0)}))
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=outputs)]), tmp_path / "executed.ipynb")
    (tmp_path / "run.json").write_text(json.dumps({"id": "x", "notebook": "05", "status": "succeeded"}))
    watched.open(render_report(tmp_path))
    cut = "[...document.querySelectorAll('.cell .table')].map(e => e.scrollWidth - e.clientWidth)"
    assert watched.page.evaluate(cut) == [0, 0]
    watched.page.emulate_media(media="print")
    assert len(set(pages(watched.page.pdf(prefer_css_page_size=True)))) == 1
    paper = 688  # A4 less its margins, at 96 pixels an inch: what is wider makes the print of every page smaller
    watched.page.set_viewport_size({"width": paper, "height": 900})
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= paper


def test_a_long_table_says_that_it_scrolls_and_a_caption_is_never_cut(watched: Watched, tmp_path: Path):
    rows = "".join(f"<tr><td>{number}</td>{'<td>63.1 [57.2, 69.4]</td>' * 9}</tr>" for number in range(30))
    head = "".join(f"<th>Rank-{number} (95 % CI), %</th>" for number in range(10))
    caption = "<caption>" + "A long caption. " * 12 + "</caption>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    output = v4.new_output("display_data", data={"text/html": table})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[output])]), tmp_path / "executed.ipynb")
    (tmp_path / "run.json").write_text(json.dumps({"id": "x", "notebook": "05", "status": "succeeded"}))
    watched.page.set_viewport_size({"width": 390, "height": 800})
    watched.open(render_report(tmp_path))
    caption = watched.page.locator(".caption")
    assert caption.inner_text().endswith("(30 rows; scroll for all of them)")
    assert caption.bounding_box()["width"] <= 390
    place = watched.page.locator(".table.long")
    assert place.evaluate("e => e.scrollHeight > e.clientHeight")
    assert "gradient" in place.evaluate("e => getComputedStyle(e).backgroundImage")
    watched.page.emulate_media(media="print")
    assert place.evaluate("e => e.scrollHeight <= e.clientHeight"), "on paper all of it is there"


def test_code_appears_with_the_switch_by_mouse_and_keyboard(watched: Watched, run_folder: Path):
    watched.open(render_report(run_folder))
    code = watched.page.locator(".code").first
    assert not code.is_visible()
    watched.page.get_by_text("Show code").click()
    assert code.is_visible()
    watched.page.locator("#show-code").focus()
    watched.page.keyboard.press("Space")
    assert not code.is_visible()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out_of_the_page(watched: Watched, run_folder: Path, width: int):
    watched.page.set_viewport_size({"width": width, "height": 800})
    watched.open(render_report(run_folder))
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    clipped = "[...document.querySelectorAll('th')].filter(cell => cell.scrollWidth > cell.clientWidth).length"
    assert watched.page.evaluate(clipped) == 0, "a heading of a long word lies over the next one"


def test_the_index_sorts_shows_thumbnails_and_runs_nothing_foreign(watched: Watched, run_folder: Path, expect):
    hostile = run_folder.rename(run_folder.with_name(HOSTILE[2]))
    for name, rank1 in (("better", 0.953), ("low", 0.096)):
        other = hostile.parent / name
        other.mkdir()
        other.joinpath("run.json").write_text(json.dumps({"id": name, "status": "failed", "metrics": {"rank1": rank1}}))
    render_report(hostile)
    index = write_index(hostile.parent)
    watched.open(index)
    loaded = expect(watched.page.locator("img"))
    loaded.to_have_js_property("naturalWidth", 216)  # 300 x 200 within 288 x 144
    assert watched.requests == [index.as_uri(), (hostile / "thumbnail.png").as_uri()]
    assert watched.faults == []
    names = watched.page.locator("tbody th")
    assert [text.split("\n")[0] for text in names.all_inner_texts()] == [hostile.name, "low", "better"]
    heading = watched.page.get_by_role("columnheader", name="Rank-1")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [text.split("\n")[0] for text in names.all_inner_texts()] == ["low", hostile.name, "better"]
    watched.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [text.split("\n")[0] for text in names.all_inner_texts()] == ["better", hostile.name, "low"]
    watched.page.get_by_role("button", name="mAP").click()
    assert watched.page.locator("[aria-sort]").count() == 1


def many_runs(runs: Path, count: int) -> Path:
    """An index of runs that each have a figure."""
    picture = io.BytesIO()
    Image.effect_noise((288, 144), 60).save(picture, "png")
    for number in range(count):
        folder = runs / f"05_evaluation-tiny-drawn-{('dorsal_r', 'palmar_l')[number % 2]}-{number:08x}"
        folder.mkdir(parents=True)
        rank1 = number * 7919 % count / count
        record = {
            "id": folder.name, "notebook": "05_evaluation", "status": ("succeeded", "failed")[number % 5 == 0],
            "started": f"2026-11-{1 + number % 20:02d}T10:00:00+00:00", "seconds": number,
            "parameters": {"aspect": ("dorsal_r", "palmar_l")[number % 2], "backbone": "tiny", "dataset": "drawn"},
            "metrics": {"rank1": rank1, "rank1_low": rank1 - 0.02, "rank1_high": rank1 + 0.02},
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "report.html").touch()
        (folder / "thumbnail.png").write_bytes(picture.getvalue())
    return write_index(runs)


def test_five_hundred_runs_stay_light_and_are_filtered_by_words(watched: Watched, tmp_path: Path):
    index = many_runs(tmp_path / "runs", 500)
    assert index.stat().st_size < 700_000
    watched.open(index)
    assert len(watched.requests) < 100, "only what is near the window is loaded"
    rows = watched.page.locator("tbody tr:visible")
    assert rows.count() == 500
    watched.page.keyboard.press("Tab")
    watched.page.keyboard.type("PALMAR failed")
    assert rows.count() == 50  # every second of 500, and every fifth of those
    assert watched.page.get_by_role("status").inner_text() == "50 of 500"
    watched.page.get_by_role("button", name="Took").press("Enter")
    assert rows.first.locator("th").inner_text().startswith("05_evaluation-tiny-drawn-palmar_l-00000005")
    watched.page.get_by_role("searchbox").fill("")
    assert rows.count() == 500
    assert watched.faults == []


def test_without_scripts_the_index_is_a_plain_table(browser, tmp_path: Path):
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(many_runs(tmp_path / "runs", 3).as_uri())
    assert page.locator("tbody tr:visible").count() == 3
    assert page.get_by_role("button").count() == 0, "nothing that would not answer"
    assert not page.get_by_role("searchbox").is_visible()
    context.close()


def test_on_paper_there_is_neither_code_nor_a_control_and_no_figure_is_cut(watched: Watched, run_folder: Path):
    watched.open(render_report(run_folder))
    watched.page.get_by_text("Show code").click()
    watched.page.emulate_media(media="print")
    gone = watched.page.locator(":is(nav, .button, .home, .switch, .code, .close)")
    assert gone.count() >= 7
    assert not [element for element in gone.all() if element.is_visible()]
    style = "e => [getComputedStyle(e).breakInside, getComputedStyle(e).position]"
    assert watched.page.locator("figure").first.evaluate(style) == ["avoid", "static"]
    assert watched.page.locator(".table").first.evaluate("e => getComputedStyle(e).overflow") == "visible"
    watched.page.evaluate("for (const i of document.images) i.style.height = '110mm'")  # two a page and a bit
    printed = watched.page.pdf(prefer_css_page_size=True)
    assert set(pages(printed)) == {A4}
    assert pictures_drawn(printed) == 3, "one that is cut would be drawn on two pages"


def test_the_index_is_printed_across_the_page_without_its_filter(watched: Watched, tmp_path: Path):
    watched.open(many_runs(tmp_path / "runs", 60))
    watched.page.emulate_media(media="print")
    assert not watched.page.get_by_role("searchbox").is_visible()
    printed = pages(watched.page.pdf(prefer_css_page_size=True))
    assert set(printed) == {A4[::-1]}
    assert 2 <= len(printed) <= 6


A4 = (595, 842)


def pages(pdf: bytes) -> list[tuple[int, int]]:
    """Width and height in points of each page."""
    boxes = re.findall(rb"/Type /Page\b[^s].*?/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf, re.DOTALL)
    return [(round(float(width)), round(float(height))) for width, height in boxes]


def pictures_drawn(pdf: bytes) -> int:
    """How often a picture is drawn, over all pages."""
    count = 0
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        with contextlib.suppress(zlib.error):  # a picture or a font
            count += len(re.findall(rb"/X\d+ Do", zlib.decompress(stream)))
    return count


def test_panels_drawn_ahead_answer_without_a_kernel_by_mouse_and_keyboard(watched: Watched, tmp_path: Path):
    def painted(colour: str, width: int) -> Figure:
        return Figure(figsize=(width, 1), facecolor=colour)

    choice = ipywidgets.Dropdown(options=["red", "<b>", "blue"], value="red")
    panel = Panel(painted, alt="Paint", colour=choice, width=ipywidgets.IntSlider(1, 1, 3))
    live = drawn_ahead(panel, {"colour": ["red", "<b>", "blue"], "width": [1, 2, 3]})
    output = v4.new_output("display_data", {"image/png": "AA=="}, metadata={"image/png": {"alt": panel.alt}})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[output])]), tmp_path / "executed.ipynb")
    (tmp_path / "run.json").write_text(json.dumps({"id": "x", "notebook": "05", "status": "succeeded"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handclip_lib.report.live_panels.live_panels", lambda *_: [live])
        path = render_report(tmp_path, interactive=True)
    assert watched.open(path) == []

    def shown() -> list[str]:
        frames = watched.page.locator(".live .frame:visible").all()
        return [frame.get_attribute("alt") or frame.inner_text() for frame in frames]

    page = watched.page
    assert shown() == ["Paint (colour: red, width: 1)"]
    page.get_by_label("colour", exact=True).select_option("blue")
    assert shown() == ["Paint (colour: blue, width: 1)"]
    slider = page.get_by_label("width", exact=True)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert shown() == ["Paint (colour: blue, width: 2)"]
    assert slider.get_attribute("aria-valuetext") == "2"
    slider.click(position={"x": slider.bounding_box()["width"] - 2, "y": 5})
    assert shown() == ["Paint (colour: blue, width: 3)"]
    page.get_by_label("colour", exact=True).focus()
    page.keyboard.press("<")
    assert shown()[0].startswith("ValueError"), "what the panel itself says of this colour"
    assert page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length") == 0
    page.emulate_media(media="print")
    assert not slider.is_visible()
    assert watched.faults == []
    path.write_text(path.read_text("utf-8").replace("</main>", f"{HOLE}</main>"), "utf-8")
    watched.open(path)
    assert page.title() != "run", "its own script runs, and no other"
    assert [fault for fault in watched.faults if "Content Security Policy" in fault]


def test_a_slider_works_without_a_kernel_by_mouse_and_keyboard(watched: Watched, tmp_path: Path):
    pictures = []
    for colour in ("red", "green", "blue"):
        buffer = io.BytesIO()
        Image.new("RGB", (60, 40), colour).save(buffer, "png")
        pictures.append([colour, base64.b64encode(buffer.getvalue()).decode()])
    about = {"image/png": {"alt": "Colours", "frames": pictures}}
    output = v4.new_output("display_data", data={"image/png": pictures[-1][1]}, metadata=about)
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[output])]), tmp_path / "executed.ipynb")
    (tmp_path / "run.json").write_text(json.dumps({"id": "x", "notebook": "02", "status": "succeeded"}))
    assert watched.open(render_report(tmp_path)) == []

    def shown() -> list[str]:
        return [
            picture.get_attribute("alt")
            for picture in watched.page.locator(".frames img").all()
            if picture.is_visible()
        ]

    assert shown() == ["Colours (blue)"]
    watched.page.get_by_text("red", exact=True).click()
    assert shown() == ["Colours (red)"]
    watched.page.keyboard.press("ArrowRight")
    assert shown() == ["Colours (green)"]
    for width in range(200, 420, 20):  # a telephone: a button and its name stay in one line
        watched.page.set_viewport_size({"width": width, "height": 600})
        buttons, names = (watched.page.locator(f".frames {kind}").all() for kind in ("input", "label"))
        for button, name in zip(buttons, names, strict=True):
            assert name.bounding_box()["x"] > button.bounding_box()["x"], width
    assert watched.faults == []
