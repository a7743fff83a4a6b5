"""What a figure and a table say of themselves beside what is seen, for a report that must know what it may show."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def as_png(figure: "Figure", dpi: float) -> bytes:
    """The pixels `savefig` writes of a figure, by one drawing: it draws all twice, once for the layout alone.

    As RGB, for no figure is transparent, and packed lightly: in under half the time for the same size.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    buffer, before = BytesIO(), (figure.canvas, figure.dpi)
    figure.dpi = dpi
    try:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        picture = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
        picture.save(buffer, "png", dpi=(dpi, dpi), compress_level=2)
    finally:
        figure.dpi = before[1]
        figure.set_canvas(before[0])
    return buffer.getvalue()


def about_figure(figure: "Figure", alt: str) -> dict[str, Any]:
    """Metadata of a figure's picture: `alt`, `width` in CSS pixels, whether it holds photographs, and its texts.

    A photograph is what is drawn in colours of its own: a matrix has values, and its colours are a map's. Texts are
    those of the last drawing, but for ticks that an axis numbers by itself.
    """
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    given = (FixedFormatter, FuncFormatter, StrCategoryFormatter)
    sides = [side for axis in figure.axes for side in (axis.xaxis, axis.yaxis)]
    by_itself = [side for side in sides if not isinstance(side.get_major_formatter(), given)]
    numbered = {part for side in by_itself for part in side.findobj()} - {side.label for side in sides}
    parts = figure.findobj(lambda part: hasattr(part, "get_array") or hasattr(part, "get_text"))
    arrays = [part.get_array() for part in parts if hasattr(part, "get_array")]
    texts = {str(part.get_text()) for part in parts if hasattr(part, "get_text") and part not in numbered}
    return {
        "alt": alt, "width": int(figure.get_figwidth() * 96),
        "photographs": any(array is not None and array.ndim == 3 for array in arrays),
        "texts": sorted(texts - {""}),
    }  # fmt: skip


def columns_of_text(frame: "pd.DataFrame", shown: "pd.DataFrame") -> list[int]:
    """Places of the columns of a table as it is shown, `readable(frame)`, that are no numbers in the table itself."""
    from handclip_lib.evaluation.tables import heading

    named = {heading(str(name)) for name in frame if frame[name].dtype.kind not in "ifub"}
    return [place for place, name in enumerate(shown.columns) if name in named]
