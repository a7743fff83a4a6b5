"""The fault matrix: what the tests do to a run, when, and what is left. `python tests/faults/matrix.py` writes it.

A row is a mark at a test, anywhere under tests/: `@pytest.mark.matrix(kind, stage, outcome)`, three plain texts. The
kinds are those of `KINDS`; a test may have several marks.
"""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
FILE = Path(__file__).with_name("matrix.md")
KINDS = {
    "killed": "SIGKILL, as the kernel's out-of-memory killer sends it",
    "signal": "SIGTERM or SIGINT",
    "time-out": "`--timeout`",
    "full disk": "no space is left",
    "read-only": "nothing can be written",
    "machine gone": "a node that crashed, a container that was replaced",
    "two at once": "the same run started twice",
    "damaged file": "half-written, changed or foreign content",
    "damaged or hostile record": "a run.json that no run wrote",
    "hostile parameters": "YAML that is meant to harm",
    "hostile text": "names and values that drive a terminal or a page",
    "changed input": "other data, weights or runs under the same name",
}


def rows(tests: Path = TESTS) -> list[tuple[str, str, str, str]]:
    """Kind, stage, outcome and test of every mark, in the order of `KINDS`, then of the files."""
    found = []
    for file in sorted(tests.rglob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for mark in ast.walk(node) if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.matrix":
                    kind, stage, outcome = (ast.literal_eval(argument) for argument in mark.args)
                    found.append((kind, stage, outcome, f"{file.relative_to(tests).as_posix()}::{node.name}"))
    unknown = {kind for kind, *_ in found} - set(KINDS)
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: no kind of fault; add it to KINDS, or choose from {', '.join(KINDS)}"
        )
    return sorted(found, key=lambda row: list(KINDS).index(row[0]))


def matrix(found: list[tuple[str, str, str, str]]) -> str:
    """The page: how many rows each kind has, and each row with its test."""
    lines = [
        "# Fault matrix", "",
        "What the tests do to a run, when, and what is left of it. Made by `python tests/faults/matrix.py` from the",
        "marks `@pytest.mark.matrix(kind, stage, outcome)` of the tests; a test fails where this page is another.", "",
    ]  # fmt: skip
    for kind, what in KINDS.items():
        own = [row for row in found if row[0] == kind]
        if own:
            lines += [f"## {kind[0].upper()}{kind[1:]}", "", f"{what[0].upper()}{what[1:]}.", ""]
            lines += ["| stage | outcome | test |", "|---|---|---|"]
            lines += [f"| {stage} | {outcome} | `{test}` |" for _, stage, outcome, test in own] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    FILE.write_text(matrix(rows()), encoding="utf-8")
