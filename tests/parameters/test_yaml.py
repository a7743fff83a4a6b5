import os
from pathlib import Path

import pytest

from handclip_lib.cli import main
from handclip_lib.errors import ConfigError
from handclip_lib.parameters.files import MOST, read_mapping
from handclip_lib.training.__main__ import main as train

LAUGHS = "a0: &a0 lol\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 15))
MERGES = LAUGHS.replace("lol", "{x: 1}").replace("[", "{<<: [").replace("]", "]}")
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))
ABSURD = {
    "deep list": ("seed: " + "[" * 10_000, "more than 20 levels"),
    "deep mapping": ("\n".join(" " * level + "a:" for level in range(900)), "more than 20 levels"),
    "laughs": (LAUGHS, "more than 500,000 characters with every alias"),
    "merges": (MERGES, "more than 500,000 characters with every alias"),
    "chain of aliases": (CHAIN, "more than 20 levels with every alias"),
    "alias of itself": ("seed: &a [1, *a]", "an alias within what it stands for"),
    "mapping of itself": ("seed: &a {<<: *a}", "an alias within what it stands for"),
    "large": ("seed: " + "x" * MOST, f"more than {MOST:,} bytes"),
    "whole number": ("seed: " + "9" * 5000, "a number of too many digits"),
    "fraction": ("seed: 0." + "9" * 5000, "a number of too many digits"),
    "no number": ("seed: !!int abc", "not of the kind its tag says"),
    "no truth value": ("seed: !!bool maybe", "not of the kind its tag says"),
    "no date": ("seed: !!timestamp x", "not of the kind its tag says"),
    "no bytes": ("seed: !!binary ä", "is not YAML"),
    "object": ("seed: !!python/object/apply:os.getpid []", "is not YAML"),
    "control sign": ("seed: \0", "is not YAML"),
    "key that is a list": ("? [1]\n: 2", "is not YAML"),
}


@pytest.mark.parametrize("kind", ABSURD)
@pytest.mark.matrix("hostile parameters", "files of run, sweep, training.yml", "refused in seconds, with the place")
def test_an_absurd_file_is_refused_by_every_command_that_reads_one(kind: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path / "reports"))
    content, words = ABSURD[kind]
    file = tmp_path / "training.yml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        read_mapping(file)
    for command, arguments in ((train, []), (main, ["run", "05", "-f"]), (main, ["sweep", "05", "-f"])):
        assert command([*arguments, str(file if arguments else tmp_path)]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert "Traceback" not in said
        assert len(said) < 2000


def test_a_file_of_very_many_values_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("handclip_lib.parameters.files.MOST_VALUES", 500)
    (tmp_path / "a.yml").write_text("seed: [" + "1, " * 600 + "]")
    with pytest.raises(ConfigError, match="more than 500 values"):
        read_mapping(tmp_path / "a.yml")


def test_a_device_is_too_large_a_folder_is_none_and_a_pipe_may_be_given(tmp_path: Path):
    with pytest.raises(ConfigError, match="more than 500,000 bytes"):
        read_mapping(Path("/dev/zero"))
    with pytest.raises(ConfigError, match="Is a directory"):
        read_mapping(tmp_path)
    end, start = os.pipe()
    os.write(start, b"seed: 3")
    os.close(start)
    assert read_mapping(Path(f"/dev/fd/{end}")) == {"seed": 3}
    os.close(end)


def test_a_long_sweep_and_aliases_of_ordinary_use_are_read(tmp_path: Path):
    entries = [{"seed": n, "draws": 2, "learning_rate": 1e-3, "epochs": 4} for n in range(1000)]
    (tmp_path / "a.yml").write_text("base: &base {draws: 3, seed: 1}\nlist:\n" + "".join(f"- {e}\n" for e in entries))
    assert read_mapping(tmp_path / "a.yml")["list"] == entries
    (tmp_path / "b.yml").write_text("a: &a {draws: 3}\nlist: [*a, {<<: *a, seed: 12345678901234567890}]")
    assert read_mapping(tmp_path / "b.yml")["list"] == [{"draws": 3}, {"draws": 3, "seed": 12345678901234567890}]
