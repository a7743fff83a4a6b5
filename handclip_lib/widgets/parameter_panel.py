"""A notebook's parameters as controls: look at them, change them, and take them away as a command, lines or a file."""

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import ipywidgets

from handclip_lib.errors import ConfigError, WriteError
from handclip_lib.parameters.files import parameter_files, read_parameters, save_parameters, shown
from handclip_lib.parameters.guard import papermill_command, parameter_lines, resolve, run_command, said
from handclip_lib.parameters.parts import Data, Model, Parameters, choices_of

GROUPS = {"data": Data, "backbone": Model}
ROW = {"display": "flex", "flex_flow": "row wrap"}
OPEN, CLOSED = "caret-down", "caret-right"
COPY = """
const text = this.closest('.widget-hbox').querySelector('textarea');
text.focus();
text.select();
const done = document.execCommand('copy');
this.textContent = done ? 'copied' : text.value ? 'press Ctrl+C' : 'empty';
if (done || !text.value) this.focus();
setTimeout(() => this.textContent = 'copy', 2000);
"""
"""Of a button beside a text area. The browser's old command and not `navigator.clipboard`, which a JupyterLab that is
reached by http from another machine has not; where it fails, the text is selected, for Ctrl+C."""


class ParameterPanel:
    """A notebook's parameters, in groups that open by a press; what reads without a kernel names the changed ones.

    Nothing here changes the run under way: its cells have computed with `config`. The panel gives a command, a file,
    or lines to paste at the end of the parameters cell, from which the notebook is then run again.

    What is typed is kept while the kernel lives and the parameters are the same, so that this cell can be run again.
    """

    def __init__(self, config: Parameters):
        self._config, self._model = config, type(config)
        self._typed = _typed(config)
        self.message = ipywidgets.HTML()
        layout = ipywidgets.Layout(width="330px")  # one for all: an executed notebook holds every widget's state
        self.controls = {
            name: _control(name, field, self._typed.get(name, getattr(config, name)), layout)
            for name, field in self._model.model_fields.items()
        }
        upright = ipywidgets.Layout()
        self._places = {name: ipywidgets.VBox([control], layout=upright) for name, control in self.controls.items()}
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.papermill, self.run, self.lines = (
            _text(label) for label in ("papermill", "handclip run", "lines to paste")
        )
        self._build_files()
        sections: dict[str, Sequence[ipywidgets.Widget]] = {
            group: [self._places[name] for name in names] for group, names in groups(self._model).items()
        }
        sections["as a command"] = [_copied(text) for text in (self.papermill, self.run, self.lines)]
        sections["save, load"] = [self.name, self.overwrite, self.save, self.file, self.load]
        boxes = [ipywidgets.Box(inside, layout=ipywidgets.Layout(**ROW)) for inside in sections.values()]
        self.toggles = [_toggle(title, box) for title, box in zip(sections, boxes, strict=True)]
        bar = ipywidgets.Box([ipywidgets.HTML("parameters:"), *self.toggles], layout=ipywidgets.Layout(**ROW))
        self.widget = ipywidgets.VBox([bar, *boxes, self.message])
        self._changed(None)

    @property
    def values(self) -> dict[str, Any]:
        """The controls' present values, by parameter."""
        return {name: control.value for name, control in self.controls.items()}

    def _build_files(self) -> None:
        self.name = ipywidgets.Text("mine", description="file name", tooltip="under params/; .yml is added")
        self.overwrite = ipywidgets.Checkbox(False, description="overwrite", indent=False, layout={"width": "auto"})
        self.save = ipywidgets.Button(description="save to params")
        self.save.on_click(lambda _: self._save())
        self.file = ipywidgets.Dropdown(description="file", layout=ipywidgets.Layout(width="340px"))
        self.load = ipywidgets.Button(description="load params")
        self.load.on_click(lambda _: self._load())
        self._list_files()

    def _list_files(self) -> None:
        files = parameter_files(self._model.notebook)
        self.file.options = [(shown(file), file) for file in files]
        self.file.value = files[0] if files else None
        self.load.disabled = not files

    def _changed(self, _change: object) -> None:
        """Keep what is typed, and say what it amounts to, or everything that is wrong with it, there and at once."""
        self._typed.update(self.values)
        try:
            wanted = resolve(self._model, self.values)
        except ConfigError as error:
            self.papermill.value = self.run.value = self.lines.value = ""
            self.save.disabled = True
            self._mark(str(error).splitlines()[1:])
            self._say(str(error), wrong=True)
            return
        self.save.disabled = False
        self._mark([])
        self.papermill.value, self.run.value = papermill_command(wanted), run_command(wanted)
        self.lines.value = parameter_lines(wanted, self._config)
        self._say(self._pending())

    def _mark(self, faults: Sequence[str]) -> None:
        """Put each fault below the control it names."""
        of = {match.group(1): fault.strip() for fault in faults if (match := re.match(r"\s*(\w+)", fault))}
        for name, place in self._places.items():
            control, *notes = place.children
            told = _told(of[name], wrong=True) if name in of else ""
            if told != "".join(note.value for note in notes):  # a view that stays keeps the keyboard's focus
                place.children = (control, ipywidgets.HTML(told)) if told else (control,)

    def _pending(self) -> str:
        """What is to be done for the values to count."""
        names = [name for name, value in self.values.items() if value != getattr(self._config, name)]
        if not names:
            return ""
        return (
            f"Changed here: {', '.join(names)}. This run keeps its own values: run the command, or paste the lines "
            "under “as a command” at the end of the parameters cell and run the notebook again from there."
        )

    def _save(self) -> None:
        try:
            wanted = resolve(self._model, self.values)
            file = save_parameters(wanted, self.name.value, overwrite=self.overwrite.value)
        except (ConfigError, WriteError) as error:
            self._say(f"Not saved. {error}", wrong=True)
            return
        self.overwrite.value = False
        self._list_files()
        self.file.value = file
        self._say(f"Saved: {shown(file)}")

    def _load(self) -> None:
        """Put the defaults with a file's values into the controls, or none of it where something is wrong."""
        file, own = self.file.value, {name: self.values[name] for name in ("data_root",) if name in self.controls}
        try:
            loaded = resolve(self._model, own | read_parameters(file))
        except ConfigError as error:
            self._say(f"{shown(file)} is not loaded. {error}", wrong=True)
            return
        for name, control in self.controls.items():
            control.value = getattr(loaded, name)
        self._say(f"Loaded: {shown(file)}. {self._pending()}")

    def _say(self, text: str, *, wrong: bool = False) -> None:
        self.message.value = _told(text, wrong=wrong)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """The live view, and beside it a sentence for who reads without a kernel."""
        text = said(self._config)
        return (self.widget._repr_mimebundle_() or {}) | {
            "text/plain": text,
            "text/html": f"<p>{html.escape(text)}</p>",
        }


def groups(model: type[Parameters]) -> dict[str, list[str]]:
    """Parameter names by group: of the data, of the backbone, and those that are the notebook's own."""
    found: dict[str, list[str]] = {}
    for name in model.model_fields:
        # what every notebook asks is no part's own
        first = [group for group, base in GROUPS.items() if issubclass(model, base) and name in base.model_fields
                 and name not in Parameters.model_fields]  # fmt: skip
        found.setdefault(first[0] if first else model.notebook[3:].replace("_", " "), []).append(name)
    return {group: found[group] for group in sorted(found, key=[*GROUPS, *found].index)}


@lru_cache(maxsize=1)
def _typed(config: Parameters) -> dict[str, Any]:
    """What was typed into the panel of these parameters; those of others are forgotten."""
    return {}


def _told(text: str, *, wrong: bool) -> str:
    role, colour = ("alert", "color: #b00020; ") if wrong else ("status", "")
    return f'<pre role="{role}" style="{colour}white-space: pre-wrap">{html.escape(text)}</pre>'


def _control(name: str, field: Any, value: Any, layout: ipywidgets.Layout) -> ipywidgets.ValueWidget:
    """A labelled control, its help as tooltip.

    A number's has no bounds, and a whole number's takes fractions: ipywidgets would turn what lies outside into what
    lies inside, where the model refuses it.
    """
    about = {
        "description": name.replace("_", " "),
        "tooltip": f"{name}: {field.description}",
        "style": {"description_width": "150px"},
        "layout": layout,
    }
    if isinstance(field.default, bool):
        return ipywidgets.Checkbox(value, **about)
    if isinstance(field.default, int | float):
        return ipywidgets.FloatText(value, step=1 if isinstance(field.default, int) else None, **about)
    choices = choices_of(field.annotation)
    if str in choices:
        return ipywidgets.Combobox(value=value, options=[one for one in choices if one is not str], **about)
    if choices:
        return ipywidgets.Dropdown(options=choices, value=value, **about)
    return ipywidgets.Text(value, continuous_update=False, **about)


def _text(label: str) -> ipywidgets.Textarea:
    """Text to select and copy; not disabled, because a disabled one cannot be reached by keyboard."""
    return ipywidgets.Textarea(
        description=label, rows=3, style={"description_width": "150px"}, layout=ipywidgets.Layout(width="98%")
    )


def _copied(text: ipywidgets.Textarea) -> ipywidgets.HBox:
    """A text area with a button that puts it on the clipboard."""
    label = html.escape(f"copy: {text.description}", quote=True)
    code = html.escape(" ".join(COPY.split()), quote=True)
    button = (
        f'<button type="button" class="lm-Widget jupyter-widgets jupyter-button" style="width: 90px" '
        f'aria-label="{label}" onclick="{code}">copy</button>'
    )
    return ipywidgets.HBox([text, ipywidgets.HTML(button)], layout=ipywidgets.Layout(width="98%"))


def _toggle(title: str, box: ipywidgets.Box) -> ipywidgets.ToggleButton:
    """A button that opens and closes a section."""
    button = ipywidgets.ToggleButton(False, description=title, icon=CLOSED)

    def show(_change: object) -> None:
        box.layout.display = ROW["display"] if button.value else "none"
        button.icon = OPEN if button.value else CLOSED

    button.observe(show, names="value")
    show(None)
    return button


parameter_panel = ParameterPanel
