"""One run of a notebook: its parameters, its folder, and what it shows and keeps there."""

import atexit
import html
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from handclip_lib.errors import HandClipError, RunError
from handclip_lib.files import whole_file, write_text
from handclip_lib.parameters.guard import defaults, refusal, resolve
from handclip_lib.parameters.notebooks import SELECTED_ON, SELECTED_ON_TEST
from handclip_lib.parameters.parts import Parameters
from handclip_lib.parameters.study import read_study
from handclip_lib.places import elsewhere, project, reports_folder
from handclip_lib.runs import inputs
from handclip_lib.runs.identity import run_id, versions
from handclip_lib.runs.record import Claim, not_learnt, now, read_record, remove_results, this_process, write_record
from handclip_lib.runs.shown import about_figure, as_png, columns_of_text
from handclip_lib.version import commit_of, commit_of_library

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from handclip_lib.data.folds import Folds
    from handclip_lib.data.manifest import Split
    from handclip_lib.models.lineage import TrainedOn
    from handclip_lib.models.trained import Encoder, Training
    from handclip_lib.runs.kept_cells import KeptCells

P = TypeVar("P", bound=Parameters)
DPI = 144
SECONDS_BETWEEN_FIGURES = 5.0
RUN_FOLDER = "HANDCLIP_RUN"  # set by the launcher, which then keeps the status


def start(model: type[P], namespace: Mapping[str, Any]) -> "tuple[P, Run]":
    """The guard cell: check the parameters in a notebook's `globals()` and open the run's folder.

    Raises:
        ConfigError: All faults at once: of the parameters, and of what they name.
        RunError, WriteError: The run is under way elsewhere, or its folder cannot be written.
    """
    config = resolve(model, namespace)
    launched = os.environ.get(RUN_FOLDER)
    if launched:
        run = Run(Path(launched), config, keeps_status=False)
    else:
        given = config.model_dump()
        if faults := inputs.input_faults(given) + inputs.weights_faults(given):
            raise refusal(faults)
        config = inputs.as_opened(config)
        read = inputs.what_is_read(config)
        run = Run(reports_folder() / "runs" / run_id(config, None, read), config, read)
    print(f"run {run.folder.name}\nwrites to {run.folder}{elsewhere()}")
    if not launched and "ipykernel" in sys.modules:  # where papermill was started, too: a cell prints into the notebook
        with suppress(OSError, ValueError):  # a kernel's stream gives the descriptor it had when it was started
            os.write(sys.stderr.fileno(), f"\nhandclip: writes to {run.folder}{elsewhere()}\n".encode())
    return config, run


class Run:
    """The folder of one run: `run.json`, tables, figures, the split, and the status.

    Started by a person or by plain papermill, a run keeps its own status: "failed" when a cell raises,
    "interrupted" when the kernel ends first; one that is under way in another process is refused.
    Started by the launcher, the launcher keeps it.
    """

    def __init__(
        self, folder: Path, config: Parameters, read: Mapping[str, str] | None = None, *, keeps_status: bool = True
    ):
        self.folder, self._config = folder, config
        self._began = time.monotonic()
        self._keeps_status = keeps_status
        # what every caption of a run ends with, where test images chose the epoch
        self._label = f" ({SELECTED_ON_TEST})" if getattr(config, "validation", "") == "test" else ""
        self._kept: KeptCells | None = None
        ours = _watched._claim if _watched is not None and _watched.folder == folder else None
        self._claim: Claim | None = (ours or Claim(folder)) if keeps_status else None
        earlier = None if keeps_status else read_record(folder)
        self._record: dict[str, Any] = earlier or new_record(folder, config, read or {})
        try:
            self._note()
            if keeps_status:
                remove_results(folder)
        except HandClipError:
            if self._claim is not None and ours is None:
                self._claim.release()
            raise
        if keeps_status:
            self._watch()

    def show(self, figure: "Figure", name: str, alt: str, caption: str = "") -> None:
        """Save a figure as `figures/<name>.png` and show it; `alt` says what it shows.

        In the report that is its caption too, unless a shorter one is given for those who see the figure.
        """
        self._show(figure, name, alt, caption)

    def show_all(self, figures: "Mapping[str, tuple[Figure, str]]") -> None:
        """`show` of several figures: each with what it shows, by name."""
        for name, (figure, alt) in figures.items():
            self.show(figure, name, alt)

    def _show(self, figure: "Figure", name: str, alt: str, caption: str = "", **place: Any) -> None:
        _check_name(name)
        alt += self._label
        picture = as_png(figure, DPI)
        with whole_file(self.folder / "figures" / f"{name}.png") as private:
            private.write_bytes(picture)
        seen = {"caption": caption + self._label} if caption else {}
        about = {"image/png": about_figure(figure, alt) | seen}
        _display({"image/png": picture, "text/plain": alt}, about, **place)

    def live(self, draw: "Callable[..., Figure]", name: str, alt: str) -> Callable[..., None]:
        """A figure in one place of the notebook, drawn anew of what the result is called with.

        It is drawn at most every few seconds, but for a call with `last=True`.
        """
        drawn_at = float("-inf")

        def redraw(*values: Any, last: bool = False) -> None:
            nonlocal drawn_at
            if last or time.monotonic() - drawn_at >= SECONDS_BETWEEN_FIGURES:
                place: dict[str, Any] = {"display_id": f"handclip-{self.folder.name}-{name}", "update": drawn_at >= 0}
                self._show(draw(*values), name, alt, **place)
                drawn_at = time.monotonic()

        return redraw

    def table(self, frame: "pd.DataFrame", name: str, caption: str) -> None:
        """Save a table as `<name>.csv`, in full precision, and show it as `readable` does, escaped, with a caption."""
        from handclip_lib.evaluation.tables import claimed, readable

        _check_name(name)
        write_text(self.folder / f"{name}.csv", frame.to_csv(index=False))
        shown, claims = readable(frame), claimed(frame)
        weights, named = self._record.get("weights") or {}, set(frame.get("model", ()))
        models = [f"{model} {facts['fingerprint']}" for model, facts in weights.items() if model in named]
        caption += "" if len(frame) else "; none here"  # else its first line alone looks like a fault
        caption = html.escape(caption + self._label + (f"; weights: {', '.join(models)}" if models else ""))
        table = shown.to_html(index=False, escape=True, border=0, justify="left")
        table = table.replace(">", f"><caption>{caption}</caption>", 1)
        if claims is not None:  # rows that are no claim are grey
            head, body = table.split("<tbody>")
            first, *rows = body.split("<tr>")
            marks = ("<tr>" if claim else '<tr style="color: #666666">' for claim in claims)
            table = f"{head}<tbody>{first}" + "".join(mark + row for mark, row in zip(marks, rows, strict=True))
        about = {"text/html": {"texts": columns_of_text(frame, shown)}}
        _display({"text/html": table, "text/plain": shown.to_string(index=False)}, about)

    def conclude(self, answer: str, cautions: Iterable[str] = ()) -> None:
        """Show the answer to the notebook's question, and what must be said with it; the record keeps both.

        `answer` is one sentence made of the figures, without the full stop; `cautions` are sentences.
        """
        answer, warned = f"{answer}.", list(cautions)
        self._note(answer=answer, cautions=warned)
        listed = "".join(f"<li>{html.escape(caution)}</li>" for caution in warned)
        shown = f"<p><strong>{html.escape(answer)}</strong></p>" + (f"<ul>{listed}</ul>" if warned else "")
        _display({"text/html": shown, "text/plain": "\n- ".join([answer, *warned])}, {})

    def split(self, split: "Split") -> None:
        """Store the manifest and its checksum with the run."""
        split.write(self.folder)
        self._note(split={"checksum": split.checksum, **split.meta})

    def validation(self, folds: "Folds") -> None:
        """Store who validates beside the manifest, and say at every figure from here on what chose the epoch."""
        folds.write(self.folder)
        self._label = f" ({SELECTED_ON[folds.validation]})"
        self._note(validation=folds.facts())
        print(f"epoch {folds.said}")

    def trained_on(self, lineage: "Sequence[TrainedOn]") -> None:
        """Store what else than the split trains the weights, or had trained those that the training begins with."""
        from handclip_lib.models.lineage import cautions_of, write_lineage

        write_lineage(self.folder, lineage)
        self._note(trained_on=[one.facts() for one in lineage])
        print(*cautions_of(lineage), sep="\n", end="\n" if len(lineage) > 1 else "")

    def weights(self, model: "Encoder", name: str = "") -> None:
        """Note which weights a model has, and where they come from; `name` is what tables call it, else its own."""
        facts: dict[str, Any] = {"fingerprint": model.fingerprint, "source": model.source}
        if model.properties:  # another program's embeddings have none that we know
            facts["properties"] = model.properties.lines()
        self._note(weights=(self._record.get("weights") or {}) | {name or model.name: facts})

    def earlier(self, name: str, *notebooks: str) -> Path:
        """The folder of an earlier run, as `usable_run` finds it, and a note in the record that this one used it.

        "latest" is the newest that had succeeded when this run began.
        """
        used = self._record.setdefault("inputs", {})
        began_with = next((used[notebook] for notebook in notebooks if notebook in used), None)
        folder = inputs.usable_run((name == "latest" and began_with) or name, *notebooks)
        used[folder.name.partition("-")[0]] = folder.name
        self._note()
        return folder

    def trained(self, name: str) -> "Training | None":
        """An earlier training by notebook 03 or 04; None where the name is empty."""
        if not name:
            return None
        from handclip_lib.models.lineage import read_lineage
        from handclip_lib.models.trained import Training

        folder = self.earlier(name, *inputs.EARLIER["trained_run"])
        record = read_record(folder) or {}
        selected_on = str((record.get("validation") or {}).get("used") or record["parameters"].get("validation", "val"))
        self._label = f" ({SELECTED_ON.get(selected_on, selected_on)})"
        learnt = str(record["metrics"].get("learnt", "yes"))
        lineage = read_lineage(folder)
        return Training(folder, record["parameters"], lineage[0].split, learnt, selected_on, lineage)

    def finish(self, **metrics: float | int | str) -> None:
        """Record the headline figures, what the run left, and that it came to its end; as `refuse_other_input`."""
        inputs.refuse_other_input(self._config, self._record)
        write_text(self.folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        self._record |= {"left": inputs.contents(self.folder), "metrics": metrics, "reached_the_end": True}
        self._close("succeeded") if self._keeps_status else self._note()
        unlearnt = not_learnt(self._record)
        report = f"\nits report: handclip report {self.folder.name}" if self._keeps_status else ""
        print(f"finished{f', but {unlearnt}' if unlearnt else ''}: {self.folder}{report}")

    def _note(self, **facts: Any) -> None:
        self._record |= facts
        write_record(self.folder, self._record)

    def _close(self, status: str, error: str | None = None) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        self._note(status=status, error=error, finished=now(), seconds=seconds)
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def _watch(self) -> None:
        """Keep the status honest when a cell raises or the kernel ends."""
        global _watched
        if _watched is not None:
            atexit.unregister(_watched._at_exit)
            if _watched.folder != self.folder and _watched._record["status"] == "running":
                _watched._close("interrupted", "the guard cell started another run")
            _watched._keep_cells()
        elif shell := _shell():
            shell.events.register("post_run_cell", _after_cell)
        if (shell := _shell()) and "ipykernel" in sys.modules:
            from handclip_lib.runs.kept_cells import KeptCells, can_be_kept

            self._kept = KeptCells(shell) if can_be_kept(shell) else None
        _watched = self
        atexit.register(self._at_exit)

    def _keep_cells(self) -> None:
        """Keep what the cells showed, for the report, once the run has ended."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        try:
            kept.write(self.folder / "executed.ipynb", self._config.notebook)
        except HandClipError as error:
            print(f"The cells are not kept, so its report will lack them: {error}", file=sys.stderr)
        kept.stop()

    def _at_exit(self) -> None:
        if self._record["status"] == "running":
            self._close("interrupted", "the kernel ended before the run did")


_watched: Run | None = None


def _after_cell(result: Any) -> None:
    if _watched is None:
        return
    error = result.error_in_exec or result.error_before_exec
    if error is not None and _watched._record["status"] == "running":
        _watched._close("failed", f"{type(error).__name__}: {error}")
    if _watched._kept is not None:
        _watched._kept.end_cell(result)
        if _watched._record["status"] != "running":
            _watched._keep_cells()


def new_record(folder: Path, config: Parameters, read: Mapping[str, str]) -> dict[str, Any]:
    """The record of a run that begins now and reads what `what_is_read` says."""
    return {
        "id": folder.name, "notebook": config.notebook, "status": "running", "error": None,
        "parameters": config.model_dump(), "defaults": defaults(type(config)), "seed": config.seed,
        "started": now(), "finished": None, "seconds": None, "metrics": {}, "split": None,
        "reached_the_end": False, "versions": versions(), "git": commit_of_library(), "study": _study(),
        "process": this_process(), "read": dict(read), "inputs": inputs.earlier_runs(config),
        "command": f"notebooks/{config.notebook}.ipynb in a kernel of its own",
    }  # fmt: skip


def _study() -> dict[str, Any] | None:
    """The study a run is part of, and the commit of the user's own repository that it is kept in."""
    study, here = read_study(), project()
    return None if study is None or here is None else {"name": study.name, **(commit_of(here) or {})}


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise RunError(f"name={name!r}: use lower-case letters, digits and underscores")


def _shell() -> Any:
    """The IPython shell this runs in, without importing IPython where there is none."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module else None


def _display(data: dict[str, Any], metadata: dict[str, Any], **place: Any) -> None:
    if _shell() is not None:
        from IPython.display import display

        display(data, metadata=metadata, raw=True, **place)
