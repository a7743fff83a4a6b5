"""The small picture of a run in the index: hundreds of them must load faster than one figure."""

import base64
import io
import re
from pathlib import Path

from PIL import Image

from handclip_lib.data.decoder import open_image
from handclip_lib.files import whole_file

THUMBNAIL = "thumbnail.png"
SIZE = (288, 144)  # twice what the index shows, for dense screens
COLOURS = 64
TELLING = ("forest", "cmc", "curves", "learning_curves", "transform")
"""Names of the figures that say most of a run, the first that is there being taken."""
INLINED = re.compile(r'src="data:image/(?:png|jpeg);base64,([^"]+)"')


def most_telling(run_folder: Path) -> Path | None:
    """The figure a run is known by: one of `TELLING`, else the first that was drawn; None without figures."""
    figures = [run_folder / "figures" / f"{name}.png" for name in TELLING]
    drawn = sorted((run_folder / "figures").glob("[!.]*.png"), key=lambda path: (path.stat().st_mtime, path.name))
    return next((path for path in (*figures, *drawn) if path.is_file()), None)


def write_thumbnail(run_folder: Path, cells: str) -> None:
    """Write `thumbnail.png` of a figure, else of the first picture in the HTML of the cells; none where none is sound.

    Raises:
        WriteError: The file cannot be written.
    """
    figure, inlined = most_telling(run_folder), INLINED.search(cells)
    path = run_folder / THUMBNAIL
    try:
        source = figure.read_bytes() if figure else base64.b64decode(inlined[1]) if inlined else b""
        small = _small(source)
    except (OSError, ValueError, SyntaxError):  # no picture, or a damaged one: a report needs none
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as private:
        private.write_bytes(small)


def _small(picture: bytes) -> bytes:
    with open_image(io.BytesIO(picture)) as opened:
        flat = Image.new("RGBA", opened.size, "white")
        flat.alpha_composite(opened.convert("RGBA"))
    flat.thumbnail(SIZE)
    buffer = io.BytesIO()
    flat.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(buffer, "png", optimize=True)
    return buffer.getvalue()
