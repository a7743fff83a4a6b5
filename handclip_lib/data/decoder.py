"""One file to pixels: which formats are read and which are only known, how deep samples are scaled, what is refused.

Pillow knows forty more. A reader that nobody needs is a way in, and one of them starts Ghostscript.
"""

import sys
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

DECODER = 3  # goes into the cache's key: raise it when the pixels of some file would change
IMAGE_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"), "PNG": (".png", ".apng"), "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"), "WebP": (".webp",), "AVIF": (".avif",), "HEIF": (".heic", ".heif", ".hif"),
}  # fmt: skip
ONLY_KNOWN = {
    "camera raw": (
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mos", ".mrw", ".nef", ".nrw",
        ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    ),
    "GIF": (".gif",), "JPEG 2000": (".jp2", ".j2k", ".jpf", ".jpx"), "JPEG XL": (".jxl",), "Photoshop": (".psd",),
    "portable map": (".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm"), "PCX": (".pcx",), "TGA": (".tga",),
    "OpenEXR": (".exr",), "Radiance": (".hdr",), "DICOM": (".dcm",), "FITS": (".fits",), "icon": (".ico", ".icns"),
    "drawing": (".svg", ".eps", ".ps"), "film": (".mov", ".mp4", ".avi", ".m4v", ".mkv", ".3gp"),
}  # fmt: skip
"""What people have beside photographs: no reader takes it, and none loses it without a word."""
KIND_OF_SUFFIX = {suffix: kind for kinds in (IMAGE_FORMATS, ONLY_KNOWN) for kind in kinds for suffix in kinds[kind]}
HEIF_REMEDY = 'install pillow-heif: pip install "handclip[heif]"'
CONVERT = "save it as JPEG, PNG or TIFF"
MOST_PIXELS = 89_478_485  # of what is decoded: Pillow's own limit, a quarter of a gigabyte of RGB
MOST_JPEG_PIXELS = 256_000_000  # of a JPEG, which is decoded at a reduced size; telephones have 200 megapixels
AT_MOST = "at most 89 megapixels, in a JPEG 256"
Image.MAX_IMAGE_PIXELS = MOST_JPEG_PIXELS  # `open_image` refuses less; a JPEG between the two limits shall open
WHITES = (1, 255, 1023, 4095, 16_383, 65_535, 2**24 - 1, 2**31 - 1)
"""Largest values of samples that files hold: floats in 0..1, and 8, 10, 12, 14, 16, 24 and 31 bits."""
DEEP_MODES = {"I;16": "16-bit", "I;16B": "16-bit", "I;16L": "16-bit", "I": "32-bit", "F": "floating-point"}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""How a photograph is turned upright, by EXIF's orientation; from 5 on its sides change places."""
JPEGS = ("JPEG", "MPO")  # to Pillow; many telephones write several pictures in one file, the photograph first
BYTES, PLAIN_BYTES = 24, 12  # a pixel of what is decoded, at most: 16-bit colours are read twice; plain: RGB and grey
PROGRESSIVE = 6  # bytes a pixel of a whole JPEG, where its passes are kept until the last
BLOCK = 256  # rows of deep samples scaled at once: the whole in float64 would take eight bytes a sample
_OTHER_CONTENT = (  # that people have under such names, by place and bytes
    (4, b"ftypavif", "AVIF"), (4, b"ftyphei", "HEIF"), (4, b"ftyphev", "HEIF"), (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"), (4, b"ftypcrx", "camera raw"), (4, b"ftyp", "film"), (0, b"GIF8", "GIF"),
    (0, b"%!PS", "PostScript"), (0, b"\xc5\xd0\xd3\xc6", "PostScript"), (0, b"%PDF", "PDF"), (0, b"8BPS", "Photoshop"),
    (4, b"jP  ", "JPEG 2000"), (4, b"JXL ", "JPEG XL"), (0, b"\xff\x0a", "JPEG XL"),
)  # fmt: skip
Resolution = int | tuple[int, int]
"""Side in pixels of a square, or height and width."""


def is_image(name: Path | str) -> bool:
    """Whether a file's name is that of an image or a film, of a kind that is read or not."""
    return Path(name).suffix.lower() in KIND_OF_SUFFIX


def file_fault(name: Path | str) -> str:
    """Why a file of this name is no photograph that can be read, and what to do; "" where its kind is read."""
    suffix = Path(name).suffix.lower()
    if (kind := KIND_OF_SUFFIX.get(suffix)) is None:
        return f"its suffix {suffix or '(none)'} is none of a photograph's; {CONVERT}"
    return "" if kind in readable_formats() else f"{kind} ({suffix}) is not read; {_remedy(kind)}"


def _remedy(kind: str) -> str:
    return HEIF_REMEDY if kind == "HEIF" else "save a frame of it as JPEG or PNG" if kind == "film" else CONVERT


@cache
def readable_formats() -> tuple[str, ...]:
    """Those of `IMAGE_FORMATS` that can be read here: AVIF where Pillow was built with it, HEIF with pillow-heif."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        heif = False
    else:  # its thumbnails would be decoded in place of the photograph
        register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
        heif = True
    there = {"AVIF": features.check("avif"), "HEIF": heif}
    return tuple(name for name in IMAGE_FORMATS if there.get(name, True))


def open_image(source: Path | BytesIO) -> Image.Image:
    """Open an image of one of `readable_formats`, whatever its name; everything that opens an image does it here.

    Raises:
        UnidentifiedImageError: It is of another format, or none.
        DecompressionBombError: It has too many pixels; the text says what to do.
        Exception: A reader may raise anything of a damaged file.
    """
    image = Image.open(source, formats=[name.upper() for name in readable_formats()])
    if image.width * image.height > (MOST_JPEG_PIXELS if image.format in JPEGS else MOST_PIXELS):
        image.close()
        raise Image.DecompressionBombError(
            f"{image.width}×{image.height} pixels are too many ({AT_MOST}); make it smaller or a JPEG"
        )
    return image


@dataclass(frozen=True)
class Header:
    """What a file's head says of its image.

    Attributes:
        format, mode: Pillow's.
        width, height: Pixels, as they lie in the file.
        samples: "16-bit", "32-bit", "floating-point", "12-bit" where the file says so itself; "" for 8 bits or fewer.
        turn: EXIF's orientation, 1..8.
        fault: Why the orientation cannot be read; it is 1 then.
    """

    format: str
    mode: str
    width: int
    height: int
    samples: str
    turn: int
    fault: str

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as the photograph is looked at."""
        return _upright((self.width, self.height), self.turn)


def _upright(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return size[::-1] if turn > 4 else size


def read_header(path: Path) -> Header | str:
    """Look at the head of one file, or say why it cannot be read."""
    try:
        with open_image(path) as image:
            samples = _samples_of(image)
            if samples and (why := _not_exact(image)):
                return why
            return Header(image.format or "", image.mode, *image.size, samples, *_orientation(image))
    except Exception as error:  # a reader may raise anything of a damaged file
        return _reason(path, error)


def sample_extremes(path: Path) -> list[float] | str:
    """The smallest and the largest sample of a file of more than 8 bits a sample, or why it cannot be read."""
    try:
        with open_image(path) as image:
            values = _deep_values(path, image)[0]
    except Exception as error:  # a reader may raise anything of a damaged file
        return _reason(path, error)
    found = [float(values.min()), float(values.max())]  # NaN where there is any
    return found if np.isfinite(found).all() else "it holds samples that are no numbers; save it again"


def decoding_bytes(header: Header, resolution: Resolution = 0, fit: str = "stretch", exact: bool = False) -> int:
    """Memory that `decode_file` takes for a file, at most; all its pixels by default."""
    pixels, kept = header.width * header.height, 0
    if header.format in JPEGS and resolution and not exact:
        width, height = _draft_size(header.upright, resolution, fit)
        scale = min(header.upright[0] // width, header.upright[1] // height)
        pixels, kept = pixels // max(s for s in (1, 2, 4, 8) if s <= max(1, scale)) ** 2, PROGRESSIVE * pixels
    return kept + pixels * (PLAIN_BYTES if header.mode in ("RGB", "L") and not header.samples else BYTES)


def decode_file(
    path: Path, resolution: Resolution, fit: str = "stretch", *, white: float = 0, exact: bool = False,
    interpolation: str = "bicubic",
) -> np.ndarray | str:  # fmt: skip
    """Decode one file to uint8 (height, width, 3), or say why it cannot be done and what to do.

    Args:
        resolution: See `Resolution`.
        fit: See `decode_images`.
        white: The sample that becomes 255, of a file of more than 8 bits a sample; 0 finds it in this file alone.
        exact: Decode a JPEG in full; else at a reduced size, never below the size wanted.
    """
    try:
        with open_image(path) as image:
            samples = _samples_of(image)  # what is loaded no longer says
            if image.format in JPEGS and not exact:
                turn = _orientation(image)[0]
                image.draft("RGB", _upright(_draft_size(_upright(image.size, turn), resolution, fit), turn))
            if image.width * image.height > MOST_PIXELS:
                said = f"{image.width}×{image.height} pixels are too many to decode in full"
                return f"{said} (at most 89 megapixels); make it smaller, or decode=fast"
            image.load()
            turn = _orientation(image)[0]  # PNG's may stand behind its pixels
            shallow = _eight_bit(path, image, white) if samples else image
            return np.asarray(_fitted(_rgb(shallow, turn), resolution, fit, interpolation))
    except Exception as error:  # a reader may raise anything of a damaged file
        return _reason(path, error)


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in words that are the same for all that fail alike."""
    if isinstance(error, OSError) and error.errno:
        absent = isinstance(error, FileNotFoundError)
        return "the file is absent" if absent else f"it cannot be read ({error.strerror}); make it readable"
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path)
    if isinstance(error, Image.DecompressionBombError):
        return said if "megapixels" in (said := str(error)) else f"its pixels are too many ({AT_MOST}); make it smaller"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is: it is damaged, or make it smaller"
    said = str(error).split(" (")[0] or type(error).__name__  # how many bytes lack is another reason for each
    return f"it is damaged or cut short, or of a rare kind ({said}); copy it again or {CONVERT}"


def _unidentified(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        return "the file is empty (0 bytes); copy it again"
    known = ", ".join(readable_formats())
    found = next((name for at, mark, name in _OTHER_CONTENT if start[at:].startswith(mark)), None)
    if found in readable_formats():
        return f"it is damaged or cut short ({found}); copy it again"
    return f"its content is {found}, not one of {known}; {_remedy(found)}" if found else f"it is not an image ({known})"


def _orientation(image: Image.Image) -> tuple[int, str]:
    """EXIF's orientation, 1..8, and why it cannot be read: then the pixels stay as they lie."""
    if image.format == "TIFF":  # turns itself when it is loaded
        return 1, ""
    try:
        found = Image.Image.getexif(image).get(0x0112, 1)  # PNG's own reads all pixels for it
    except Exception as error:  # of a mistyped tag a reader may raise anything
        return 1, f"its EXIF cannot be read ({error})"
    if isinstance(found, int) and 1 <= found <= 8:
        return found, ""
    return 1, f"its EXIF gives the orientation {found!r}"


def _rawmode(image: Any) -> str:
    """How the samples lie in the file, in Pillow's words."""
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if args and isinstance(args, tuple) else args)


def _samples_of(image: Image.Image) -> str:
    """`Header.samples` of an opened image."""
    colours = "16-bit" if ";16" in _rawmode(image) and image.mode in ("RGB", "RGBA") else ""
    return "12-bit" if _rawmode(image) == "I;12" else DEEP_MODES.get(image.mode, colours)


def _not_exact(image: Image.Image) -> str:
    """Why the deep samples of an opened image cannot be had, "" where they can: Pillow keeps the high byte of some."""
    planar = getattr(image, "_planar_configuration", 1) == 2 and image.mode in ("RGB", "RGBA")
    if _rawmode(image).startswith("LA;16") or planar:
        return f"grey with transparency, or planes, of 16 bits a sample are not read exactly; {CONVERT} without them"
    return ""


def _deep_values(path: Path, image: Image.Image) -> tuple[np.ndarray, Image.Image | None]:
    """Samples of more than 8 bits, (height, width) or (height, width, 3), and the transparency of 8 bits there is.

    Pillow has no mode of 16 bits and several colours: it keeps the byte that is high in the order of bytes that it is
    told; so the file is read once in each order.
    """
    if image.mode not in ("RGB", "RGBA"):
        return np.asarray(image), None
    other: Any
    with open_image(path) as other:
        other.tile = [tile._replace(args=_other_order(tile.args)) for tile in other.tile]
        values = np.asarray(image)[..., :3].astype(np.uint16) << 8
        values |= np.asarray(other)[..., :3]
    return values, image.getchannel("A") if image.mode == "RGBA" else None


def _other_order(args: Any) -> Any:
    """What a tile's decoder is told, such as "RGB;16L", alone or first of several, with the other order of bytes."""
    if isinstance(args, tuple):
        return (_other_order(args[0]), *args[1:])
    native = "L" if sys.byteorder == "little" else "B"
    return args[:-1] + ("B" if args[-1].replace("N", native) == "L" else "L")


def white_of(peak: float, whole: bool) -> float:
    """What samples may reach, from the largest that there is: one of `WHITES`; 0 where it is not plain.

    The largest must lie in the upper half of that: 1,500 may be a dark photograph of 12 bits, or a darker one of 16.
    `whole`: the samples are whole numbers, so none lies above; resized ones may, a little.
    """
    white = next((white for white in WHITES if peak <= white * (1 if whole else 1.05)), 0)
    return white if peak > white / 2 else 0


def _eight_bit(path: Path, image: Image.Image, white: float) -> Image.Image:
    """Deep samples as 8 bits: `white` becomes 255, what lies outside 0..`white` is cut off."""
    values, transparency = _deep_values(path, image)
    white = white or white_of(float(values.max(initial=0)), values.dtype.kind != "f")
    if not white:
        raise ValueError("what its samples may reach is not plain: give sample_range")
    flat = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), BLOCK):
        flat[start : start + BLOCK] = np.clip(values[start : start + BLOCK] * (255 / white), 0, 255).round()
    if getattr(image, "tag_v2", {}).get(262) == 0:  # TIFF's WhiteIsZero, which Pillow heeds for 8 bits alone
        flat = 255 - flat
    made = Image.fromarray(flat)
    if transparency is not None:
        made.putalpha(transparency)
    return made


def _rgb(image: Image.Image, turn: int) -> Image.Image:
    """Any mode of 8 bits as upright RGB; transparency lies over white, as the hands do."""
    if turn in TURNS:
        image = image.transpose(TURNS[turn])
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        ground = Image.new("RGBA", over.size, "white")
        image = Image.alpha_composite(ground, over)
    return image.convert("RGB")


def height_and_width(resolution: Resolution) -> tuple[int, int]:
    """Of a square by its side, or as they are."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def _draft_size(size: tuple[int, int], resolution: Resolution, fit: str) -> tuple[int, int]:
    """The smallest width and height a JPEG may be decoded to: the result's sides stay at or above what is wanted."""
    height, width = height_and_width(resolution)
    if fit == "stretch":
        return width, height
    scale = (max if fit == "crop" else min)(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _fitted(image: Image.Image, resolution: Resolution, fit: str, interpolation: str) -> Image.Image:
    (height, width), by = height_and_width(resolution), Image.Resampling[interpolation.upper()]
    if fit == "stretch":
        return image.resize((width, height), by)
    if fit == "pad":
        return ImageOps.pad(image, (width, height), by, "white")
    # The side that needs the larger scale is met exactly: OpenAI's way, for any proportions.
    if width * image.height >= height * image.width:
        size = (width, int(width * image.height / image.width))
    else:
        size = (int(height * image.width / image.height), height)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.resize(size, by).crop((left, top, left + width, top + height))
