"""Text of others on a terminal: names, errors and values may hold signs that drive it, hide, or fake a line."""

from collections.abc import Sequence

PLURALS = {"person": "people", "identity": "identities", "query": "queries"}


def visible(text: object) -> str:
    """Text whose control signs, overrides of direction and lone surrogates are written out; its lines stay."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(value: object, most: int = 0) -> str:
    """`visible`, its line ends written out too, and cut to `most` characters where that is given."""
    text = str(value)
    if most and len(text) > most:
        text = text[: most - 1] + "…"
    return visible(text).replace("\n", "\\n")


def counted(n: int, noun: str) -> str:
    """So many of something: "1 image", "12,000 images", "2 people"; of several words the last is counted."""
    *before, last = noun.split(" ")
    return f"{n:,} {noun if n == 1 else ' '.join([*before, PLURALS.get(last, f'{last}s')])}"


def some_of(names: Sequence[str], most: int) -> str:
    """The first names, parted by commas, and that there are more: "anna, bert, …"."""
    return ", ".join([*names[:most], *["…"] * (len(names) > most)])


def in_units(size: int) -> str:
    """Bytes as a person reads them, in powers of 1000."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
