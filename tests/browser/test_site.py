"""The documentation site: built strictly, whole from the disk without a network, clicked through."""

import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from nbformat import v4

from handclip_lib.parameters.notebooks import NOTEBOOKS
from tools.site_pages import ROOT, lay_out

pytestmark = pytest.mark.browser
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def ran(reports: Path, name: str) -> None:
    """A run of a notebook as it stands in the repository, with outputs of each kind in two cells."""
    folder = reports / "runs" / f"{name}-1"
    folder.mkdir(parents=True)
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    setup = next(cell for cell in code if "setup" in cell["metadata"].get("tags", []))
    setup["outputs"] = [v4.new_output("stream", text=f"writes to {folder}")]
    wide = f"<table><tr>{'<td>rank-1 of a drawn hand</td>' * 30}</tr></table>"
    panel = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Panel(...)"}
    code[-1]["outputs"] = [
        v4.new_output("display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": "A drawn curve"}}),
        v4.new_output("display_data", data={"text/html": wide}),
        v4.new_output("display_data", data=panel),
        v4.new_output("stream", text=f"wrote {folder / 'comparison.csv'}"),
        v4.new_output("stream", name="stderr", text="a warning"),
    ]
    (folder / "executed.ipynb").write_text(json.dumps(notebook))
    (folder / "report.html").write_text(f"<title>Report of {name}</title><p>{folder}</p>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, of notebooks that seem to have run."""
    for package in ("sphinx", "furo", "myst_nb", "latex2mathml"):
        pytest.importorskip(package, reason=f"{package} is not installed (make .venv/.docs)")
    from sphinx.cmd.build import build_main

    folder = tmp_path_factory.mktemp("site")
    for name in NOTEBOOKS:
        ran(folder / "reports", name)
    lay_out(folder / "source", folder / "reports")
    strictly = ["-W", "--keep-going", "-q", "-d", str(folder / "doctrees")]
    assert build_main([*strictly, str(folder / "source"), str(folder / "html")]) == 0
    return folder / "html"


class Addresses(HTMLParser):
    """What a page links to, and what it loads; its anchors."""

    def __init__(self, page: Path):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.add(given.get("id") or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        elif tag != "a" and (address := given.get("src") or given.get("href")):
            self.loads.append(address)


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path):
    pages = {page: Addresses(page) for page in site.rglob("*.html")}
    assert len(pages) > 40
    for page, found in pages.items():
        assert [address for address in found.loads if urlsplit(address).netloc] == [], page
        for address in [*found.links, *found.loads]:
            parts = urlsplit(address)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
            assert target.exists(), f"{page.relative_to(site)} → {address}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{page.relative_to(site)} → {address}"
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_nobody_learns_where_it_was_built(site: Path):
    places = [str(site.parent), str(ROOT)]
    for page in [*site.rglob("*.html"), *site.rglob("*.js")]:
        text = page.read_text(encoding="utf-8")
        assert [place for place in places if place in text] == [], page
    page = (site / "notebooks" / "06_analysis.html").read_text(encoding="utf-8")
    assert "wrote reports/runs/06_analysis-1/comparison.csv" in page
    assert 'alt="A drawn curve"' in page
    assert "Panel(...)" not in page and "a warning" not in page


@pytest.fixture
def page(browser) -> Iterator:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def test_from_the_start_to_a_tutorial_its_parameters_and_what_is_searched(site: Path, page, expect):
    asked, faults = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="02 · Prompt learning").click()
    expect(page).to_have_title(re.compile("02 · Prompt learning"))
    page.get_by_role("link", name="Its report").click()
    expect(page).to_have_title("Report of 02_prompt_learning")
    page.go_back()
    page.locator("article").get_by_role("link", name="reference").click()
    section = page.locator("#n-ctx")
    expect(section).to_contain_text("learnt tokens in a prompt")
    expect(section).to_contain_text("Default: 4. Takes: whole number")
    page.get_by_role("textbox").first.fill("n_ctx")
    page.keyboard.press("Enter")
    page.locator("#search-results").get_by_role("link", name=re.compile("02_prompt_learning")).first.click()
    expect(page.locator("h1")).to_contain_text("02_prompt_learning")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_its_window(site: Path, page, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    names = ["index", "notebooks/05_evaluation", "docs/definitions", "docs/files", "findings/README"]
    names += [f"reference/{name}" for name in ("parameters/03_image_finetune", "commands", "library/evaluation")]
    for name in names:
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator("h1").first.bounding_box()["x"] >= 0
