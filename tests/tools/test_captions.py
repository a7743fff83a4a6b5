import numpy as np
import pytest

from handclip_lib.errors import DataError
from tools.captions import FACTS, UNSAID, caption_of, described, facts_of

RECORD = {
    "side": "left", "view": "palmar", "skin_color": "dark", "gender": "female", "accessories": True,
    "nail_polish": False, "age": 31,
}  # fmt: skip
WORDS = {
    "side": {"right": ("right",), "left": ("left",)},
    "view": {"dorsal": ("dorsal", "back"), "palmar": ("palmar", "palm of")},
    "skin_color": {name: (f"{name} skin",) for name in FACTS["skin_color"]},
    "gender": {"female": ("woman", "female"), "male": (" man", ", male")},
    "accessories": {True: ("with accessories", "wearing accessories"), False: ("without accessories",)},
    "nail_polish": {True: ("with nail polish", "painted nails"), False: ("without nail polish",)},
}


def records(n: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [{name: values[rng.integers(len(values))] for name, values in FACTS.items()} for _ in range(n)]


def test_a_caption_states_what_it_says_it_states_and_nothing_untrue():
    rng = np.random.default_rng(1)
    for record, facts in zip(records(600), facts_of(records(600)), strict=True):
        caption = caption_of(facts, rng)
        for (name, values), said in zip(FACTS.items(), caption.says, strict=True):
            found = [value for value in values if any(word in caption.text for word in WORDS[name][value])]
            if name == "skin_color" and "very fair" in found:
                found = ["very fair"]  # which contains the words of "fair"
            if name == "accessories" and "without accessories" in caption.text:
                found = [False]
            if name == "nail_polish" and "without nail polish" in caption.text:
                found = [False]
            assert found == ([] if said == UNSAID else [record[name]]), caption


def test_every_caption_states_side_or_view_and_phrasings_are_many():
    rng = np.random.default_rng(0)
    captions = [caption_of(facts_of([RECORD])[0], rng) for _ in range(400)]
    assert all(caption.says[0] != UNSAID or caption.says[1] != UNSAID for caption in captions)
    assert len({caption.text for caption in captions}) > 150


def test_a_caption_is_true_of_the_photographs_that_share_all_it_says():
    rng, rows = np.random.default_rng(2), records(40)
    facts = facts_of(rows)
    captions = [caption_of(row, rng) for row in facts]
    true = described(captions, facts)
    for photograph, record in enumerate(rows):
        for number, caption in enumerate(captions):
            agree = [
                said in (UNSAID, FACTS[name].index(record[name]))
                for name, said in zip(FACTS, caption.says, strict=True)
            ]
            assert true[photograph, number] == all(agree)
    assert true.diagonal().all()
    assert 0 < true.mean() < 1


def test_a_value_without_a_word_is_refused_by_name():
    with pytest.raises(DataError, match="skin_color=None has no caption; the values are very fair"):
        facts_of([RECORD | {"skin_color": None}])
