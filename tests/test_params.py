"""Parameter files: each is accepted by its notebook and says how it is run."""

from pathlib import Path

import pytest
import yaml

from handclip_lib.config import ImageFinetune, PromptLearning, resolve

PARAMS = Path(__file__).parents[1] / "params"
MODELS = {"prompt_learning": PromptLearning, "image_finetune": ImageFinetune}
FILES = sorted(PARAMS.rglob("*.yml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_accepted_and_says_command_minutes_machine_and_expected_figures(file):
    text = file.read_text()
    values = yaml.safe_load(text)
    if values["dataset"] != "drawn":
        values |= {"data_root": "/anywhere"}
    resolve(MODELS[file.parent.name], values)
    for word in ("command", "minutes", "machine", "expected"):
        assert f"# {word}:" in text
    assert str(file.relative_to(PARAMS.parent)) in text
    assert "TO_FILL" not in text
