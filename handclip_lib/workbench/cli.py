"""The command `handclip`: run a notebook to a report, list runs, look at a data set.

Exit codes: 0 done (or done before), 1 the notebook failed, 2 bad parameters or input, 130 and 143 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from handclip_lib import __version__
from handclip_lib.errors import HandClipError

COLUMNS = ("id", "status", "rank1", "map", "seconds", "started")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.action(options)
    except HandClipError as error:
        print(f"handclip: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="handclip", description="Hand re-identification with CLIP.")
    parser.add_argument("--version", action="version", version=f"handclip {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a notebook in a folder of its own and write its report")
    run.add_argument("notebook", help="its number (05), name or path")
    run.add_argument("-f", dest="files", action="append", default=[], metavar="FILE", help="YAML file of parameters")
    run.add_argument("-p", dest="typed", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    run.add_argument("-r", dest="raw", nargs=2, action="append", default=[], metavar=("NAME", "TEXT"), help="as text")
    run.add_argument("--force", action="store_true", help="run again although it succeeded before")
    run.set_defaults(action=_run)

    runs = commands.add_parser("runs", help="list the runs")
    runs.add_argument("--json", action="store_true", help="whole records, one JSON list")
    runs.set_defaults(action=_runs)

    report = commands.add_parser("report", help="write the report of a run again")
    report.add_argument("run", help="run id or folder")
    report.set_defaults(action=_report)

    data = commands.add_parser("data", help="look at a data set").add_subparsers(required=True, metavar="WHAT")
    check = data.add_parser("check", help="what is there, what is missing, what is left out and why")
    check.add_argument("root", help="folder of the data set")
    check.add_argument("--dataset", default="auto", choices=["auto", "11k", "hd", "folder"])
    check.add_argument("--deep", action="store_true", help="decode every image too")
    check.set_defaults(action=_check)
    return parser


def _run(options: argparse.Namespace) -> int:
    from handclip_lib.workbench.launcher import find_notebook, gather, launch

    notebook = find_notebook(options.notebook)
    done = launch(notebook, gather(options.files, options.typed, options.raw), force=options.force)
    if done.status == "skipped":
        print(f"{done.folder.name} succeeded before; --force runs it again")
    elif done.status != "succeeded":
        print(f"handclip: {done.folder.name} {done.status}: {done.error}", file=sys.stderr)
    if done.report:
        print(f"report: {done.report}")
    codes = {"succeeded": 0, "skipped": 0, "interrupted": 143 if "SIGTERM" in (done.error or "") else 130}
    return codes.get(done.status, 1)


def _runs(options: argparse.Namespace) -> int:
    from handclip_lib.workbench.identity import reports_folder
    from handclip_lib.workbench.record import read_record

    folders = sorted((reports_folder() / "runs").glob("*/"))
    records = [record for folder in folders if (record := read_record(folder))]
    records.sort(key=lambda record: record["started"], reverse=True)
    if options.json:
        print(json.dumps(records, indent=1))
    elif not records:
        print(f"no runs in {reports_folder() / 'runs'}; try: handclip run 05")
    else:
        rows = [[str(_shown(record, column)) for column in COLUMNS] for record in records]
        widths = [max(len(row[i]) for row in [list(COLUMNS), *rows]) for i in range(len(COLUMNS))]
        for row in [list(COLUMNS), *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _shown(record: dict, column: str) -> object:
    value = record.get(column, record["metrics"].get(column))
    return "" if value is None else f"{100 * value:.1f} %" if column in ("rank1", "map") else value


def _report(options: argparse.Namespace) -> int:
    from handclip_lib.workbench.identity import reports_folder
    from handclip_lib.workbench.reports import render_report, write_index

    folder = Path(options.run) if Path(options.run).is_dir() else reports_folder() / "runs" / Path(options.run).name
    print(f"report: {render_report(folder)}")
    write_index(folder.parent)
    return 0


def _check(options: argparse.Namespace) -> int:
    from handclip_lib.data.check import check

    report = check(options.root, options.dataset, deep=options.deep)
    print(report)
    return 0 if report.usable else 2


if __name__ == "__main__":
    sys.exit(main())
