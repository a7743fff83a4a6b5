import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from PIL import Image

from handclip_lib.workbench.reports import render_report, write_index

pytestmark = pytest.mark.browser
HOSTILE = ["<script>alert(1)</script>", "../../x", '"><img src=x onerror=alert(1)>']
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip


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


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=chromium, args=SWITCHES)


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
        table = f"<table><tbody><tr><td>{name}</td><td>1.5</td></tr></tbody></table>"
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
    record = {"id": HOSTILE[2], "notebook": HOSTILE[0], "status": "failed", "error": HOSTILE[0], "seconds": 9}
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
    hole = '<script>document.title = "run"</script><img src="https://a.example/i.png" onerror="alert(1)">'
    path.write_text(path.read_text("utf-8").replace("</main>", f"{hole}</main>"), "utf-8")
    watched.open(path)
    assert watched.page.title() != "run"
    assert not [fault for fault in watched.faults if fault.startswith("dialog")]
    assert [fault for fault in watched.faults if "Content Security Policy" in fault]


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


def test_the_index_sorts_shows_thumbnails_and_runs_nothing_foreign(watched: Watched, run_folder: Path):
    better = run_folder.parent / "evaluation-2"
    better.mkdir()
    better.joinpath("run.json").write_text(json.dumps({"id": "better", "metrics": {"rank1": 0.953}}))
    render_report(run_folder)
    index = write_index(run_folder.parent)
    watched.open(index)
    watched.page.wait_for_function("document.images.length == 1 && document.images[0].naturalWidth == 300")
    assert watched.requests == [index.as_uri(), (run_folder / "figures" / "first figure.png").as_uri()]
    assert watched.faults == []
    names = watched.page.locator("tbody th")
    assert names.all_inner_texts() == [HOSTILE[2], "better"]
    button = watched.page.get_by_role("button", name="Rank-1")
    button.click()
    assert names.all_inner_texts() == [HOSTILE[2], "better"]
    button.click()
    assert names.all_inner_texts() == ["better", HOSTILE[2]]


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
    assert watched.faults == []
