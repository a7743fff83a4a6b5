import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from threading import Event, Thread

import numpy as np
import pandas as pd
import psutil
import pytest
import safetensors

from handclip_lib.backbone.load import load_backbone
from handclip_lib.errors import ConfigError, TrainingError
from handclip_lib.parameters.notebooks import ImageFinetune
from handclip_lib.training.__main__ import main, train
from handclip_lib.training.launch import PARAMETERS, launch_processes, launch_training
from handclip_lib.training.state import load_checkpoint

SMALL = {
    "drawn_subjects": 8, "drawn_images": 3, "epochs": 2, "n_identities": 2, "n_images": 2, "views": 1, "draws": 1,
    "device": "cpu",
}  # fmt: skip


def config(**more) -> ImageFinetune:
    return ImageFinetune(**SMALL | more)


@pytest.fixture
def two_cores(monkeypatch):
    """Two processes are let in where one core is lent, too."""
    monkeypatch.setattr("handclip_lib.training.launch.cores", lambda: 2)


@contextmanager
def listening() -> Iterator[set[str]]:
    """Addresses at which children of this process can be reached while the block goes on."""
    found: set[str] = set()
    ended = Event()

    def look() -> None:
        while not ended.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found.update(at.laddr.ip for at in child.net_connections("inet") if at.status == psutil.CONN_LISTEN)

    watching = Thread(target=look)
    watching.start()
    try:
        yield found
    finally:
        ended.set()
        watching.join()


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_a_notebook_trains_on_two_processes_as_on_one_and_nothing_outside_reaches_them(tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, processes in ((one, 1), (two, 2)):
        folder.mkdir()
        # frozen up to the last layer: batch norms inside a ResNet that learns see their process's share
        with listening() as reached:
            launch_training(config(processes=processes, unfreeze_blocks=0), folder)
    assert reached == {"127.0.0.1"}, "gloo listens there; none at all would be a test that saw nothing"
    assert "process 1 of 2" in capsys.readouterr().out
    assert not list(one.iterdir()), "one process is the notebook's own"
    (one / PARAMETERS).write_text((two / PARAMETERS).read_text())
    train(one)
    rows = [pd.DataFrame(load_checkpoint(folder / "image.safetensors")[1]["history"]) for folder in (one, two)]
    assert len(rows[0]) == 3
    for name in rows[0].columns.drop("seconds"):
        np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=1e-3, err_msg=name)
    best = load_backbone("tiny", weights=two / "best.safetensors", device="cpu")
    with safetensors.safe_open(two / "final.safetensors", "np") as final:
        assert set(final.keys()) == set(best.model.state_dict())


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_what_a_process_says_of_a_fault_reaches_the_notebook(tmp_path):
    shown = io.StringIO()
    with (
        pytest.raises(TrainingError, match=r"2 processes could not train: .*no weights at /nowhere\.pt"),
        redirect_stdout(shown),
    ):
        launch_training(config(processes=2, weights="/nowhere.pt"), tmp_path)
    assert "/nowhere.pt" in shown.getvalue()


def test_more_processes_than_gpus_are_refused_before_any_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(
        TrainingError, match="processes=4: each takes a GPU of its own, and there are 2; give at most 2"
    ):
        launch_training(config(processes=4, device="auto"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "gives no notebook"),
        ("- 1\n", "gives no notebook"),
        ("epochs: 2\n", "gives no notebook"),
        ("notebook: 05_evaluation\n", "'05_evaluation' trains no image tower"),
        ("notebook: 03_image_finetune\nepoch: 3\n", "did you mean epochs"),
    ],
)
def test_a_parameters_file_that_cannot_be_used_is_refused(tmp_path, capsys, text, said):
    if text is not None:
        (tmp_path / PARAMETERS).write_text(text)
    with pytest.raises(ConfigError, match=said):
        train(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize("failing", ["0", "1"])
def test_the_first_process_that_fails_ends_the_others(failing):
    heard: list[str] = []
    program = f"import os, time; os.environ['RANK'] == {failing!r} and 1 / 0; time.sleep(600)"
    assert not launch_processes([sys.executable, "-c", program], 2, heard.append)
    assert "ZeroDivisionError" in "".join(heard)


def test_an_interrupt_ends_the_processes():
    started: list[int] = []

    def hear(line: str) -> None:
        started.append(int(line))
        if len(started) == 2:
            raise KeyboardInterrupt

    program = "import os, time; os.write(1, b'%d\\n' % os.getpid()); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        launch_processes([sys.executable, "-c", program], 2, hear)
    assert not any(psutil.pid_exists(number) for number in started)
