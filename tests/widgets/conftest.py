import pytest

from handclip_lib.widgets import panel


@pytest.fixture(autouse=True)
def coarse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a sixteenth of the pixels, where a test does not look at them."""
    if request.path.stem != "test_panel":
        monkeypatch.setattr(panel, "DPI", 36)
