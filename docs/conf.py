"""Sphinx: how `make docs` turns the pages that `tools.site_pages` lays out into a site that needs no network."""

from docutils import nodes
from latex2mathml.converter import convert

project = "HandCLIP"
author = "The HandCLIP authors"
copyright = "the HandCLIP authors"
root_doc = "index"
extensions = ["myst_nb"]
language = "en"
smartquotes = False
nitpicky = True

html_theme = "furo"
html_title = "HandCLIP"
html_extra_path = ["extra"]  # the reports, as they are
html_copy_source = False
html_show_search_summary = False  # is fetched, and a page from the disk may fetch nothing
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]  # as GitHub has it
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # from a CDN, and dead without a kernel
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_output_stderr = "remove"
nb_merge_streams = True


def setup(app) -> None:
    """Formulas as MathML, which browsers draw themselves: nothing is fetched, nothing runs."""

    def renderer(display: str):
        def visit(translator, node: nodes.Element) -> None:
            translator.body.append(convert(node.astext(), display=display))
            raise nodes.SkipNode

        return visit, None

    app.add_html_math_renderer("mathml", renderer("inline"), renderer("block"))
