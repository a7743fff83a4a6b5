import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch

from handclip_lib.backbone.load import load_backbone
from handclip_lib.data.manifest import Split
from handclip_lib.errors import BackboneError
from handclip_lib.models.embeddings import write_embeddings
from handclip_lib.models.trained import (
    BEST,
    PROMPTS,
    Training,
    load_evaluated,
    load_trained,
    prompt_texts,
    save_clip,
    save_texts,
)
from handclip_lib.parameters.notebooks import Evaluation


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny", device="cpu")


def split_of(*identities: str, content: str = "", dataset: str = "drawn", seed: int = 0) -> Split:
    """Two photographs of each."""
    rows = [(f"{who}/{n}", who, role) for who in identities for n, role in enumerate(("train", "val"))]
    frame = pd.DataFrame(rows, columns=["path", "identity", "role"]).assign(aspect="", capture=pd.NA, gallery_in="")
    meta = {"dataset": dataset, "aspect": "all", "protocol": "proportional", "seed": seed}
    return Split.build(meta, frame.assign(content=[content + path if content else "" for path in frame["path"]]))


SPLIT = split_of("7", "12", "anna", content="drawn ")


def test_texts_come_back_in_the_order_that_is_asked_for(tiny, tmp_path):
    texts = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    save_texts(tmp_path / PROMPTS, texts, ["7", "12", "anna"], tiny)
    SPLIT.write(tmp_path)
    np.testing.assert_array_equal(prompt_texts(tiny, tmp_path, ["anna", "7"], SPLIT), texts[[2, 0]])
    with pytest.raises(BackboneError, match="has no prompt of 8, 9 \\(2 of 3\\): run notebook 02 on the same data"):
        prompt_texts(tiny, tmp_path, ["7", "8", "9"], SPLIT)


def test_prompts_of_another_clip_and_of_no_run_are_refused(tiny, tmp_path):
    with pytest.raises(BackboneError, match=r"holds no prompts.*run notebook 02"):
        prompt_texts(tiny, tmp_path, ["7"], SPLIT)
    save_texts(tmp_path / PROMPTS, np.ones((1, 128), np.float32), ["7"], tiny)
    other = load_backbone("tiny", device="cpu")
    with torch.no_grad():
        other.model.visual.conv1.weight.add_(1)
    moved = save_clip(other, tmp_path / "best.safetensors")
    assert moved.fingerprint != tiny.fingerprint
    with pytest.raises(BackboneError, match=r"were learnt on weights .* run notebook 02 with the same backbone"):
        prompt_texts(moved, tmp_path, ["7"], SPLIT)


@pytest.mark.parametrize("place", [100, 20_000, -1])
def test_a_changed_byte_of_prompts_and_of_tuned_weights_is_noticed(tiny, tmp_path, place):
    save_texts(tmp_path / PROMPTS, np.ones((50, 128), np.float32), [str(n) for n in range(50)], tiny)
    save_clip(tiny, tmp_path / BEST)
    for name in (PROMPTS, BEST):
        with (tmp_path / name).open("r+b") as file:
            file.seek(place, 2 if place < 0 else 0)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 16]))
    with pytest.raises(BackboneError, match=r"text_features\.safetensors holds no prompts.*run notebook 02"):
        prompt_texts(tiny, tmp_path, ["7"], SPLIT)
    with pytest.raises(BackboneError, match=r"best\.safetensors is damaged"):
        load_backbone("tiny", tmp_path / BEST, "cpu")
    with pytest.raises(BackboneError, match=r"best\.safetensors is damaged.*run notebook 03 or 04 again"):
        load_trained(Training(tmp_path, {"backbone": "tiny"}, SPLIT, "yes"), "cpu")


def test_prompts_without_a_checksum_are_taken_with_a_word(tiny, tmp_path, caplog):
    facts = {"identities": "7", "backbone": tiny.fingerprint}
    safetensors.numpy.save_file({"texts": np.ones((1, 128), np.float32)}, tmp_path / PROMPTS, facts)
    SPLIT.write(tmp_path)
    assert prompt_texts(tiny, tmp_path, ["7"], SPLIT).shape == (1, 128)
    assert "whether it is damaged is not known" in caplog.text


OTHERS = {
    "photographs": split_of("7", "12", dataset="11k", content="photographs "),
    "same kind": split_of("7", "12", content="others "),
    "one more": split_of("7", "12", content="drawn ").images,
    "not known": split_of("7", "12", dataset="11k"),
}


@pytest.mark.parametrize("other", ["photographs", "same kind", "one more", "not known"])
def test_prompts_of_drawn_hands_are_not_those_of_people_with_the_same_names(tiny, tmp_path, other):
    split = OTHERS[other]
    if other == "one more":
        more = split.iloc[:1].assign(path="7/new", content="new")
        split = Split.build(SPLIT.meta, pd.concat([split, more]))
    save_texts(tmp_path / PROMPTS, np.ones((3, 128), np.float32), ["7", "12", "anna"], tiny)
    SPLIT.write(tmp_path)
    words = r"other photographs \(drawn, all, proportional, seed 0\) of [12] of 2 people, such as (7|12): equal names"
    with pytest.raises(BackboneError, match=words):
        prompt_texts(tiny, tmp_path, ["12", "7"], split)


def test_photographs_of_old_manifests_are_told_by_path_with_a_word(tiny, tmp_path, caplog):
    save_texts(tmp_path / PROMPTS, np.ones((2, 128), np.float32), ["7", "12"], tiny)
    split_of("7", "12").write(tmp_path)
    assert prompt_texts(tiny, tmp_path, ["7"], SPLIT).shape == (1, 128)
    assert "photographs are told by path" in caplog.text


def test_a_saved_clip_is_loaded_as_it_was(tiny, tmp_path):
    saved = save_clip(tiny, tmp_path / "best.safetensors")
    loaded = load_backbone("tiny", weights=tmp_path / "best.safetensors", device="cpu")
    assert loaded.fingerprint == saved.fingerprint == tiny.fingerprint
    pixels = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    np.testing.assert_array_equal(loaded.encode_image(pixels), tiny.encode_image(pixels))


def test_a_private_run_calls_nothing_by_a_name_that_its_report_would_leave_out_with_the_figure(tiny, tmp_path):
    save_clip(tiny, file := tmp_path / "clip_of_weber.safetensors")
    given = {"weights": str(file), "device": "cpu"}
    names = [load_evaluated(Evaluation(**given, private=private), None).name for private in (False, True)]
    assert names[0].startswith("clip_of_weber ")
    assert names[1] == f"weights {tiny.fingerprint[:8]}"
    assert load_evaluated(Evaluation(backbone="tiny", device="cpu", private=True), None).name == "tiny"
    write_embeddings(tmp_path / "weber.npz", ["a"], ["a"], np.ones((1, 2), np.float32))
    assert load_evaluated(Evaluation(embeddings=str(tmp_path / "weber.npz"), private=True), None).name == "embeddings"
