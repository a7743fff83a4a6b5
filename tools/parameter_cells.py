"""`python -m tools.parameter_cells`: write the parameters cell of every notebook from its model."""

import json
from pathlib import Path

from handclip_lib.parameters.guard import parameters_cell
from handclip_lib.parameters.notebooks import NOTEBOOKS

FOLDER = Path(__file__).parents[1] / "notebooks"


def main(folder: Path = FOLDER) -> None:
    """Write those that differ, and say which."""
    for name, model in NOTEBOOKS.items():
        file = folder / f"{name}.ipynb"
        notebook = json.loads(file.read_text(encoding="utf-8"))
        (cell,) = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
        lines = parameters_cell(model).splitlines(keepends=True)
        if cell["source"] != lines:
            cell["source"] = lines
            file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{file.name}: written")


if __name__ == "__main__":
    main()
