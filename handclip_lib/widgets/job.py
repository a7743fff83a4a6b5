"""Long work behind a button: in a thread, so that the kernel stays free, with a bar and a cancel button."""

import html
from collections.abc import Callable
from threading import Event, Thread

import ipywidgets


class Job:
    """A start button, a cancel button and a bar; at most one thread works at a time.

    Attributes:
        button: Starts the work.
        cancel: Asks it to stop; work that looks at `stopped` ends at its next safe place.
        widget: The buttons, the bar and what is said beside it, in a row.
    """

    def __init__(self, text: str, *, cancels: bool = True):
        """Build the controls.

        Args:
            text: On the start button.
            cancels: Whether the work looks at `stopped`; without, there is no cancel button.
        """
        self._asked, self._thread = Event(), Thread()
        self.button = ipywidgets.Button(description=text)
        self.cancel = ipywidgets.Button(description="cancel", disabled=True)
        self.cancel.on_click(lambda _: self._ask())
        self._bar = ipywidgets.FloatProgress(min=0, max=1, layout=ipywidgets.Layout(width="160px", visibility="hidden"))
        self._said = ipywidgets.HTML()
        shown = [self.button, self.cancel, self._bar, self._said] if cancels else [self.button]
        self.widget = ipywidgets.HBox(shown)

    def start(self, work: Callable[[], object]) -> None:
        """Work in a thread of its own; the start button is off meanwhile, since a second press would do it again.

        Args:
            work: If it raises or returns False it has failed, and that is said.
        """
        self._asked.clear()
        self.button.disabled, self.cancel.disabled = True, False
        self._bar.value, self._bar.layout.visibility = 0, "visible"
        self._say("started")
        self._thread = Thread(target=self._run, args=(work,), daemon=True)  # a kernel that ends does not wait for it
        self._thread.start()

    def tell(self, done: float, total: float, text: str = "") -> None:
        """Say how far the work is.

        Args:
            done, total: Of the same unit; 0 ≤ done ≤ total.
            text: Shown beside the bar.
        """
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
