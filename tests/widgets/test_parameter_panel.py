import ast
import html
import shlex
from pathlib import Path

import ipywidgets
import pytest
import yaml

from handclip_lib.cli import _parser
from handclip_lib.errors import ConfigError
from handclip_lib.launch.launcher import gather
from handclip_lib.parameters.guard import changed, papermill_command, parameter_lines, resolve, run_command
from handclip_lib.parameters.notebooks import NOTEBOOKS, DataExploration, Evaluation, JointTraining, PromptLearning
from handclip_lib.widgets.parameter_panel import _typed, groups, parameter_panel

ODD = {"n_ctx": 2, "template": "it's a {} \"hand\" | $HOME/{} ü", "learning_rate": 1e-5, "normalize": False,
       "weights": "007", "context_weight": 1e6, "dataset": "11k", "data_root": "/a folder/true"}  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project as working folder."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "study.toml").touch()
    monkeypatch.chdir(tmp_path)
    _typed.cache_clear()
    return tmp_path


def typed(words: list[str]) -> dict:
    """What `handclip run` makes of the words after the notebook's number."""
    options = _parser().parse_args(["run", "02", *words])
    return gather(options.files, options.typed, options.raw)


def test_a_command_gives_the_same_parameters_again():
    config = PromptLearning(**ODD)
    assert resolve(PromptLearning, typed(shlex.split(run_command(config))[3:])) == config
    program, notebook, out, *words = shlex.split(papermill_command(config))
    assert (program, notebook, out) == ("papermill", "notebooks/02_prompt_learning.ipynb", "out.ipynb")
    assert resolve(PromptLearning, typed(words)) == config
    assert run_command(PromptLearning()) == "handclip run 02"


def test_papermill_itself_reads_the_command_the_same(monkeypatch: pytest.MonkeyPatch):
    from papermill import cli

    given = {}
    monkeypatch.setattr(cli, "execute_notebook", lambda *_, **options: given.update(options["parameters"]))
    cli.papermill(shlex.split(papermill_command(PromptLearning(**ODD)))[1:], standalone_mode=False)
    assert resolve(PromptLearning, given) == PromptLearning(**ODD)


def test_lines_for_the_parameters_cell_are_literals_that_give_the_same_parameters():
    before, config = PromptLearning(n_ctx=3, epochs=5), PromptLearning(**ODD)
    body = ast.parse(parameter_lines(config, before)).body
    assert all(isinstance(statement, ast.AnnAssign) for statement in body)
    written = {statement.target.id: ast.literal_eval(statement.value) for statement in body}
    assert written == changed(config, before)
    assert PromptLearning(**before.model_dump() | written) == config


@pytest.mark.parametrize("model", NOTEBOOKS.values(), ids=list(NOTEBOOKS))
def test_every_parameter_has_a_control_with_its_value_and_its_help(model):
    panel = parameter_panel(model())
    assert panel.values == model().model_dump()
    assert sorted(name for names in groups(model).values() for name in names) == sorted(model.model_fields)
    for name, field in model.model_fields.items():
        assert field.description in panel.controls[name].tooltip


@pytest.mark.parametrize("model", NOTEBOOKS.values(), ids=list(NOTEBOOKS))
def test_what_is_out_of_bounds_is_refused_in_the_models_words_beside_its_control_and_not_changed(model):
    panel = parameter_panel(model())
    numbers = [name for name, field in model.model_fields.items() if type(field.default) in (int, float)]
    assert numbers
    for name in numbers:
        for wrong in (-1e12, 1e12) if type(model.model_fields[name].default) is float else (-(10**12), 10**12, 2.5):
            panel.controls[name].value = wrong
            assert panel.controls[name].value == wrong
            with pytest.raises(ConfigError) as refused:
                resolve(model, {name: wrong})
            said = str(refused.value).splitlines()[1].strip()
            place = panel._places[name]
            assert place.children[0] is panel.controls[name]
            assert html.escape(said) in place.children[1].value
            assert html.escape(said) in panel.message.value
            assert (panel.run.value, panel.papermill.value, panel.lines.value) == ("", "", "")
            assert panel.save.disabled
        panel.controls[name].value = getattr(model(), name)
        assert len(panel._places[name].children) == 1
    assert panel.run.value
    assert not panel.save.disabled


def test_parameters_are_grouped_by_what_they_are_of():
    assert list(groups(PromptLearning)) == ["data", "backbone", "prompt learning"]
    assert "aspect" in groups(PromptLearning)["data"]
    assert groups(DataExploration)["data exploration"] == ["seed", "resolution", "samples"]
    assert groups(NOTEBOOKS["06_analysis"]) == {"analysis": list(NOTEBOOKS["06_analysis"].model_fields)}


def test_a_section_opens_and_closes_with_its_button():
    panel = parameter_panel(Evaluation())
    assert [toggle.description for toggle in panel.toggles] == [
        "data", "backbone", "evaluation", "as a command", "save, load",
    ]  # fmt: skip
    box = panel.widget.children[1]
    assert (box.children[0], box.layout.display) == (panel._places["private"], "none")
    panel.toggles[0].value = True
    assert box.layout.display == "flex"
    panel.toggles[0].value = False
    assert box.layout.display == "none"


def test_changes_are_told_as_commands_and_change_no_running_config():
    config = Evaluation(draws=3)
    panel = parameter_panel(config)
    assert panel.run.value == "handclip run 05 -p draws 3"
    assert "Changed" not in panel.message.value
    panel.controls["top_k"].value = 4
    assert panel.run.value == "handclip run 05 -p draws 3 -p top_k 4"
    assert panel.papermill.value.endswith("-p draws 3 -p top_k 4")
    assert panel.lines.value == "top_k: int = 4  # gallery images shown for a query"
    assert "Changed here: top_k." in panel.message.value
    assert config.top_k == 8
    assert panel._repr_mimebundle_()["text/plain"] == "Parameters that differ from the defaults: draws = 3."


def test_all_faults_are_shown_at_once_escaped_and_no_command_is_offered():
    panel = parameter_panel(JointTraining())
    panel.controls["dataset"].value = "11k"
    panel.controls["version"].value = "<b>"
    panel.controls["input_size"].value = "big"
    assert "input_size=&#x27;big&#x27;" in panel.message.value
    panel.controls["input_size"].value = ""
    assert "2 parameters are wrong" in panel.message.value
    assert "data_root" in panel.message.value
    assert "<b>" not in panel.message.value
    assert panel.run.value == panel.papermill.value == panel.lines.value == ""
    panel.controls["dataset"].value, panel.controls["version"].value = "drawn", ""
    assert panel.run.value == "handclip run 04"


def test_what_is_typed_stays_while_the_parameters_do():
    parameter_panel(Evaluation(draws=4)).controls["top_k"].value = 4
    assert parameter_panel(Evaluation(draws=4)).values["top_k"] == 4, "the cell run again"
    assert parameter_panel(Evaluation(draws=4, top_k=4)).values["top_k"] == 4, "pasted and run again"
    assert parameter_panel(Evaluation(draws=4)).values["top_k"] == 8, "other parameters came between"


def test_a_saved_file_stands_alone_and_is_never_overwritten_unasked(project: Path):
    panel = parameter_panel(JointTraining())
    panel.controls["epochs"].value = 3
    panel.name.value = "mine"
    panel.save.click()
    file = project / "params" / "joint_training" / "mine.yml"
    text = file.read_text()
    for word in ("command:  handclip run 04 -f params/joint_training/mine.yml", "saved:    20", "minutes", "expected"):
        assert f"# {word}" in text
    assert resolve(JointTraining, yaml.safe_load(text)) == JointTraining(epochs=3)
    panel.controls["epochs"].value = 4
    panel.save.click()
    assert "params/joint_training/mine.yml is there already" in panel.message.value
    assert file.read_text() == text
    panel.overwrite.value = True
    panel.save.click()
    assert yaml.safe_load(file.read_text())["epochs"] == 4
    assert panel.overwrite.value is False
    (file.parent / "base.yml").write_text("epochs: 99\nmargin: 0.9\n")
    other = parameter_panel(JointTraining(seed=1))
    other.file.value = file
    other.load.click()
    assert (other.values["epochs"], other.values["margin"]) == (4, 0.3)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "base", "base.yml"])
def test_a_file_name_is_no_path(project: Path, name: str):
    panel = parameter_panel(Evaluation())
    panel.name.value = name
    panel.save.click()
    assert "Not saved" in panel.message.value
    assert not (project / "params").exists()


def test_a_folder_that_cannot_be_written_is_named(project: Path):
    (project / "params").write_text("a file")
    panel = parameter_panel(Evaluation())
    panel.save.click()
    assert "cannot be written" in panel.message.value


def test_a_version_is_loaded_over_its_base_with_the_folder_that_was_typed(project: Path):
    folder = project / "params" / "joint_training"
    folder.mkdir(parents=True)
    (folder / "base.yml").write_text("dataset: 11k\nn_ctx: 12\nmargin: 0.5\n")
    (folder / "v5.yml").write_text("version: v5\nmargin: 0.2\n")
    panel = parameter_panel(JointTraining())
    assert [label for label, _ in panel.file.options] == [
        "params/joint_training/base.yml", "params/joint_training/v5.yml",
    ]  # fmt: skip
    panel.file.value = folder / "v5.yml"
    panel.load.click()
    assert "is not loaded" in panel.message.value
    assert "data_root" in panel.message.value
    assert panel.values == JointTraining().model_dump(), "all of it or nothing"
    panel.controls["data_root"].value = "/hands"
    panel.load.click()
    assert "Loaded: params/joint_training/v5.yml" in panel.message.value
    assert resolve(JointTraining, panel.values) == JointTraining(
        dataset="11k", data_root="/hands", n_ctx=12, margin=0.2, version="v5"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("draw: 3\ntop_k: 99\n", ["did you mean draws", "top_k=99", "2 parameters are wrong"]),
        ("- draws\n", ["holds a list"]),
        ("draws: [\n", ["is not YAML"]),
        ("draws: 3\ndraws: 4\n", ["draws stands twice"]),
        ("yes: 3\n", ["True is no name"]),
    ],
)
def test_what_is_wrong_with_a_file_is_shown_at_once_and_nothing_is_loaded(project: Path, text: str, words: list[str]):
    folder = project / "params" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "bad.yml").write_text(text)
    panel = parameter_panel(Evaluation())
    panel.load.click()
    assert [word for word in words if word not in panel.message.value] == []
    assert panel.values == Evaluation().model_dump()


def test_without_files_there_is_nothing_to_load():
    assert parameter_panel(Evaluation()).load.disabled


def test_a_report_shows_the_changed_parameters_and_no_empty_box():
    data = parameter_panel(Evaluation(trained_run="<b>"))._repr_mimebundle_()
    assert data["text/html"] == "<p>Parameters that differ from the defaults: trained_run = &quot;&lt;b&gt;&quot;.</p>"
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/plain", "text/html"}
    assert parameter_panel(Evaluation())._repr_mimebundle_()["text/plain"] == "All parameters are at their defaults."


def test_every_control_can_be_reached_by_keyboard():
    panel = parameter_panel(PromptLearning())
    reached = [panel.papermill, panel.run, panel.lines, panel.name, panel.overwrite, panel.save, panel.file]
    for control in [*panel.controls.values(), *reached]:
        assert not control.disabled
        assert control.description
        assert isinstance(control, ipywidgets.DOMWidget)
