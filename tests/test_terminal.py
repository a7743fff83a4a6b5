import pytest

from handclip_lib.errors import DataError
from handclip_lib.terminal import counted, one_line, visible


@pytest.mark.parametrize("sign", ["\x1b", "\x9b", "\a", "\r", "\b", "\u202e", "\u2066", "\u2028", "\u200f", "\ud800"])
@pytest.mark.matrix("hostile text", "names, values and errors of others", "written out on the terminal")
def test_signs_that_drive_or_turn_a_terminal_are_written_out(sign: str):
    assert visible(f"a{sign}b") == f"a{sign.encode('unicode_escape').decode()}b"
    error = DataError(f"a{sign}b cannot be read\n  name another")
    assert sign not in str(error)
    assert str(error).endswith("\n  name another"), "lines of ours stay"
    assert sign not in "".join(error._render_traceback_())


def test_a_field_is_one_line_and_not_longer_than_asked():
    assert one_line("a\nb") == "a\\nb"
    assert one_line("é × ü 手") == "é × ü 手"
    assert one_line("abcdef", 4) == "abc…"


def test_one_of_something_is_no_plural():
    assert [counted(n, "image") for n in (0, 1, 12_000)] == ["0 images", "1 image", "12,000 images"]
    assert [counted(n, "person") for n in (0, 1, 2)] == ["0 people", "1 person", "2 people"]
    assert [counted(n, "later query") for n in (1, 2)] == ["1 later query", "2 later queries"]
