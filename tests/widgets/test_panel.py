import base64
import html
import io
from threading import Event

import ipywidgets
import pytest
from matplotlib.figure import Figure
from PIL import Image

from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.widgets.panel import Job, Panel


def bars(count: int = 3, colour: str = "red", grid: bool = False) -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(count), range(1, count + 1), color=colour)
    axes.grid(grid)
    return figure


def _bundle(panel: Panel) -> tuple[dict, dict]:
    return panel._repr_mimebundle_()


def test_draws_once_when_built_and_once_per_change():
    calls = []

    def function(count: int) -> Figure:
        calls.append(count)
        return bars(count)

    control = ipywidgets.IntSlider(4, 1, 9)
    panel = Panel(function, alt="bars", count=control)
    first = panel.figure
    assert calls == [4]
    control.value = 7
    assert calls == [4, 7]
    assert panel.values == {"count": 7}
    assert panel.figure is not first
    assert len(panel.figure.axes[0].patches) == 7


def test_the_bundle_carries_a_png_with_alt_text_beside_the_live_view():
    data, metadata = _bundle(Panel(bars, alt="Bars of rising height", count=(1, 9)))
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/plain", "image/png"}
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as image:
        assert image.size == (432, 288)  # 3×2 inches at 144 pixels
    about = {"alt": "Bars of rising height (count: 3)", "width": 288, "photographs": False, "texts": []}
    assert metadata == {"image/png": about}


def test_the_png_follows_the_controls():
    panel = Panel(bars, alt="bars", count=(1, 9), colour=["red", "blue"])
    before = _bundle(panel)[0]["image/png"]
    panel.controls["colour"].value = "blue"
    assert _bundle(panel)[0]["image/png"] != before
    assert "colour: blue" in _bundle(panel)[1]["image/png"]["alt"]


@pytest.mark.parametrize(
    ("argument", "given", "kind", "first"),
    [
        ("count", (1, 9), ipywidgets.IntSlider, 3),  # the function's default
        ("colour", ["blue", "red"], ipywidgets.Dropdown, "red"),
        ("colour", "green", ipywidgets.Text, "green"),
        ("grid", True, ipywidgets.Checkbox, True),
    ],
)
def test_shorthand_becomes_a_labelled_control(argument: str, given: object, kind: type, first: object):
    panel = Panel(bars, alt="bars", **{argument: given})
    control = panel.controls[argument]
    assert type(control) is kind
    assert control.description == argument
    assert panel.values == {argument: first}


def test_a_dragged_slider_redraws_only_when_it_is_let_go():
    assert Panel(bars, alt="bars", count=(1, 9)).controls["count"].continuous_update is False


def test_a_fault_at_the_start_stops_the_run():
    with pytest.raises(ZeroDivisionError):
        Panel(lambda count: bars(1 // count), alt="bars", count=ipywidgets.IntSlider(0, 0, 3))


def test_a_fault_after_a_click_is_shown_escaped_and_the_next_change_recovers():
    def function(name: str) -> Figure:
        if name.startswith("<"):
            raise ValueError(f"no identity {name}")
        return bars()

    panel = Panel(function, alt="bars", name="1000007")
    good = panel.figure
    panel.controls["name"].value = "<script>alert(1)</script>"
    data, metadata = _bundle(panel)
    assert data["text/plain"] == "ValueError: no identity <script>alert(1)</script>"
    assert "image/png" not in data
    assert metadata == {}
    assert "<script" not in panel._picture.value
    assert panel.figure is good
    panel.controls["name"].value = "1000008"
    assert "image/png" in _bundle(panel)[0]


def test_alt_text_is_escaped_in_the_live_view():
    panel = Panel(bars, alt='"><img src=x onerror=alert(1)>', count=(1, 9))
    assert panel._picture.value.count("<img") == 1


def test_refuses_what_is_no_control_and_what_is_no_figure():
    with pytest.raises(TypeError, match="count=None"):
        Panel(bars, alt="bars", count=None)
    with pytest.raises(TypeError, match="returned int"):
        Panel(lambda: 3, alt="three")


def test_with_a_button_only_a_press_draws_again():
    calls = []

    def function(count: int, job: Job | None = None) -> Figure:
        calls.append(count)
        return bars(count)

    panel = Panel(function, alt="bars", button="train", count=ipywidgets.IntSlider(4, 1, 9))
    assert calls == [4], "a headless run has the figure without a press"
    panel.controls["count"].value = 7
    assert calls == [4]
    panel.job.button.click()
    panel.job.wait()
    assert calls == [4, 7]
    assert not panel.job.button.disabled


def test_work_behind_a_button_leaves_the_kernel_free_says_how_far_it_is_and_can_be_cancelled():
    half, goes_on = Event(), Event()

    def function(count: int, job: Job | None = None) -> Figure:
        if job is not None:
            job.tell(1, 2, "epoch 1 of 2")
            half.set()
            goes_on.wait(10)
        return bars(1 if job is not None and job.stopped() else count)

    panel = Panel(function, alt="bars", button="train", count=ipywidgets.IntSlider(4, 1, 9))
    panel.controls["count"].value = 7
    panel.job.button.click()
    assert half.wait(10)
    assert (panel.job.button.disabled, panel.job.cancel.disabled) == (True, False)
    assert (panel.job._bar.value, panel.job._bar.layout.visibility) == (0.5, "visible")
    assert "epoch 1 of 2" in panel.job._said.value
    panel.controls["count"].value = 9  # too late for this one
    panel.job.cancel.click()
    assert panel.job.cancel.disabled
    goes_on.set()
    panel.job.wait(10)
    assert len(panel.figure.axes[0].patches) == 1, "it was asked to stop"
    assert "count: 7" in panel.alt
    assert (panel.job.button.disabled, panel.job.cancel.disabled) == (False, True)
    assert "cancelled" in panel.job._said.value
    panel.job.button.click()
    panel.job.wait(10)
    assert len(panel.figure.axes[0].patches) == 9, "the next one is not asked to"


def test_a_fault_in_the_thread_is_shown_and_the_button_works_again():
    control = ipywidgets.IntSlider(2, 0, 3)
    panel = Panel(lambda count, job=None: bars(6 // count), alt="bars", button="train", count=control)
    panel.controls["count"].value = 0
    panel.job.button.click()
    panel.job.wait(10)
    assert "ZeroDivisionError" in panel._picture.value
    assert "failed" in panel.job._said.value
    assert not panel.job.button.disabled
    panel.controls["count"].value = 2
    panel.job.button.click()
    panel.job.wait(10)
    assert "done" in panel.job._said.value


def test_a_panel_of_parameters_says_the_command():
    config = PromptLearning(epochs=5)
    panel = Panel(
        lambda n_ctx, template: bars(n_ctx), alt="bars", config=config,
        n_ctx=ipywidgets.IntSlider(4, 1, 9), template=ipywidgets.Text(""),
    )  # fmt: skip
    assert "<code>handclip run 02 -p epochs 5</code>" in panel._hint.value
    panel.controls["n_ctx"].value = 8
    panel.controls["template"].value = "a {} hand of <b>"
    said = html.unescape(panel._hint.value)
    assert "<code>handclip run 02 -p n_ctx 8 -r template 'a {} hand of <b>' -p epochs 5</code>" in said
    assert "<b>" not in panel._hint.value
    with pytest.raises(TypeError, match="count: no parameter"):
        Panel(bars, alt="bars", config=config, count=(1, 9))


def test_frames_hold_the_figure_of_every_choice_and_the_control_stays():
    choice = ipywidgets.SelectionSlider(options=[("one", 1), ("six", 6)], value=6)
    panel = Panel(bars, alt="bars", frames="count", count=choice)
    frames = _bundle(panel)[1]["image/png"]["frames"]
    assert [label for label, _ in frames] == ["one", "six"]
    assert frames[0][1] != frames[1][1] == _bundle(panel)[0]["image/png"]
    assert choice.value == 6
    many = ipywidgets.SelectionSlider(options=range(1, 14), value=2)
    with pytest.raises(TypeError, match="13 choices; a report holds at most 12"):
        _bundle(Panel(bars, alt="bars", frames="count", count=many))


def test_the_alternative_text_says_what_stands_for_an_empty_control():
    template = ipywidgets.Text("", placeholder="A photo of a {} hand.")
    panel = Panel(lambda template: Figure(), alt="Curves", template=template)
    assert panel.alt == "Curves (template: A photo of a {} hand.)"
