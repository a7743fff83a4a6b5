"""One pattern for every interactive figure: a pure function of its controls, drawn at once and on each change."""

import base64
import html
import inspect
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from handclip_lib.errors import ConfigError
from handclip_lib.parameters.guard import resolve, run_command
from handclip_lib.parameters.parts import Parameters
from handclip_lib.runs.shown import about_figure, as_png

MOST_FRAMES = 12  # that the report's style can show
DPI = 144  # one and a half pixels a CSS pixel, for dense screens


class Job:
    """Long work: a start and a cancel button and a bar, in `widget`; one thread works, so the kernel stays free.

    Work that looks at `stopped` ends at its next safe place once cancel is pressed.
    """

    def __init__(self, text: str):
        self._asked, self._thread = Event(), Thread()
        self.button = ipywidgets.Button(description=text)
        self.cancel = ipywidgets.Button(description="cancel", disabled=True)
        self.cancel.on_click(lambda _: self._ask())
        self._bar = ipywidgets.FloatProgress(min=0, max=1, layout=ipywidgets.Layout(width="160px", visibility="hidden"))
        self._said = ipywidgets.HTML()
        self.widget = ipywidgets.HBox([self.button, self.cancel, self._bar, self._said])

    def start(self, work: Callable[[], object]) -> None:
        """Work in a thread; the start button is off meanwhile. Work that raises or returns False has failed."""
        self._asked.clear()
        self.button.disabled, self.cancel.disabled = True, False
        self._bar.value, self._bar.layout.visibility = 0, "visible"
        self._say("started")
        self._thread = Thread(target=self._run, args=(work,), daemon=True)  # a kernel that ends does not wait for it
        self._thread.start()

    def tell(self, done: float, total: float, text: str) -> None:
        """Say how far the work is, 0 ≤ done ≤ total, and a text beside the bar."""
        self._bar.value = done / total
        self._say(text)

    def stopped(self) -> bool:
        """Whether cancel was pressed."""
        return self._asked.is_set()

    def wait(self, seconds: float | None = None) -> None:
        """Until the work has ended, or for some seconds."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self, work: Callable[[], object]) -> None:
        ended = "failed"
        try:
            ended = "done" if work() is not False else ended
        finally:
            self._bar.layout.visibility = "hidden"
            self._say("cancelled" if self.stopped() else ended)
            self.button.disabled, self.cancel.disabled = False, True

    def _ask(self) -> None:
        self._asked.set()
        self.cancel.disabled = True
        self._say("stopping …")

    def _say(self, text: str) -> None:
        self._said.value = f'<span role="status">{html.escape(text)}</span>'


class Panel:
    """Controls above a figure; exported HTML, GitHub and a headless run see the figure as a PNG.

    The function is called once when the panel is built, so a notebook that nobody clicks still has the figure, and a
    fault then stops the run. A fault after a click is shown in the panel as text.

    Args:
        function: Pure `function(**values) -> Figure`; pyplot is not involved.
        alt: What the figure shows, for readers who cannot see it; the controls' values are added to it.
        button: Text of a button that must be pressed for another figure: for functions that take long. They work in a
            thread and are given a `Job` as `job` then.
        config: The notebook's parameters, where every control is one of them: the panel says by which command the
            notebook is run with the controls' values.
        frames: Name of a control with at most 12 choices, each of whose figures a report without a kernel holds too.
        **controls: One per argument of `function`: an ipywidgets control, or what `ipywidgets.interact` accepts, which
            starts at the function's default.

    Raises:
        TypeError: A control cannot be made of what was given or is no parameter of `config`, or the function
            returns something else; and whatever else it raises for the first values.
    """

    def __init__(
        self,
        function: Callable[..., Figure],
        *,
        alt: str,
        button: str = "",
        frames: str = "",
        config: Parameters | None = None,
        **controls: Any,
    ):
        self._function = function
        self._alt, self._frames, self._config = alt, frames, config
        self.controls = {name: _control(name, given, function) for name, given in controls.items()}
        unknown = set(controls) - set(type(config).model_fields) if config else ()
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: no parameter of the notebook, so no command has it")
        self._picture, self._hint = ipywidgets.HTML(), ipywidgets.HTML()
        self._error = ""
        self._draw(self.values, self._state())
        self._show()
        shown: list[ipywidgets.Widget] = list(self.controls.values())
        if button:
            self.job = Job(button)
            self.job.button.on_click(self._pressed)
            shown.append(self.job.widget)
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        row = ipywidgets.Layout(display="flex", flex_flow="row wrap")
        below = [self._picture] if config is None else [self._picture, self._hint]
        self.widget = ipywidgets.VBox([ipywidgets.Box(shown, layout=row), *below])
        self._say_command()

    @property
    def values(self) -> dict[str, Any]:
        """The controls' present values, by argument name."""
        return {name: control.value for name, control in self.controls.items()}

    @property
    def alt(self) -> str:
        """The alternative text of the present figure, with the controls' labels that led to it."""
        return f"{self._alt} ({self._drawn_of})" if self._drawn_of else self._alt

    def _state(self) -> str:
        return ", ".join(f"{control.description}: {_shown(control)}" for control in self.controls.values())

    def _draw(self, values: dict[str, Any], state: str, **job: Job) -> None:
        if self._config is not None:
            values = {name: getattr(_resolved(self._config, values), name) for name in values}
        figure = self._function(**values, **job)
        if not isinstance(figure, Figure):
            name = getattr(self._function, "__name__", "the panel's function")
            raise TypeError(f"{name} returned {type(figure).__name__}; a panel needs a matplotlib Figure")
        self._png, self.figure, self._drawn_of = _png(figure), figure, state

    def _changed(self, _change: object) -> None:
        self._say_command()
        if not hasattr(self, "job"):
            self._redraw(self.values, self._state())

    def _pressed(self, _button: ipywidgets.Button) -> None:
        values, state = self.values, self._state()  # of now: the controls may change while it works
        self.job.start(lambda: self._redraw(values, state, job=self.job))

    def _redraw(self, values: dict[str, Any], state: str, **job: Job) -> bool:
        """Draw and show; whether it could be drawn."""
        try:
            self._draw(values, state, **job)
            self._error = ""
        except Exception as error:  # a callback's exception would vanish in the server's log
            self._error = f"{type(error).__name__}: {error}"
        self._show()
        return not self._error

    def _say_command(self) -> None:
        """How the notebook is run with the controls' present values, or what is wrong with them."""
        if self._config is None:
            return
        try:
            command = html.escape(run_command(_resolved(self._config, self.values)))
            self._hint.value = f"<small>the notebook with these values: <code>{command}</code></small>"
        except ConfigError as error:
            self._hint.value = _alert(str(error))

    def _show(self) -> None:
        if self._error:
            self._picture.value = _alert(self._error)
            return
        width = round(self.figure.get_figwidth() * 96)  # CSS pixels
        self._picture.value = (
            f'<img style="width: {width}px; max-width: 100%" alt="{html.escape(self.alt)}"'
            f' src="data:image/png;base64,{self._png}">'
        )

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live view, and beside it what a reader without a kernel sees."""
        data = self.widget._repr_mimebundle_() or {}
        if self._error:
            return data | {"text/plain": self._error, "text/html": self._picture.value}, {}
        about = about_figure(self.figure, self.alt)
        if self._frames:
            about["frames"] = self._frame_pictures()
        return data | {"text/plain": self.alt, "image/png": self._png}, {"image/png": about}

    def _frame_pictures(self) -> list[list[str]]:
        """Label and base64 PNG of the figure at each choice of the control named by `frames`."""
        values, name = self.values, self._frames
        options = self.controls[name]._options_full
        if len(options) > MOST_FRAMES:
            raise TypeError(f"frames={name!r} has {len(options)} choices; a report holds at most {MOST_FRAMES}")
        return [[label, _png(self._function(**values | {name: value}))] for label, value in options]


def _control(name: str, given: Any, function: Callable[..., Figure]) -> ipywidgets.ValueWidget:
    """A labelled control that reports a value once it is settled, not while a slider is dragged."""
    argument = inspect.signature(function).parameters.get(name)
    default = argument.default if argument else inspect.Parameter.empty
    control = ipywidgets.interactive.widget_from_abbrev(given, default)
    if not isinstance(control, ipywidgets.ValueWidget):
        raise TypeError(f"no control can be made of {name}={given!r}: give a range, choices, a bool or text")
    if not control.description:
        control.description = name.replace("_", " ")
    control.style.description_width = "initial"
    if control.has_trait("continuous_update"):
        control.continuous_update = False
    return control


def _resolved(config: Parameters, values: dict[str, Any]) -> Parameters:
    return resolve(type(config), config.model_dump() | values)


def _alert(text: str) -> str:
    return f'<pre role="alert">{html.escape(text)}</pre>'


def _shown(control: ipywidgets.Widget) -> str:
    """What a control shows; of an empty text what stands for it."""
    value = f"{control.value:.4g}" if isinstance(control.value, float) else str(control.value)
    return str(getattr(control, "label", None) or value or getattr(control, "placeholder", ""))


def _png(figure: Figure) -> str:
    """As base64."""
    return base64.b64encode(as_png(figure, DPI)).decode()
