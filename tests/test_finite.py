"""NaN and infinity are refused in their own words wherever arrays enter; none comes out as a figure."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from handclip_lib.backbone.load import TINY_WEIGHTS, load_backbone
from handclip_lib.data.manifest import Split
from handclip_lib.errors import BackboneError, EvaluationError, HandClipError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import identity_interval
from handclip_lib.evaluation.ranking.reranking import alpha_query_expansion, rerank_similarity
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.studies.prompts import PROMPTS, PromptTask, zero_shot
from handclip_lib.evaluation.verification.error_rates import verification
from handclip_lib.finite import require_finite
from handclip_lib.models.trained import PROMPTS as PROMPTS_FILE
from handclip_lib.models.trained import prompt_texts, save_texts

GOOD = np.eye(4, dtype=np.float32)
PEOPLE = np.array(["a", "b", "c", "d"])


def spoilt(value: float) -> np.ndarray:
    found = GOOD.copy()
    found[1, 2] = value
    return found


def accuracy(text: np.ndarray) -> object:
    features = Features(tuple("wxyz"), GOOD)
    return PromptTask(tuple("abcd"), tuple("wxyz"), np.arange(4), (), np.arange(0), features).accuracy(text)


ENTRIES: dict[str, tuple[Callable[[np.ndarray], object], str]] = {
    "embeddings": (lambda bad: Features.normalised("wxyz", bad), "the embedding of x is not finite"),
    "saved embeddings": (lambda bad: Features(tuple("wxyz"), bad), r"embeddings of 4 images: 1 of 16 values are not"),
    "zero-shot images": (lambda bad: zero_shot(bad, lambda t: GOOD[: len(t)], PROMPTS), "embeddings of the images: 1"),
    "zero-shot texts": (
        lambda bad: zero_shot(GOOD, lambda t: bad[: len(t)], PROMPTS),
        "texts a photo of a right dorsal",
    ),
    "prompts": (accuracy, "text features of the identities: 1 of 16"),
    "retrieval": (lambda bad: retrieval_metrics(bad, PEOPLE, PEOPLE), r"similarity\[1, 2\] is"),
    "verification": (lambda bad: verification(bad[1], GOOD[0], 4), r"genuine\[2\] is"),
    "re-ranking": (lambda bad: rerank_similarity(GOOD, bad, 2, 1), r"gallery\[1\] has length (nan|inf).*float32"),
    "query expansion": (lambda bad: alpha_query_expansion(bad, GOOD, 2), r"query\[1\] has length (nan|inf).*float32"),
}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_no_number_is_refused_where_it_enters(entry, value):
    call, words = ENTRIES[entry]
    with pytest.raises(EvaluationError, match=words):
        call(spoilt(value))
    if entry != "verification":
        call(GOOD)


def test_the_message_counts_and_says_where():
    values = np.array([1.0, np.nan, np.inf, -np.inf])
    with pytest.raises(BackboneError, match=r"^x: 3 of 4 values are not finite \(1 NaN, 2 infinite\); do this$"):
        require_finite(values, "x", "do this", BackboneError)
    require_finite(np.arange(3), "x")
    with pytest.raises(EvaluationError, match="infinities"):
        identity_interval(np.array([1.0, np.inf]), np.array(["a", "b"]))


def test_weights_that_hold_none_are_refused_by_tensor_and_file(tmp_path):
    state = safetensors.torch.load_file(TINY_WEIGHTS)
    state["visual.layer1.0.conv1.weight"] = state["visual.layer1.0.conv1.weight"].clone()
    state["visual.layer1.0.conv1.weight"].view(-1)[:3] = torch.tensor([torch.nan, torch.inf, torch.nan])
    stated = load_backbone("tiny", device="cpu").properties.facts()
    safetensors.torch.save_file(state, tmp_path / "bad.safetensors", stated)
    words = r"bad\.safetensors, tensor visual\.layer1\.0\.conv1\.weight: 3 of \d+ values .*\(2 NaN, 1 infinite\)"
    with pytest.raises(BackboneError, match=words):
        load_backbone("tiny", tmp_path / "bad.safetensors", "cpu")


def test_a_model_whose_numbers_overflow_says_so_of_images_and_of_texts(tmp_path):
    tiny = load_backbone("tiny", device="cpu")
    frame = pd.DataFrame({"path": ["7/0"], "identity": ["7"], "role": ["train"]})
    split = Split.build({"dataset": "drawn"}, frame.assign(aspect="", capture=pd.NA, gallery_in="", content="key"))
    split.write(tmp_path)
    save_texts(tmp_path / PROMPTS_FILE, np.full((1, 128), np.nan, np.float32), ["7"], tiny)
    with pytest.raises(BackboneError, match=r"the prompts of .*128 of 128 values .*run notebook 02 again"):
        prompt_texts(tiny, tmp_path, ["7"], split)
    with torch.no_grad():
        tiny.model.visual.attnpool.c_proj.weight.fill_(3e38)
        tiny.model.text_projection.fill_(3e38)
    for call, what in (
        (lambda: tiny.encode_image(np.full((2, 128, 128, 3), 90, np.uint8)), "image"),
        (lambda: tiny.encode_text(["a hand"]), "text"),
    ):
        with pytest.raises(HandClipError, match=rf"the {what} embeddings of tiny: .* not finite.*overflow"):
            call()
