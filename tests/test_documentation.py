"""The pages keep what they promise: links lead somewhere, commands exist, names and figures are the library's."""

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import pytest
import safetensors.torch
import torch
import yaml
from click import ClickException
from PIL import Image

from handclip_lib.backbone.load import SHAPES, load_backbone
from handclip_lib.backbone.openai_clip import build_clip, clip_package
from handclip_lib.backbone.properties import Given
from handclip_lib.backbone.published import published
from handclip_lib.cli import EXIT_CODES, _parser, main
from handclip_lib.data.audit import PUBLISHED_COUNTS
from handclip_lib.data.images import decode_images
from handclip_lib.data.labels import read_hands11k, read_labels
from handclip_lib.data.splits import CUTOFFS, make_split
from handclip_lib.errors import HandClipError
from handclip_lib.evaluation.features import histogram_embeddings
from handclip_lib.evaluation.verification.error_rates import verify_models
from handclip_lib.launch.launcher import _meant, find_notebook, gather
from handclip_lib.launch.plan import plan
from handclip_lib.models.trained import save_clip
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.runs.record import KINDS, RESULTS, STATUSES

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "notebooks").glob("*.md")), *DOCS]
PARAMETERS = {name for model in NOTEBOOKS.values() for name in model.model_fields}
PACKAGES = (
    "analysis|backbone|config|data|drawn|errors|evaluation|files|finite|guard|losses|machine|models|parameters|plots|"
    "runs|report(?!\\.html)|launch|training|widgets"
)
VERSION = re.compile(r"\d+(?:\.\d+)+")
FOREIGN = {
    "--help", "--upgrade-package", "--dashboard-address", "--host", "--tls-cert", "--nnodes", "--nproc", "--rdzv",
    "--inject-paths", "--lr", "--torch-backend", "--from", "--quiet",
}  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fences(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def code_words(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def rows(page: Path, heading: str) -> Iterator[list[str]]:
    """Cells of the table under a heading, without its head."""
    section = re.split(r"^#+ ", prose(page).split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# --- links


@each_page
def test_every_relative_link_and_anchor_resolves(page: Path):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_to_every_page():
    assert set(re.findall(r"\]\((docs/\w+\.md)\)", prose(ROOT / "README.md"))) == {f"docs/{p.name}" for p in DOCS}


def test_every_finding_is_listed_and_has_been_run():
    folder = ROOT / "findings"
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.sh")}
    listed = [row[0] for row in rows(folder / "README.md", "Findings")]
    assert sorted(listed) == sorted(f"[{name}]({name}.sh)" for name in scripts)
    for name, text in scripts.items():
        head, _, body = text.partition("set -euo pipefail")
        told = {
            number for line in re.findall(r"^# Versions: (.+)$", head, re.MULTILINE) for number in VERSION.findall(line)
        }
        assert set(VERSION.findall(" ".join(re.findall(r"pip. install (.+)", body)))) <= told, name
        assert re.search(r"^# Output:\n#  +\S", head, re.MULTILINE), name
        assert os.access(folder / f"{name}.sh", os.X_OK), name


# --- commands


def commands(page: Path) -> list[list[str]]:
    """Commands in blocks without a language, and whole ones in the text; not those with an ellipsis."""
    lines = [line for block in fences(page, "") for line in block.replace("\\\n", " ").splitlines()]
    lines += [text for text in code_words(page) if re.match(r"(handclip|papermill|make|torchrun|accelerate) \S", text)]
    parted = [part for line in lines for part in line.partition("#")[0].split("&&")]
    return [shlex.split(part) for part in parted if part.strip() and "…" not in part]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    """Eight people in the layout of 11k Hands, on both sides of every cut-off."""
    root = tmp_path_factory.mktemp("data")
    (root / "Hands").mkdir()
    lines = ["id,accessories,aspectOfHand,imageName"]
    for number in range(24):
        person, name = (1030, 1031, 1032, 1033, 1060, 1061, 1062, 1063)[number // 3], f"Hand_{number:07d}.jpg"
        Image.new("RGB", (16, 16), "tan").save(root / "Hands" / name)
        lines.append(f"{person},0,dorsal right,{name}")
    (root / "HandInfo.csv").write_text("\n".join(lines))
    return root


def check_handclip(words: Sequence[str], data_root: Path) -> None:
    """Run what only looks; of the rest take the command line apart, and plan."""
    words = list(words)
    for place, word in enumerate(words[:-2]):
        if word in ("-p", "-r") and words[place + 1] == "data_root":
            words[place + 2] = str(data_root)
        if words[place + 1] == "embeddings":  # a file of the reader's; what is in it is not looked at before a run
            words[place + 2] = str(data_root / "HandInfo.csv")
    if words[0] == "data" and len(words) > 2:
        words[2] = str(data_root)
        if words[1] == "manifest":
            (data_root / "manifest.csv").unlink(missing_ok=True)
    if words[-1] != "--help":
        try:
            _parser().parse_args(words)
        except SystemExit:  # a bare name of a command, as the text has it, is no whole command
            assert not any(word.startswith("-") for word in words), words
            words.append("--help")
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, words
    elif words[0] in ("run", "sweep"):
        given = _parser().parse_args(words)
        for stem in (together := [find_notebook(name).stem for name in given.notebooks]) if words[0] == "run" else ():
            check_values(stem, given.files, *(_meant(pairs, stem, together) for pairs in (given.typed, given.raw)))
        plan = [word for word in words if word not in ("--resume", "--dry-run")]
        # the text's machine, and its files of weights and runs, are the reader's
        with (
            patch("handclip_lib.launch.plan._room_faults", return_value=[]),
            patch("handclip_lib.backbone.load.check_weights", return_value=(True, 768)),
            patch("handclip_lib.runs.inputs.usable_run"),
        ):
            assert main([*plan, "--dry-run"]) == 0, words
    elif words[0] == "doctor":
        assert main(words) in (0, 1), words
    elif words[0] in ("runs", "data", "clean"):
        assert main(words) == 0, words


def check_papermill(words: Sequence[str], _: Path) -> None:
    from papermill.cli import papermill

    given = papermill.make_context("papermill", list(words)).params
    notebook = find_notebook(given["notebook_path"])
    assert Path(given["notebook_path"]).samefile(notebook)
    check_values(notebook.stem, given["parameters_file"], given["parameters"], given["parameters_raw"])


def check_values(notebook: str, files: Sequence[str], typed: Sequence, raw: Sequence) -> None:
    """The real model takes the values, and each is of its parameter's type and as it was typed; by papermill too."""
    from papermill.cli import _resolve_type

    config = resolve(NOTEBOOKS[notebook], gather(files, typed, raw))
    by_papermill = {name: _resolve_type(value) for name, value in typed} | dict(raw)
    assert resolve(NOTEBOOKS[notebook], gather(files, [], []) | by_papermill) == config
    for name, text in (*typed, *raw):
        value, usual = getattr(config, name), NOTEBOOKS[notebook].model_fields[name].default
        assert type(value) is type(usual), (name, text)
        assert value == (text if isinstance(usual, str) else yaml.safe_load(text)), (name, text)


def check_make(words: Sequence[str], _: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, "Nothing to be done" in done.stdout) == (0, False), done.stdout + done.stderr


def check_torchrun(words: Sequence[str], _: Path) -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(list(words))
    assert given.module
    assert find_spec(f"{given.training_script}.__main__")
    assert len(given.training_script_args) == 1
    assert entry_points(group="console_scripts", name="torchrun")


def check_export(words: Sequence[str], _: Path) -> None:
    for word in words:
        assert f'"{word.partition("=")[0]}"' in source_text(), word


CHECKS: dict[str, Callable[[Sequence[str], Path], None]] = {
    "handclip": check_handclip, "papermill": check_papermill, "make": check_make, "torchrun": check_torchrun,
    "export": check_export,
}  # fmt: skip


@cache
def source_text() -> str:
    code = [*(ROOT / "handclip_lib").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    files = [*code, *(ROOT / "notebooks").glob("*.ipynb")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@each_page
def test_every_command_is_one_that_exists(page: Path, data_root: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    for name, *words in commands(page):
        assert name in CHECKS, f"{name} {' '.join(words)}: say in CHECKS how this command is checked"
        CHECKS[name](words, data_root)
        capsys.readouterr()


@pytest.mark.parametrize(
    "typed",
    [
        "handclip rnu 05", "handclip run 05 --tiemout 3", "handclip run 05 -p sede 1", "handclip run 09",
        "handclip run 02 -f params/none.yml", "handclip sweep 02 -f params/sweeps/n_ctx.yml -p n_ctx 4",
        "handclip runs --sort mapp", "papermill notebooks/05_evaluation.ipynb out.ipynb -p sede 1",
        "papermill notebooks/05_eval.ipynb out.ipynb", "make dmo", "torchrun --nods 2 -m handclip_lib.training X",
        "torchrun -m handclip_lib.trainings X", "export HANDCLIP_CASH=x",
    ],
)  # fmt: skip
def test_a_wrong_command_is_found(typed: str, data_root: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    name, *words = typed.split()
    with pytest.raises((AssertionError, SystemExit, HandClipError, ClickException, ModuleNotFoundError)):
        CHECKS[name](words, data_root)


@each_page
def test_every_option_is_one_of_ours_or_known_to_be_anothers(page: Path):
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {o for o in options - FOREIGN if f'"{o}"' not in source_text() and o not in makefile} == set()


@each_page
def test_every_parameter_in_the_text_is_taken_by_every_notebook_that_has_it(page: Path):
    """`-p recompute true`, without a command before it; names in capitals stand for what the reader has."""
    for word in code_words(page):
        if (found := re.fullmatch(r"-([pr]) (\w+) ([^\s…]+)", word)) and not found[3].isupper():
            kind, *pair = found.groups()
            having = [name for name, model in NOTEBOOKS.items() if pair[0] in model.model_fields]
            assert having, word
            for name in having:
                if (name, word) != ("05_evaluation", "-p text_weight 1"):
                    of = [["weights", "b.pt"]] if pair[0] in ("activation", "heads", "mean_std") else []
                    if pair == ["protocol", "cross_session"]:
                        of = [["dataset", "csv"], ["data_root", "hands"]]
                    check_values(name, [], [*of, pair] if kind == "p" else of, [pair] if kind == "r" else [])


PARAMETER_OF = {"truth": "recompute", "whole number": "epochs", "number": "learning_rate", "choice": "aspect",
                "text": "weights"}  # fmt: skip


def test_the_table_of_values_is_what_is_taken_and_refused(tmp_path: Path):
    table = list(rows(ROOT / "docs" / "parameters.md", "What a value may look like"))
    assert {row[0] for row in table} == set(PARAMETER_OF)
    for kind, takes, refuses in table:
        name = PARAMETER_OF[kind]
        for text in re.findall(r"`([^`]+)`", takes):
            check_values_of(kind, name, text)
        for text in re.findall(r"`([^`]+)`", refuses):
            with pytest.raises(HandClipError, match=f"{name}="):
                raise AssertionError(resolve(NOTEBOOKS["03_image_finetune"], gather([], [(name, text)], [])))


def check_values_of(kind: str, name: str, text: str) -> None:
    config = resolve(NOTEBOOKS["03_image_finetune"], gather([], [(name, text)], []))
    wanted = {"truth": lambda t: t.lower() in ("true", "yes", "on"), "whole number": lambda t: int(float(t)),
              "number": float}.get(kind, str)(text)  # fmt: skip
    assert (getattr(config, name), type(getattr(config, name))) == (wanted, type(wanted))


def test_every_training_yml_is_accepted():
    found = [yaml.safe_load(block) for page in PAGES for block in fences(page, "yaml")]
    assert found
    for values in found:
        resolve(NOTEBOOKS[values.pop("notebook")], {name: v for name, v in values.items() if name != "texts"})


# --- names


@each_page
def test_every_name_of_the_library_in_the_text_is_there(page: Path):
    text = page.read_text(encoding="utf-8")
    wrong = [
        name for name in re.findall(r"(?<!\S)-[pr] (?:\d\d\.)?(\w+)", text.replace("`", " ")) if name not in PARAMETERS
    ]
    for word in code_words(page):
        if word.startswith("test_"):
            there = any(f"def {word}(" in file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
        elif re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", word) and page.name != "from_clipfh.md":  # whose names are another's
            there = re.search(rf"\b{word}\b", source_text()) is not None
        elif re.fullmatch(r"\w+\.(py|yml|json|safetensors|bib)", word):
            there = any(ROOT.rglob(word)) or word in source_text()
        elif re.match(r"(handclip_lib|notebooks|params|tests|docs|benchmarks)/[\w./]+$", word):
            there = (ROOT / word).exists()
        else:
            there = not re.fullmatch(rf"({PACKAGES})(\.\w+)+", word) or _reaches(word)
        wrong += [] if there else [word]
    wrong += [name for name in re.findall(r"HANDCLIP_\w+", text) if f'"{name}"' not in source_text()]
    assert wrong == []


def _reaches(dotted: str) -> bool:
    """Whether `package.module.name` is something in handclip_lib."""
    parts = ["handclip_lib", *dotted.split(".")]
    for cut in range(len(parts), 1, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            if not hasattr(found, name) and name not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, name, None)
        return True
    return False


def test_the_report_page_has_every_table_and_figure_of_05_and_06():
    for number in ("05", "06"):
        wanted = set()
        for cell in nbformat.read(find_notebook(number), as_version=4).cells:
            for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("run.table", "run.show"):
                    wanted.add(ast.literal_eval(node.args[1]))
        told = [re.findall(r"`(\w+)`", row[0]) for row in rows(ROOT / "docs" / "report.md", f"Notebook {number}")]
        assert {name for names in told for name in names} == wanted


def test_every_key_of_clipfh_leads_to_a_parameter():
    for theirs, ours, _ in rows(ROOT / "docs" / "from_clipfh.md", "YAML keys"):
        assert set(re.findall(r"`([^`]+)`", ours)) <= PARAMETERS, theirs


# --- figures


def test_the_counts_of_the_protocol_are_those_of_the_code(hands11k):
    images = hands11k.images
    told = rows(ROOT / "docs" / "data.md", "What the standard protocol makes of it")
    table = {row[0]: [int(cell) for cell in row[1:]] for row in told}
    assert list(table) == list(PUBLISHED_COUNTS.columns)
    for aspect, (photographs, worn, cutoff, *counts) in table.items():
        own = images[images["aspect"] == aspect]
        assert (photographs, worn, cutoff) == (len(own), own["accessories"].sum(), CUTOFFS[aspect])
        assert counts == PUBLISHED_COUNTS[aspect].tolist()
    assert f"{images['accessories'].sum():,} of {len(images):,}" in prose(ROOT / "docs" / "data.md")


def test_the_files_sizes_and_shapes_of_openais_nine():
    table = {row[0].strip("`"): row[1:] for row in rows(ROOT / "docs" / "weights.md", "OpenAI's nine")}
    assert set(table) == {name for name, shape in SHAPES.items() if shape.published}
    for name, (file, mebibytes, pixels, embedding, millions) in table.items():
        shape = SHAPES[name]
        assert file.strip("`") == published(shape.published).file
        assert (int(pixels), int(embedding)) == (shape.resolution, shape.embedding_dim)
        with torch.device("meta"):  # sizes alone: the largest has 623 million weights
            model = build_clip(shape)
        assert float(millions) == pytest.approx(sum(p.numel() for p in model.parameters()) / 1e6, abs=0.05)
        clip_package().model.convert_weights(model)  # OpenAI's files are half precision in what is multiplied
        stored = sum(p.numel() * p.element_size() for p in [*model.parameters(), *model.buffers()])
        assert float(mebibytes) == pytest.approx(stored / 2**20, abs=1.5), name


def test_the_exit_codes_and_statuses_are_those_of_the_launcher():
    table = list(rows(ROOT / "docs" / "cluster.md", "When something stops"))
    assert {int(row[2]) for row in table} == {int(code) for code in re.findall(r"\b\d+\b", EXIT_CODES)}
    assert {word for row in table for word in re.findall(r"`(\w+)`", row[1])} == set(STATUSES) - {"running"}


@pytest.mark.slow
def test_the_error_rates_that_other_tools_are_compared_with_are_ours(hands11k_sample: Path):
    text = prose(ROOT / "docs" / "definitions.md")
    _, eer, _, fnmr, _ = next(rows(ROOT / "docs" / "definitions.md", "The same scores elsewhere"))
    split = make_split(read_hands11k(hands11k_sample), "dorsal_r", "test_only")
    histograms = histogram_embeddings(decode_images(hands11k_sample, split.images["path"], 64, progress=False))
    (found,) = verify_models({"histogram": histograms}, split)
    pairs, curve = found.pairs, found.curve
    assert (
        f"{len(pairs.genuine)} mated and {len(pairs.impostor):,} non-mated pairs of {pairs.n_identities} people" in text
    )
    assert eer == f"{100 * curve.eer:.2f} %"
    assert fnmr == f"{100 * curve.operating_point(0.001).false_negative:.1f} %"


def test_the_page_of_files_has_every_kind_that_a_run_leaves():
    table = list(rows(ROOT / "docs" / "files.md", "A run's folder"))
    told = {name.replace("NAME", "x") for row in table for name in re.findall(r"`([\w./]+)`", " ".join(row))}
    for pattern in RESULTS:
        assert any(fnmatch(name, pattern) or name == Path(pattern).suffix for name in told), pattern
    keys = {key for row in rows(ROOT / "docs" / "files.md", "run.json") for key in re.findall(r"`(\w+)`", row[0])}
    assert set(KINDS) <= keys


# --- examples


@pytest.fixture
def bench(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with what the examples in Python ask for."""
    tiny = load_backbone("tiny", device="cpu")
    save_clip(tiny, tmp_path / "best.safetensors")
    heads = {"bottleneck.weight": torch.ones(3), "arcface.weight": torch.ones(3, 3)}
    torch.save({"model_state_dict": {**tiny.model.state_dict(), **heads}, "epoch": 3}, tmp_path / "BEST.pth")
    (tmp_path / "mine" / "Hands").mkdir(parents=True)
    for person in ("anna", "bert", "carl", "dora"):
        for number, view in enumerate(("palm", "palm", "back")):
            Image.new("RGB", (32, 32), "tan").save(tmp_path / "mine" / "Hands" / f"{person}_{view}_{number:04d}.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_examples(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in fences(ROOT / "docs" / page, "python"):
        exec(block, names)
    return names


def test_a_table_of_ones_own_is_one_that_can_be_split(bench: Path, capsys):
    run_examples("data.md")
    assert main(["data", "check", "mine"]) == 0
    assert "data set 'csv': 12 images of 4 identities" in capsys.readouterr().out
    assert main(["data", "check", "mine", "--protocol", "standard"]) == 2, "names are no numbers for the cut-offs"
    assert "protocol='proportional'" in capsys.readouterr().out
    table = read_labels(bench / "mine")
    assert table.images["aspect"].value_counts().to_dict() == {"palmar_r": 8, "dorsal_r": 4}
    assert make_split(table, "palmar_r", "proportional").meta["counts"] == {"other": 2, "test": 4, "train": 2, "val": 2}


def test_weights_are_read_with_nothing_of_ours(bench: Path, capsys):
    model = run_examples("weights.md")["model"]
    ours = load_backbone("tiny", device="cpu").model
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name].float(), value.float(), rtol=1e-3, atol=1e-5)


def test_a_checkpoint_of_clipfh_becomes_a_clip(bench: Path):
    run_examples("from_clipfh.md")
    tiny = load_backbone("tiny", device="cpu").fingerprint
    assert load_backbone("clip.pt", device="cpu", given=Given("quick_gelu")).fingerprint == tiny
    said = load_backbone("BEST.pth", device="cpu", given=Given("quick_gelu"))
    assert (said.fingerprint, "tensors beside the CLIP" in said.source) == (tiny, True)


# --- for real


@pytest.mark.slow
def test_the_readmes_training_and_evaluation_run_as_written(tmp_path: Path, monkeypatch, capsys):
    """`handclip run 03 05 -p 05.trained_run latest`, then what looks at runs; small drawn hands."""
    (line,) = [line for line in fences(ROOT / "README.md", "")[1].splitlines() if "trained_run latest" in line]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    small = ["-p", "drawn_subjects", "12", "-p", "drawn_images", "4", "-p", "draws", "2"]
    quick = ["-p", "epochs", "1", "-p", "n_identities", "4", "-p", "views", "1", "-p", "top_k", "3"]
    assert main([*shlex.split(line.partition("#")[0])[1:], *small, *quick]) == 0
    records = {path.parent.name[:2]: json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")}
    assert records["05"]["inputs"] == {"03_image_finetune": records["03"]["id"]}
    assert main(["runs", "--notebook", "03", "--sort", "rank1"]) == 0
    assert records["03"]["id"] in capsys.readouterr().out
    assert main(["report", "latest"]) == 0
    assert safetensors.torch.load_file(tmp_path / "runs" / records["03"]["id"] / "best.safetensors")


@pytest.mark.slow
def test_the_notebook_evaluates_a_training_that_was_made_beside_it(tmp_path: Path, monkeypatch):
    """As docs/cluster.md has it for several machines: `training.yml` in the planned folder, torchrun, then the run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    given = {"drawn_subjects": 12, "drawn_images": 4, "draws": 2, "epochs": 1, "n_identities": 4}
    folder = plan(find_notebook("03"), given).folder
    folder.mkdir(parents=True)
    (folder / "training.yml").write_text(yaml.safe_dump({"notebook": "03_image_finetune"} | given))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, "-m", "handclip_lib.training", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    trained = (folder / "best.safetensors").read_bytes()
    assert main(["run", "03", *(word for name, value in given.items() for word in ("-p", name, str(value)))]) == 0
    assert (folder / "best.safetensors").read_bytes() == trained
    assert str(plan(find_notebook("03"), given).state()).startswith("succeeded")
