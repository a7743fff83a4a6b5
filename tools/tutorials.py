"""Executed notebooks as pages of the documentation: nothing that needs a kernel, no folder of who built the site."""

import json
from itertools import compress
from pathlib import Path
from typing import Any

from handclip_lib.places import cache_folder
from handclip_lib.report.private import WIDGET_VIEW

ROOT = Path(__file__).parents[1]


def tutorial(page: str, folder: Path, reports: Path | None) -> dict[str, Any]:
    """A notebook as it ran last under `reports`, without what its start printed, and with a line that says so."""
    name = Path(page).name
    runs = sorted((reports or folder).glob(f"runs/{name}*/report.html"), key=lambda path: path.stat().st_mtime)
    if reports and not runs:
        raise SystemExit(f"{reports} holds no run of {name}; make docs runs all six")
    said = f"Its parameters: [reference](../reference/parameters/{name}.md)."
    if runs:
        (folder / "extra" / "reports").mkdir(exist_ok=True)
        report = unplaced(runs[-1].read_text(encoding="utf-8"), reports)
        (folder / "extra" / "reports" / f"{name}.html").write_text(report, encoding="utf-8")
        said = f'Executed on a few drawn hands: synthetic. <a href="../reports/{name}.html">Its report</a>. {said}'
    ran = runs[-1].with_name("executed.ipynb") if runs else ROOT / f"{page}.ipynb"
    notebook = json.loads(unplaced(ran.read_text(encoding="utf-8"), reports))
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        outputs = [] if "setup" in tags else cell.get("outputs", [])
        data = [output.get("data", {}) for output in outputs]
        shown = [WIDGET_VIEW not in kinds or bool({"image/png", "text/html"} & kinds.keys()) for kinds in data]
        if "outputs" in cell:  # a control alone says nothing without a kernel
            cell["outputs"] = list(compress(outputs, shown))
        told = [
            output["metadata"]["image/png"]["alt"] for output in outputs if "image/png" in output.get("metadata", {})
        ]
        cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(told)}} if told else {}
        if {"parameters", "injected-parameters"} & {*tags}:  # fifty lines, twice
            tags.append("hide-input")
    notebook["cells"].insert(1, {"cell_type": "markdown", "id": "site", "metadata": {}, "source": said})
    return notebook


def unplaced(text: str, reports: Path | None) -> str:
    """A text without the folders of who built the site."""
    places = {reports or ROOT: "reports", cache_folder(): "cache", ROOT: "handclip"}
    for place, word in places.items():
        text = text.replace(str(place.absolute()), word)
    return text
