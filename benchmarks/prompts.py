"""A step of prompt learning at the true size of ViT-B/16's text tower. `python -m benchmarks.prompts`."""

from functools import partial

import torch

from benchmarks.side_by_side import compare, heading, resident
from handclip_lib.backbone.load import SHAPES, Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.losses import supervised_contrastive
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.parameters.parts import Prompts

IDENTITIES = 72  # of 11k Hands' training half


def random_clip(activation: str = "quick_gelu", device: torch.device | str = "cpu") -> Backbone:
    """ViT-B/16 with random weights, frozen."""
    torch.manual_seed(0)
    shape = SHAPES["vitb16"]
    model = clip_package().model.CLIP(
        shape.embedding_dim, shape.resolution, shape.vision_layers, shape.vision_width, shape.patch_size,
        shape.context_length, shape.vocab_size, shape.text_width, shape.text_width // 64, shape.text_layers,
    )  # fmt: skip
    model.eval().requires_grad_(False)
    if activation == "gelu":
        for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
            block.mlp.gelu = torch.nn.GELU()
    return Backbone("vitb16", model.to(device), 224, 512, 77, torch.device(device), "")


def step(image: torch.Tensor, text: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Loss of both directions, and its gradient."""
    loss = supervised_contrastive(image, text, ids, ids) + supervised_contrastive(text, image, ids, ids)
    loss.backward()
    return loss.detach()


def main() -> None:
    """Print the rows."""
    backbone = random_clip()
    learner = PromptLearner(backbone, [str(number) for number in range(IDENTITIES)], Prompts())
    heading("prompt-learning step, ViT-B/16, B = 64, template of 12 tokens, fp32")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(64, 3, 224, 224, generator=generator)
    with torch.no_grad():
        cached = backbone.model.encode_image(pixels)
    for name, ids in (
        ("P16×K4", torch.arange(16).repeat_interleave(4)),
        ("random labels", torch.randint(IDENTITIES, (64,), generator=generator)),
    ):

        def seeds_way(ids: torch.Tensor) -> torch.Tensor:
            learner.context.grad = None
            with torch.no_grad():
                image = backbone.model.encode_image(pixels)
            return step(image, learner.encode_text_plainly(ids), ids)

        def clip_reids_way(ids: torch.Tensor) -> torch.Tensor:
            learner.context.grad = None
            return step(cached, learner.encode_text_plainly(ids), ids)

        def our_way(ids: torch.Tensor) -> torch.Tensor:
            learner.context.grad = None
            distinct, place = ids.unique(return_inverse=True)
            return step(cached, learner.encode_text(distinct)[place], ids)

        gradients = []
        for way in (seeds_way, clip_reids_way, our_way):
            way(ids)
            gradients.append(learner.context.grad.clone())
        for gradient in gradients[:2]:
            assert (gradient - gradients[2]).norm() < 1e-4 * gradient.norm(), "the ways differ"
        for title, way, repeats in (
            ("images re-encoded, 77 tokens a sample", seeds_way, 3),
            ("images cached, 77 tokens a sample", clip_reids_way, 5),
        ):
            compare(f"{name}: {title} : ours", partial(way, ids), partial(our_way, ids), repeats, resident)
    gelu_beside_quick_gelu()


def gelu_beside_quick_gelu() -> None:
    """A step on each kind of tower, of all that a step does: the ratio is to lie within 5 % of 1."""
    ids = torch.arange(16).repeat_interleave(4)
    image = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    names = [str(number) for number in range(IDENTITIES)]
    ways = []
    for activation in ("quick_gelu", "gelu"):
        learner = PromptLearner(random_clip(activation), names, Prompts())

        def our_way(learner: PromptLearner = learner) -> torch.Tensor:
            learner.context.grad = None
            distinct, place = ids.unique(return_inverse=True)
            return step(image, learner.encode_text(distinct)[place], ids)

        ways.append(our_way)
    compare("P16×K4: ours with QuickGELU : ours with GELU", *ways, 9, resident)


if __name__ == "__main__":
    main()
