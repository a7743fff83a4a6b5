"""What only a GPU shows: fp32 that is fp32, and the same training as on the CPU."""

import numpy as np
import pytest
import torch

from handclip_lib.backbone.load import load_backbone
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import encode_images
from handclip_lib.parameters.parts import ImageTraining, Prompts, ReidHead
from handclip_lib.training.encoding import BatchEncoder
from handclip_lib.training.image import fit_image

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that CUDA can use")


@pytest.fixture(params=["SMALL_VIT", "SMALL_RESNET"])
def file(request, checkpoints, tmp_path):
    path = tmp_path / "small.pt"
    checkpoints.write_checkpoint(path, getattr(checkpoints, request.param))
    return str(path)


def photographs(backbone, n: int = 24) -> np.ndarray:
    side = backbone.resolution
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_fp32_is_not_rounded_in_convolutions_and_half_precision_is_near(file):
    plain = load_backbone(file, device="cpu")
    wanted = plain.encode_image(photographs(plain))
    off = {
        precision: apart(
            load_backbone(file, device="cuda", precision=precision).encode_image(photographs(plain)), wanted
        )
        for precision in ("fp32", "fp16", "bf16")
    }
    assert off["fp32"] < 1e-5 < off["fp16"] < off["bf16"] < 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # fp16 skips its first steps
def test_training_learns_what_it_learns_on_the_cpu(file, precision):
    labels, found = np.arange(24) % 6, {}
    for device in ("cpu", "cuda"):
        backbone = load_backbone(file, device=device)
        encoder = ReidEncoder(backbone, 6, ReidHead())
        options = ImageTraining(epochs=2, n_identities=6, n_images=2, augmentation=0, select_by="loss",
                                learning_rate=1e-4, precision=precision if device == "cuda" else "fp32")  # fmt: skip
        result = fit_image(encoder, photographs(backbone), labels, options, progress=False)
        found[device] = result.history["loss"].dropna().to_numpy()
        assert np.isfinite(encode_images(encoder, photographs(backbone))).all()
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=1e-3 if precision == "fp32" else 0.05)


def test_images_that_are_kept_on_the_gpu_are_the_batches_that_are_copied_to_it(file, monkeypatch):
    backbone, rows, batches = load_backbone(file, device="cuda"), np.array([3, 0, 7]), []
    for memory in (10**12, 0):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, memory=memory: (memory, memory))
        images = BatchEncoder(ReidEncoder(backbone, 6, ReidHead()), photographs(backbone), ImageTraining())
        batches.append(images.inputs(rows, slice(None), [1, 2, 3]))
    assert batches[0].is_cuda
    assert torch.equal(*batches)


def test_prompts_are_encoded_as_on_the_cpu(checkpoints, tmp_path):
    path, texts = tmp_path / "small.pt", []
    checkpoints.write_checkpoint(path, checkpoints.SMALL_VIT)
    for device in ("cpu", "cuda"):
        backbone = load_backbone(str(path), device=device)
        learner = PromptLearner(backbone, ["a", "b", "c"], Prompts())
        texts.append(learner.encode_text(torch.arange(3)).detach().cpu().numpy())
    assert apart(*texts) < 1e-5
