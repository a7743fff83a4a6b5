from collections.abc import Callable

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@pytest.fixture(scope="session")
def drawn() -> Callable[[Figure], list[str]]:
    """Draw a figure as a report does and list its texts: none as mathematics, none too small, no legend outside it."""

    def draw(figure: Figure) -> list[str]:
        figure.set_canvas(FigureCanvasAgg(figure))  # a bare Figure's has no renderer
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]
        assert not [text.get_text() for text in texts if "$x" in text.get_text() and text.get_parse_math()]
        assert min(text.get_fontsize() for text in texts) >= 9
        frame = figure.bbox
        legends = [legend.get_window_extent() for axis in figure.axes if (legend := axis.get_legend())]
        assert all(box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y1 <= frame.y1 for box in legends)
        return [text.get_text() for text in texts]

    return draw
