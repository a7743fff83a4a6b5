"""The kernel of launched notebooks: it has imported what the first of them will, and begins anew for each.

What takes seconds to import is imported while papermill is, in another process; an import that fails here fails again
in its cell, which tells of it.
"""

import ast
import gc
import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any


def main(notebook: str) -> None:
    """Serve as a kernel, as ipykernel_launcher does with the arguments that are left."""
    if Path(sys.path[0]) == Path.cwd():
        del sys.path[0]  # no file that lies there stands for a module; IPython puts it back for the cells
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance()
    app.initialize()  # before the imports: some look whether they are in a notebook
    gc.disable()  # a fifth of the time: what is imported stays
    import_ahead(Path(notebook))
    gc.enable()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)  # a figure has 30,000 parts: a tenth of its time by Python's own 700
    app.start()


def import_ahead(notebook: Path) -> None:
    """Import what the code cells of a notebook import of this library, as far as it can be."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                _import_of("".join(cell["source"]))


def _import_of(source: str) -> None:
    with suppress(Exception):
        for node in ast.parse(source).body:
            if isinstance(node, ast.ImportFrom) and (module := str(node.module)).startswith("handclip_lib"):
                importlib.import_module(module)
                for alias in node.names:
                    with suppress(ModuleNotFoundError):  # most are no modules
                        importlib.import_module(f"{module}.{alias.name}")


def begin(log: str, environment: dict[str, str]) -> None:
    """Forget the notebook before: its names and numbers, and its widgets; what is said goes into another log."""
    from IPython import get_ipython

    if "ipywidgets" in sys.modules:
        sys.modules["ipywidgets"].Widget.close_all()
    shell: Any = get_ipython()  # type: ignore[no-untyped-call]
    module = {name: shell.user_ns[name] for name in vars(ModuleType("")) if name in shell.user_ns}
    shell.reset(new_session=True)
    shell.user_ns.update(module)  # processes that a notebook starts look for its __spec__
    os.environ.update(environment)
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        sys.modules["torch"].cuda.empty_cache()
    opened = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number, stream in enumerate((sys.stdout, sys.stderr), start=1):
        with suppress(OSError):
            number = stream.fileno()  # of the file that was there when the kernel began: the number's is its own pipe
        os.dup2(opened, number)
    os.close(opened)


if __name__ == "__main__":
    main(sys.argv.pop(1))
