import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from handclip_lib.analysis.collection import find_records, note_of
from handclip_lib.cli import main
from handclip_lib.errors import ConfigError
from handclip_lib.launch.launcher import find_notebook
from handclip_lib.launch.plan import run_folder
from handclip_lib.parameters.notebooks import Evaluation, trained_name
from handclip_lib.report.pages import write_index
from handclip_lib.runs.listing import all_records, as_lines, chosen, ordered
from handclip_lib.runs.record import not_learnt, write_record

USUAL = {"dataset": "drawn", "aspect": "dorsal_r", "learning_rate": 5e-4, "epochs": 20, "flip": False}


def record(id_: str, status: str = "succeeded", day: int = 1, metrics: dict | None = None, **given) -> dict:
    return {
        "id": id_, "notebook": id_.split("-")[0], "status": status, "started": f"2026-11-{day:02d}T12:00:00+00:00",
        "seconds": 9.0, "metrics": metrics or {}, "parameters": USUAL | given, "defaults": USUAL,
    }  # fmt: skip


RUNS = [
    record("03_image_finetune-a", day=1, metrics={"rank1": 0.5}),
    record("03_image_finetune-b", day=2, metrics={"rank1": 0.75}, learning_rate=1e-3, flip=True),
    record("03_image_finetune-c", status="failed", day=3, learning_rate=2e-3),
    record("05_evaluation-d", day=4, metrics={"rank1": 0.25, "map": 0.3}, aspect="palmar_r", dataset="11k"),
]


@pytest.mark.parametrize(
    ("asked", "letters"),
    [
        ({}, "abcd"), ({"notebook": "03"}, "abc"), ({"notebook": "5"}, "d"), ({"notebook": "05_evaluation"}, "d"),
        ({"dataset": "11k"}, "d"), ({"aspect": "dorsal_r", "status": "failed"}, "c"), ({"since": "2026-11-03"}, "cd"),
        ({"since": "2026-11-03T12:00:01"}, "d"), ({"since": "2026-11-03T11:30:00-01:00"}, "d"),  # 12:30 UTC
        ({"changed": ["learning_rate"]}, "bc"), ({"changed": ["learning_rate=1e-3"]}, "b"),
        ({"changed": ["learning_rate=0.0005"]}, "ad"), ({"changed": ["learning_rate", "flip=true"]}, "b"),
        ({"changed": ["flip=False"]}, "acd"), ({"changed": ["learning_rate=fast"]}, ""),
    ],
)  # fmt: skip
def test_runs_are_chosen_by_what_is_asked(asked, letters):
    assert "".join(run["id"][-1] for run in chosen(RUNS, **asked)) == letters


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"notebook": "07"}, "--notebook 07: choose from 01_data_exploration"),
        ({"since": "yesterday"}, "--since yesterday: give a date such as 2026"),
        ({"changed": ["learning_rat=1"]}, "did you mean learning_rate"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, words):
    with pytest.raises(ConfigError, match=words):
        chosen(RUNS, **asked)


def test_what_could_not_be_measured_is_empty_and_comes_last():
    runs = [record("05_evaluation-n", metrics={"rank1": float("nan"), "map": float("nan")}), *RUNS]
    (line,) = (line for line in as_lines(runs) if line.startswith("05_evaluation-n"))
    assert (line.split()[:3], "%" in line) == (["05_evaluation-n", "succeeded", "9.0"], False)
    assert [run["id"][-1] for run in ordered(runs, "rank1")] == ["b", "a", "d", "n", "c"]


def test_the_order_and_runs_without_the_value_last():
    assert [run["id"][-1] for run in ordered(RUNS)] == ["d", "c", "b", "a"]
    assert [run["id"][-1] for run in ordered(RUNS, "rank1")] == ["b", "a", "d", "c"]
    assert next(run["id"][-1] for run in ordered(RUNS, "map")) == "d"
    assert [run["id"][-1] for run in ordered(RUNS[::-1], "id")] == ["a", "b", "c", "d"]


def test_a_line_shows_percent_and_what_was_changed_beyond_the_id():
    header, *lines = as_lines(RUNS)
    assert header.split() == ["id", "status", "rank1", "map", "seconds", "started", "changed"]
    assert "75.0 %" in lines[1]
    assert lines[1].endswith("learning_rate=0.001 flip=True")
    assert lines[3].rstrip().endswith("+00:00"), "data set and aspect are in the id"


def test_what_was_not_learnt_is_told_in_its_line_its_note_and_its_name(tmp_path: Path):
    told = record("03_image_finetune-e", metrics={"rank1": 0.5, "learnt": "no: epoch 0 was best"})
    assert as_lines([told])[1].endswith("(learnt no: epoch 0 was best)")
    assert "learnt" not in as_lines([record("03_image_finetune-f", metrics={"learnt": "yes"})])[1]
    for file in ("best.safetensors", "per_query.csv"):
        (tmp_path / told["id"]).mkdir(exist_ok=True)
        (tmp_path / told["id"] / file).write_text("")
    assert note_of(told, tmp_path) == "learnt no: epoch 0 was best"
    assert trained_name("tiny", {}, "no: epoch 0 was best") == "tiny, not fine-tuned (epoch 0 was best)"
    assert trained_name("tiny", {}, "in part: 5 of 6 fp16 steps were skipped") == (
        "tiny, fine-tuned in part (5 of 6 fp16 steps were skipped)"
    )
    of_04 = {"method": "promptsg", "validation": "test"}
    assert trained_name("tiny", of_04, "no: epoch 0 was best") == (
        "tiny, not joint (epoch 0 was best), selected on test"
    )
    assert trained_name("tiny", {}) == "tiny, fine-tuned"


def test_training_that_did_not_help_strangers_is_told_before_all_else(tmp_path: Path):
    said = "rank-1 of 14 held-out people is 45.0 % at epoch 2, 50.0 % by the frozen model"
    given = dict.fromkeys(("data_root", "weights", "download_root"), "x" * 30)
    told = record("03_image_finetune-g", parameters=given, metrics={"rank1": 0.5, "unhelped": said})
    assert f"(training did not help strangers: {said[:60]}" in as_lines([told])[1]
    both = record("03_image_finetune-g", metrics={"learnt": "no: epoch 0 was best", "unhelped": said})
    assert not_learnt(both) == f"learnt no: epoch 0 was best; training did not help strangers: {said}"


def test_the_command_lists_damaged_runs_too_and_loads_nothing_heavy(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    for run in RUNS:
        write_record(tmp_path / "runs" / run["id"], run)
    (tmp_path / "runs" / "05_evaluation-e").mkdir()
    (tmp_path / "runs" / "05_evaluation-e" / "run.json").write_text("{")
    assert [run["status"] for run in all_records(tmp_path / "runs")][-1] == "damaged"
    assert main(["runs", "--notebook", "03", "--sort", "rank1", "--json"]) == 0
    printed = capsys.readouterr().out
    assert [run["id"][-1] for run in json.loads(printed)] == ["b", "a", "c"]
    nan = record("03_image_finetune-n", metrics={"rank1": float("nan")})
    write_record(tmp_path / "runs" / nan["id"], nan)
    assert main(["runs", "--json"]) == 0
    assert "NaN" not in capsys.readouterr().out, "JSON has no word for it"
    shutil.rmtree(tmp_path / "runs" / nan["id"])
    assert main(["runs", "--status", "died"]) == 0
    assert "none of 5 runs" in capsys.readouterr().out
    assert main(["runs", "--since", "soon"]) == 2
    heavy = "{'torch', 'pandas', 'numpy', 'matplotlib', 'papermill'}"
    code = f"import sys; from handclip_lib.cli import main; main(['runs']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "damaged" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_reader_that_has_had_enough_is_no_fault(tmp_path: Path):
    code = "from handclip_lib.cli import main; import sys; sys.exit(main(['runs', '--json']))"
    for number in range(300):  # more than a pipe holds
        write_record(tmp_path / "runs" / f"05_evaluation-{number}", RUNS[0])
    words = ["bash", "-c", f'"{sys.executable}" -c "{code}" | head -1; exit ${{PIPESTATUS[0]}}']
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"HANDCLIP_REPORTS": str(tmp_path)})
    assert (done.stdout, done.stderr, done.returncode) == ("[\n", "", 141)


def test_outside_the_project_the_message_says_so(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.delenv("HANDCLIP_REPORTS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert "in no project of HandCLIP: name one by --project FOLDER" in capsys.readouterr().out
    monkeypatch.setenv("HANDCLIP_REPORTS", "~nobody_of_that_name/reports")
    assert main(["runs"]) == 2
    assert "HANDCLIP_REPORTS='~nobody" in capsys.readouterr().err


FAULTS = [
    {"status": None}, {"status": ["failed"]}, {"parameters": [1]}, {"metrics": [1]}, {"metrics": {"rank1": "high"}},
    {"started": 5}, {"started": "yesterday"}, {"finished": "never"}, {"seconds": "9"}, {"inputs": "02"},
    {"notebook": 5}, {"status": "running", "process": [1], "metrics": "none"},
]  # fmt: skip


@pytest.mark.matrix("damaged or hostile record", "runs, clean, 05, 06", "damaged; no command stops")
def test_a_record_with_a_part_of_another_kind_is_damaged_and_stops_no_command(reports: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_CACHE", str(reports / "cache"))
    write_record(reports / "runs" / RUNS[0]["id"], RUNS[0])
    names = [f"03_image_finetune-{number:02d}" for number in range(len(FAULTS))]
    for name, fault in zip(names, FAULTS, strict=True):
        write_record(reports / "runs" / name, RUNS[1] | {"id": name} | fault)
    for words in ("--sort rank1", "--since 2026-01-01", "--changed epochs", "--dataset drawn"):
        assert main(["runs", *words.split()]) == 0
    capsys.readouterr()
    assert main(["runs", "--status", "damaged"]) == 0
    said = capsys.readouterr().out
    assert [fault for name, fault in zip(names, FAULTS, strict=True) if f"{name}  damaged" not in said] == []
    assert main(["clean", "--days", "0", "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert main(["run", "06", "--dry-run"]) == 0
    assert main(["run", "05", "--dry-run", "-p", "trained_run", "latest"]) == 2, "the only one left no weights"


WHOLE = json.dumps(RUNS[1])[:-1]
HOSTILE = {
    "deep": lambda path: path.write_text('{"a":' * 200_000),
    "nested": lambda path: path.write_text(f'{WHOLE}, "a": {"[" * 40}{"]" * 40}}}'),
    "number": lambda path: path.write_text(f'{WHOLE}, "n": {"9" * 4000}}}'),
    "digits": lambda path: path.write_text(f'{WHOLE}, "n": {"9" * 100_000}}}'),
    "large": lambda path: path.write_text(json.dumps(RUNS[1] | {"error": "x" * 2_000_000})),
    "year": lambda path: path.write_text(json.dumps(RUNS[1] | {"started": "0001-01-01T00:00:00"})),
    "no text": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "nothing": lambda path: None,
}


@pytest.mark.matrix("damaged or hostile record", "runs, clean, start, resume, 06, report", "a line with the reason")
def test_what_is_no_record_is_a_damaged_run_to_every_command(reports: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_CACHE", str(reports / "cache"))
    write_record(reports / "runs" / RUNS[0]["id"], RUNS[0])
    folders = {kind: run_folder(find_notebook("05"), Evaluation(seed=seed)) for seed, kind in enumerate(HOSTILE)}
    for kind, folder in folders.items():
        folder.mkdir(parents=True)
        HOSTILE[kind](folder / "run.json")
    assert main(["runs", "--status", "damaged"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert len(lines) == len(HOSTILE)
    for words in ("runs --sort rank1", "runs --json", "run 06 --dry-run"):
        assert main(words.split()) == 0
    assert main(["run", "03", "--dry-run", "-p", "prompt_run", "latest"]) == 2, "no prompts to be had"
    found = sorted(run["status"] for run in find_records(reports / "runs"))
    assert found == ["damaged"] * len(HOSTILE) + ["succeeded"]
    index = write_index(reports / "runs").read_text().split("<tbody>")[-1]
    assert main(["clean", "--days", "0", "--yes"]) == 0
    for seed, (kind, folder) in enumerate(folders.items()):
        reason = "run.json is not there" if kind == "nothing" else "run.json cannot be read: "
        line = lines[folder.name]
        assert line.startswith(f"{folder.name}  damaged") and f"({reason}" in line and len(line) < 500, kind
        assert folder.name in index, kind
        capsys.readouterr()
        assert main(["run", "05", "--dry-run", "-p", "seed", str(seed)]) == 0
        assert f"damaged ({reason}" in capsys.readouterr().out, kind
        assert main(["report", folder.name]) == 2
        assert reason in capsys.readouterr().err, kind
        assert folder.is_dir(), kind
        assert main(["clean", "--runs", folder.name, "--yes"]) == 0
        assert not folder.exists(), kind


@pytest.mark.matrix("hostile text", "every command, of a record", "written out on the terminal")
def test_what_a_person_reads_of_a_record_drives_no_terminal(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "cache"))
    evil = "\x1b[2J\x1b]0;x\x07\r\n05_fake  succeeded\u202e\u2066\u009b31m\b\u2028\ud800"
    name = f"05_{evil[:-1]}"
    planned = run_folder(find_notebook("05"), Evaluation())
    given = {"data_root": evil, f"n{evil}": 1}
    told = {"status": f"failed{evil}", "error": evil, "parameters": given, "started": "2020-01-01", "notebook": evil}
    for folder in (planned, tmp_path / "runs" / name):
        write_record(folder, RUNS[1] | told)
    write_record(tmp_path / "runs" / "05_lost", RUNS[1] | {"status": "running", "process": {"host": evil}})
    file = tmp_path / f"{evil[:-1]}.yml"
    file.write_text("x: [")
    words = [
        ["runs"], ["runs", "--json"], ["run", "05", "--dry-run"], ["run", "05", "--resume"], ["run", "03", "--resume"],
        ["report", name], ["report", f"no{name}"], ["clean", "--days", "0"], ["clean", "--runs", "05_lost"],
        ["run", "05", "--dry-run", "-p", "trained_run", name], ["run", name], ["run", "02", "-f", str(file)],
        ["sweep", "02", "-f", str(file)], ["data", "check", str(tmp_path / evil[:-1])],
    ]  # fmt: skip
    monkeypatch.setattr("builtins.input", lambda question: "n")
    for command in words:
        main(command)
        said = "".join(capsys.readouterr())
        assert not [c for c in said if c != "\n" and not c.isprintable()], command
        typed = any("\n" in word for word in command)  # who types a line end sees one
        assert typed or not [line for line in said.splitlines() if line.startswith("05_fake")], command
