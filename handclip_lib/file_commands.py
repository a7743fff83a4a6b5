"""Commands about files that people bring or take away: data sets, weights, scores, embeddings."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from handclip_lib.errors import ConfigError
from handclip_lib.parameters.backbones import of_library
from handclip_lib.parameters.notebooks import Evaluation
from handclip_lib.parameters.parts import Dataset, Identity, Protocol
from handclip_lib.places import reports_folder
from handclip_lib.runs.record import find_run
from handclip_lib.terminal import one_line, visible


def add_file_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add them to a parser, whose `add_parser` this is; each sets `action`."""
    _add_exchange(command)
    weights = command("weights", help="what a file or folder of weights is; or convert it: weights convert FILE OUT")
    weights.add_argument("words", nargs="+", metavar="FILE", help="FILE, or: convert FILE OUT")
    weights.add_argument("--to", default="", choices=["huggingface", "open_clip", "openai", "onnx"], help="of convert")
    said = "activation, heads or mean_std, where no file says it; backbone, of another library's weights"
    weights.add_argument("-p", dest="typed", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=said)
    weights.set_defaults(action=_weights)

    data = command("data", help="look at a data set").add_subparsers(required=True, metavar="WHAT")
    check = data.add_parser("check", help="what is there, what is missing, what is left out and why")
    check.add_argument("root", help="folder of the data set")
    check.add_argument("--dataset", default="auto", choices=["auto", *get_args(Dataset)[1:]])
    check.add_argument(
        "--protocol", default="auto", choices=get_args(Protocol), help="of the split that is planned (the data's own)"
    )
    check.add_argument("--identity", default="auto", choices=get_args(Identity), help="whether a hand is an identity")
    check.add_argument("--deep", action="store_true", help="decode every image too, and measure its quality")
    check.add_argument("--sample-range", type=float, default=0, help="white of samples of more than 8 bits (measured)")
    check.add_argument("--json", action="store_true", help="as JSON")
    check.set_defaults(action=_check)
    manifest = data.add_parser("manifest", help="write a table of a folder's photographs, to be corrected")
    manifest.add_argument("root", help="folder of the photographs")
    manifest.add_argument("--out", default="", metavar="FILE", help="the table; else manifest.csv in the folder")
    manifest.set_defaults(action=_manifest)
    for reads in (check, manifest):
        for name, of in (("identity", "people"), ("session", "sessions")):
            level = f"level of the folders that name {of}; looked for by default"
            reads.add_argument(f"--{name}-level", type=int, default=0, metavar="N", help=level)


def _add_exchange(command: Callable[..., argparse.ArgumentParser]) -> None:
    export = command("export", help="write embeddings and comparison scores of a run of 05 for other programs")
    export.add_argument("run", metavar="RUN", help="id, folder, or latest")
    export.add_argument("--embeddings", metavar="FILE", help="the model's, .npz or .parquet, with path and identity")
    export.add_argument("--scores", metavar="FILE", help="of each query with each gallery image")
    export.add_argument(
        "--form", default="csv", choices=["csv", "bob", "four-column", "two-column"], help="of the scores (csv)"
    )
    export.add_argument("--draw", default="0", metavar="N", help="of query and gallery, from 0 (0); all, in a csv")
    export.set_defaults(action=_export)

    score = command("score", help="evaluate files of anybody's comparison scores, a system each")
    score.add_argument("files", nargs="+", metavar="FILE", help="CSV with named columns, bob.bio's, or four columns")
    score.add_argument("--distances", action="store_true", help="smaller scores are more alike")
    score.add_argument("--validation", metavar="FILE", help="scores of other people, which fix the threshold")
    score.add_argument("--fmr", type=float, help="that --validation chooses the threshold for (0.01)")
    score.add_argument("--out", metavar="FOLDER", help="write tables (CSV) and figures (DET, ROC, CMC) into it")
    score.set_defaults(action=_score)

    search = command("search", help="write the gallery images most alike to each query, of files of embeddings")
    search.add_argument("query", metavar="QUERY", help="embeddings, .npz or .parquet")
    search.add_argument("gallery", metavar="GALLERY", help="likewise, of the same model")
    search.add_argument("--out", required=True, metavar="FILE", help="CSV: query, rank, gallery, cosine")
    search.add_argument("-k", type=int, default=10, help="gallery images of each query (10)")
    search.set_defaults(action=_search)


def _weights(options: argparse.Namespace) -> int:
    from handclip_lib.launch.launcher import gather
    from handclip_lib.parameters.guard import resolve

    converts = options.words[0] == "convert"
    if len(options.words) != (3 if converts else 1) or converts != bool(options.to):
        raise ConfigError("say: handclip weights FILE, or: handclip weights convert FILE OUT --to open_clip")
    file = options.words[1 if converts else 0]
    of_another = {"backbone": file} if of_library(file) else {"weights": file}
    config = resolve(Evaluation, gather([], options.typed, []) | of_another)
    from handclip_lib.backbone.convert import convert, describe
    from handclip_lib.backbone.load import given_in

    if converts:
        print(f"written: {convert(file, Path(options.words[2]), options.to, given_in(config))}")
    else:
        named = config.backbone if of_library(config.backbone) and config.weights else ""
        print(describe(file, given_in(config), named))
    return 0


def _check(options: argparse.Namespace) -> int:
    from handclip_lib.data.audit import check

    levels = {"identity_level": options.identity_level, "session_level": options.session_level}
    report = check(
        options.root, options.dataset, options.deep, progress=not options.json, protocol=options.protocol,
        sample_range=options.sample_range, identity=options.identity, **levels,
    )  # fmt: skip
    print(report.as_json() if options.json else report)
    return 0 if report.usable else 2


def _manifest(options: argparse.Namespace) -> int:
    from handclip_lib.data.labels import write_labels
    from handclip_lib.data.open import open_dataset, recognised
    from handclip_lib.places import LABELS, find_data_root

    root = find_data_root(options.root)
    file = Path(options.out) if options.out else root / LABELS
    levels = {"identity_level": options.identity_level, "session_level": options.session_level}
    dataset = "folder" if any(levels.values()) else recognised(root)
    frame, guessed = write_labels(root, file, lambda: open_dataset(dataset, str(root), **levels))
    print(f"{one_line(file)}: {len(frame)} images of {frame['identity'][frame['identity'] != ''].nunique()} people")
    print("\n".join(one_line(f"  {note}") for note in guessed))
    moved = "" if file.resolve() == (root / LABELS).resolve() else f"put it into the folder as {LABELS}, "
    print(f"look at it, correct it, {moved}then: handclip data check {one_line(root)} --dataset csv")
    return 0


def _export(options: argparse.Namespace) -> int:
    if not (options.embeddings or options.scores):
        raise ConfigError("nothing to write: give --embeddings FILE, --scores FILE, or both")
    if options.draw != "all" and not re.fullmatch(r"[0-9]{1,4}", options.draw):
        raise ConfigError(f"--draw {options.draw!r}: the number of a draw, from 0, or all is wanted")
    from handclip_lib.evaluation.exchange.export import export

    draw = None if options.draw == "all" else int(options.draw)
    folder = find_run(reports_folder() / "runs", options.run, Evaluation.notebook)
    embeddings, scores = (Path(name) if name else None for name in (options.embeddings, options.scores))
    for line in export(folder, embeddings, scores, options.form, draw):
        print(one_line(line))
    return 0


def _score(options: argparse.Namespace) -> int:
    from handclip_lib.evaluation.exchange.scoring import evaluate_files
    from handclip_lib.evaluation.tables import readable

    validation = Path(options.validation) if options.validation else None
    if options.fmr is not None and not validation:
        raise ConfigError(f"--fmr {options.fmr:g} is of the threshold that --validation FILE fixes; give that too")
    if options.out and Path(options.out).is_file():
        raise ConfigError(f"--out {options.out} is a file; name a folder")
    files, fmr = list(map(Path, options.files)), 0.01 if options.fmr is None else options.fmr
    found = evaluate_files(files, distances=options.distances, validation=validation, fmr=fmr)
    for title, table in found.tables.items():
        text = readable(table).to_string(index=False)
        print(f"{title.replace('_', ' ')}\n{visible(text)}\n")
    for remark in found.remarks:
        print(f"handclip: {one_line(remark)}", file=sys.stderr)
    if options.out:
        from handclip_lib.plots.verification import write_evaluation

        write_evaluation(found, Path(options.out))
        print(f"tables and figures: {one_line(Path(options.out))}")
    return 0


def _search(options: argparse.Namespace) -> int:
    from handclip_lib.evaluation.exchange.search import search

    n = search(Path(options.query), Path(options.gallery), Path(options.out), options.k)
    print(f"{n:,} rows: {one_line(options.out)}")
    return 0
