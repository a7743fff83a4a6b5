import pytest

from handclip_lib.backbone.load import load_backbone
from handclip_lib.errors import ConfigError
from handclip_lib.models.prompt_learner import build_prompts
from handclip_lib.parameters.parts import TEMPLATES


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny", device="cpu")


def test_a_template_holds_exactly_the_learnt_places_and_ends_where_its_text_ends(tiny):
    (placeholder,) = tiny.encode_words("X")
    for n_ctx in (1, 4, 8, 16, 66):
        prompts = build_prompts(tiny, TEMPLATES["identity"], n_ctx, "identity", ["a", "b"])
        text = tiny.tokenize(["A photo of a " + "X " * n_ctx + "hand."])
        assert prompts.tokens.tolist() == text.repeat(2, 1).tolist(), "as CLIP's tokenizer has it"
        assert prompts.slots.tolist() == [5, 5]
        assert prompts.tokens[0, 5 : 5 + n_ctx].tolist() == [placeholder] * n_ctx
        assert prompts.tokens[0].argmax() == 5 + n_ctx + 2


def test_the_slot_may_be_spelt_out(tiny):
    spelt = build_prompts(tiny, "A photo of a X X X X hand.", 4, "identity", ["a", "b"])
    short = build_prompts(tiny, "A photo of a {} hand.", 4, "identity", ["a", "b"])
    assert spelt.tokens.tolist() == short.tokens.tolist()
    assert spelt.slots.tolist() == short.slots.tolist()
    for start in ("{} hand", "X X hand"):
        assert build_prompts(tiny, start, 2, "identity", ["a", "b"]).slots.tolist() == [1, 1]


def test_names_stand_where_they_should_whatever_is_in_them(tiny):
    names = ["0000012", "anna {} 🖐", "{name}", "X X", ""]
    prompts = build_prompts(tiny, "the {name} hand, {} indeed", 3, "shared", names)
    for name, tokens, slot in zip(names, prompts.tokens.tolist(), prompts.slots.tolist(), strict=True):
        expected = [
            *tiny.encode_words("the"), *tiny.encode_words(name), *tiny.encode_words("hand,"),
            *tiny.encode_words("X X X"), *tiny.encode_words("indeed"),
        ]  # fmt: skip
        assert tokens[: len(expected) + 2] == [tiny.start_token, *expected, tiny.end_token]
        assert slot == 1 + len(expected) - 4


@pytest.mark.parametrize(
    ("template", "n_ctx", "context", "words"),
    [
        ("A photo of a hand.", 4, "identity", "0 slots.*write {} once, as in 'A photo of a {} hand.'"),
        ("A {} photo of a {} hand.", 4, "identity", "2 slots"),
        ("A X X photo of a X X hand.", 4, "identity", "2 slots"),
        ("A photo of a X X X hand.", 4, "identity", "spells 3 X and n_ctx=4"),
        ("A photo of a{} hand.", 4, "identity", "words of its own.*its tokens are .*'ax'"),
        ("A photo of a {} hand.", 78, "identity", "86 tokens long and tiny takes 77.*lower n_ctx by 9"),
        ("A photo of a {} hand." + " very long" * 40, 4, "identity", "92 tokens long"),
        ("A photo of a {} hand of {name}.", 4, "identity", "context='identity' does not: drop {name}"),
        ("A photo of a {} hand.", 4, "shared", "0 places for the name"),
        ("A {name} {name} {} hand.", 4, "shared", "2 places for the name"),
        ("{} {name}", 60, "shared", "the name '1234567890123456' is 78 tokens long"),
    ],
)
def test_what_is_no_template_is_refused_with_a_remedy(tiny, template, n_ctx, context, words):
    with pytest.raises(ConfigError, match=words):
        build_prompts(tiny, template, n_ctx, context, ["a", "1234567890123456"])
