"""Make `tiny`: a small CLIP that has seen drawn hands and captions of them, and never a photograph.

    command:  python -m tools.pretrain_tiny          (the defaults are the recipe of the shipped weights)
    machine:  2 CPU cores with bfloat16 (AVX-512), no GPU, 16 GB
    time:     10 minutes to draw 38,400 photographs of 1,600 people, then 40 minutes
    figures:  rank-1 of the frozen embedding on people it never saw, beside the better floor: drawn dorsal_r 63 (34),
              palmar_r 45 (30), photographs of 11k Hands dorsal_r 85 (75), palmar_r 76 (63) %; see tiny.md

First the image tower learns that photographs of one sitting are alike, and, through a head that is thrown away, that
photographs of one hand are. Its last projection is then whitened, and the text tower learns captions of what it gives.

A killed run goes on where its last checkpoint was written, and ends with the weights it would have had.
"""

import argparse
import hashlib
import json
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from handclip_lib.backbone.load import SHAPES, TINY_WEIGHTS, Backbone
from handclip_lib.backbone.openai_clip import ClipShape, clip_package
from handclip_lib.backbone.properties import HEAD_WIDTH, Properties
from handclip_lib.data.batches import augment, normalised
from handclip_lib.data.images import decode_images
from handclip_lib.data.labels import read_hands11k
from handclip_lib.drawn.dataset import DRAWN_ASPECTS, TINY_SEED, draw_dataset, sitting_of, subject_seed
from handclip_lib.errors import BackboneError
from handclip_lib.files import whole_file
from handclip_lib.losses import group_cross_entropy
from handclip_lib.places import cache_folder
from tools.captions import caption_of, described, facts_of

TOWERS = {"resnet": SHAPES["tiny"], "vit": ClipShape(128, 128, 4, 192, 16, 64, text_layers=2)}
STAYS = 0.5  # more bursts to a sitting than `dataset=drawn` has, so that most sittings have two
TEMPERATURE = 0.07  # of photographs against photographs
WHITENED = 8192  # photographs the whitening is measured on
LEAST = 0.03  # of the mean variance, added to every direction's before it is made equal
CHECKPOINT_EVERY = 200  # steps


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, but for the machine's rounding.

    Attributes:
        tower: "resnet" (what is shipped) or "vit".
        subjects, images: People drawn, and photographs of each in each of the four aspects.
        steps: Batches of the image tower.
        hands: Hands in such a batch, three photographs of each.
        learning_rate: The highest; warm-up, then a cosine to zero.
        hand_weight: Of the loss that joins a hand's sittings, beside the one that joins photographs of a sitting.
        text_steps, captions: Batches of the text tower, and captions in each.
        seed: Of weights, batches, captions and augmentation.
        bf16: Compute the image tower in bfloat16 (weights stay float32).
    """

    tower: str = "resnet"
    subjects: int = 1600
    images: int = 6
    steps: int = 2600
    hands: int = 72
    learning_rate: float = 2e-3
    hand_weight: float = 1.0
    text_steps: int = 1500
    captions: int = 128
    seed: int = 0
    bf16: bool = True

    @property
    def key(self) -> str:
        """12 hex digits that name the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Photographs:
    """What is trained on, n photographs.

    Attributes:
        pixels: uint8 (n, side, side, 3).
        facts: `facts_of` each, int (n, 6).
        aspect: One of `DRAWN_ASPECTS`, (n,).
        hand, sitting: Numbers of the hand, and of the sitting over all hands, int (n,).
        burst: Number of the burst among those of its hand, int (n,).
    """

    pixels: np.ndarray
    facts: np.ndarray
    aspect: np.ndarray
    hand: np.ndarray
    sitting: np.ndarray
    burst: np.ndarray


def image_losses(image: Tensor, headed: Tensor, hand: Tensor, sitting: Tensor) -> dict[str, Tensor]:
    """The two losses of the image tower.

    sitting: photographs of one sitting are alike and unlike other hands; its hand's other sittings are neither.
    hand: all photographs of a hand are alike, after a linear head that is thrown away with the training.

    Args:
        image: Embeddings, (n, size).
        headed: The same after the head.
        hand, sitting: Numbers, (n,).

    Why two: a loss over hands alone teaches the embedding to forget light, sleeves and the like, which photographs
    of one sitting share. On real photographs that lost more than it gained (model card).
    """
    itself = torch.eye(len(image), dtype=torch.bool)
    same_hand = (hand[:, None] == hand) & ~itself
    same_sitting = (sitting[:, None] == sitting) & ~itself
    near, far = (F.normalize(e.float(), dim=1) for e in (image, headed))
    cosine = (near @ near.T / TEMPERATURE).masked_fill(itself | (same_hand & ~same_sitting), -torch.inf)
    return {
        "sitting": group_cross_entropy(cosine, same_sitting),
        "hand": group_cross_entropy((far @ far.T / TEMPERATURE).masked_fill(itself, -torch.inf), same_hand),
    }


def new_clip(tower: str, seed: int) -> Backbone:
    """An untrained CLIP of one of `TOWERS` on the CPU, as openai-clip initialises it.

    A ViT's patches get sines and cosines for places: short training does not learn them from small noise.
    """
    torch.manual_seed(seed)
    shape = TOWERS[tower]
    model: Any = clip_package().model.CLIP(
        shape.embedding_dim, shape.resolution, shape.vision_layers, shape.vision_width, shape.patch_size,
        shape.context_length, shape.vocab_size, shape.text_width, shape.text_width // 64, shape.text_layers,
    )  # fmt: skip
    if shape.patch_size is None:
        model.visual.to(memory_format=torch.channels_last)
    else:
        grid = shape.resolution // shape.patch_size
        y, x = (axis.reshape(-1, 1) for axis in torch.meshgrid(*[torch.linspace(-1, 1, grid)] * 2, indexing="ij"))
        angles = torch.pi * torch.logspace(0, np.log2(grid), shape.vision_width // 4, base=2) / 2
        waves = torch.cat([wave(axis * angles) for axis in (x, y) for wave in (torch.sin, torch.cos)], dim=1)
        model.visual.positional_embedding.data[1:] = 0.7 * waves
    device, (heads, text_heads) = torch.device("cpu"), [width // HEAD_WIDTH for width in shape.widths]
    own = Properties("quick_gelu", heads, text_heads)
    return Backbone("tiny", model, shape.resolution, shape.embedding_dim, shape.context_length, device, "", own)


def draw_batch(
    photographs: Photographs, groups: Mapping[str, Sequence[np.ndarray]], hands: int, rng: Any
) -> np.ndarray:
    """Rows of a batch: backs and palms of one side, three photographs of each of `hands` hands.

    The second is of the first's sitting, of another burst where there is one; the third is of another sitting.

    Args:
        photographs: All there are.
        groups: For each aspect the rows of each of its hands.
        hands: Hands in the batch; fewer where an aspect has fewer than half of them.
        rng: What chooses.
    """
    side, rows = rng.choice(["r", "l"]), []
    for aspect in (f"dorsal_{side}", f"palmar_{side}"):
        for number in rng.permutation(len(groups[aspect]))[: hands // 2]:
            own = rng.permutation(groups[aspect][number])
            first, others = own[0], own[1:]
            near = photographs.sitting[others] == photographs.sitting[first]
            fresh = near & (photographs.burst[others] != photographs.burst[first])
            rows.append((first, _one_of(others, fresh, near), _one_of(others, ~near)))
    return np.array(rows).T.ravel()


def _one_of(rows: np.ndarray, *wishes: np.ndarray) -> int:
    """The first row that has the first wish that any has; the first row where none has."""
    for wish in wishes:
        if wish.any():
            return int(rows[wish.argmax()])
    return int(rows[0])


def train_images(backbone: Backbone, photographs: Photographs, recipe: Recipe, checkpoint: Path | None = None) -> None:
    """Train the image tower, see `image_losses`, and whiten what it gives, see `whiten`.

    Args:
        backbone: From `new_clip`; trained in place.
        photographs: Hands with at least two photographs each (others are never in a batch).
        recipe: What decides the weights.
        checkpoint: File to write every few hundred steps, and to go on from where it exists.

    Raises:
        BackboneError: The loss is no number any more, or the checkpoint is of another recipe.
    """
    groups: dict[str, list[np.ndarray]] = {aspect: [] for aspect in DRAWN_ASPECTS}
    order = np.argsort(photographs.hand, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(photographs.hand[order])) + 1):
        if len(rows) >= 2:
            groups[photographs.aspect[rows[0]]].append(rows)
    visual, size = backbone.model.visual, backbone.embedding_dim
    torch.manual_seed(recipe.seed)
    trained = torch.nn.ModuleDict({"visual": visual, "head": torch.nn.Linear(size, size, bias=False)}).train()

    def loss_of(rng: np.random.Generator, generator: torch.Generator) -> dict[str, Tensor]:
        rows = draw_batch(photographs, groups, recipe.hands, rng)
        images = augment(torch.from_numpy(photographs.pixels[rows]), rng.integers(2**62, size=len(rows)).tolist())
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            image = visual(images)
            headed = trained["head"](image)
        hand, sitting = (torch.from_numpy(numbers[rows]) for numbers in (photographs.hand, photographs.sitting))
        found = image_losses(image, headed, hand, sitting)
        return {"sitting": found["sitting"], "hand": recipe.hand_weight * found["hand"]}

    _optimise(trained, loss_of, recipe, recipe.steps, checkpoint)
    visual.eval()
    rows = np.random.default_rng(recipe.seed).permutation(len(photographs.hand))[:WHITENED]
    whiten(visual, embed(visual, photographs.pixels[np.sort(rows)]), photographs.aspect[np.sort(rows)])


@torch.inference_mode()
def embed(visual: Any, pixels: np.ndarray, batch_size: int = 64) -> Tensor:
    """Embeddings of photographs, float32 (n, size)."""
    parts = []
    for start in tqdm(range(0, len(pixels), batch_size), desc="embedding", unit="batch"):
        images = torch.from_numpy(np.array(pixels[start : start + batch_size])).permute(0, 3, 1, 2).float() / 255
        parts.append(visual(normalised(images)))
    return torch.cat(parts).clone()


def whiten(visual: Any, embeddings: Tensor, aspect: np.ndarray) -> None:
    """Give every direction of the embedding about the same spread within an aspect, by its last projection.

    A few directions (skin tone, light) hold most of the spread, and the cosine saw little else. A ResNet's mean
    becomes zero too; a ViT's projection has no bias that could do it.

    Args:
        visual: The image tower; its last projection is changed in place.
        embeddings: What it gives, (n, size).
        aspect: Of each, (n,).
    """
    parts = [embeddings[torch.from_numpy(aspect == name)] for name in np.unique(aspect)]
    centred = torch.cat([part - part.mean(dim=0) for part in parts]).double()
    spread, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    factors = (directions / (spread + LEAST * spread.mean()).sqrt()).float()
    with torch.no_grad():
        if hasattr(visual, "attnpool"):
            last = visual.attnpool.c_proj
            last.weight.copy_(factors.T @ last.weight)
            last.bias.copy_((last.bias - embeddings.mean(dim=0)) @ factors)
        else:
            visual.proj.copy_(visual.proj @ factors)


def train_text(backbone: Backbone, photographs: Photographs, recipe: Recipe) -> None:
    """Train the text tower on captions of the photographs while the image tower stays as it is.

    Every caption that is true of a photograph is a positive, both ways.

    Source: Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022.
    """
    model = backbone.model
    rows = np.random.default_rng(recipe.seed).permutation(len(photographs.hand))[: 2 * WHITENED]
    images = F.normalize(embed(model.visual, photographs.pixels[np.sort(rows)]), dim=1)
    facts = photographs.facts[np.sort(rows)]
    names = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection", "logit_scale")
    text = torch.nn.Module()
    for name in names:
        setattr(text, name, getattr(model, name))

    def loss_of(rng: np.random.Generator, generator: torch.Generator) -> dict[str, Tensor]:
        chosen = rng.permutation(len(facts))[: 2 * recipe.captions]
        captions = [caption_of(facts[row], rng) for row in chosen[: recipe.captions]]
        encoded = F.normalize(model.encode_text(backbone.tokenize([caption.text for caption in captions])), dim=1)
        logits = model.logit_scale.exp().clamp(max=100) * images[torch.from_numpy(chosen)] @ encoded.T
        true = torch.from_numpy(described(captions, facts[chosen]))
        return {"caption": (group_cross_entropy(logits, true) + group_cross_entropy(logits.T, true.T)) / 2}

    _optimise(text, loss_of, recipe, recipe.text_steps, None)


def _optimise(
    trained: torch.nn.Module,
    loss_of: Callable[[np.random.Generator, torch.Generator], dict[str, Tensor]],
    recipe: Recipe,
    steps: int,
    checkpoint: Path | None,
) -> None:
    """AdamW on the sum of the losses; a step depends on its number alone, so runs resume."""
    # most tokens are never seen: decay would only shrink their embeddings
    decayed = [p for name, p in trained.named_parameters() if p.ndim > 1 and "embedding" not in name]
    rest = [p for name, p in trained.named_parameters() if p.ndim <= 1 or "embedding" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=recipe.learning_rate
    )
    start = _resume(checkpoint, recipe, trained, optimizer)
    with tqdm(total=steps, initial=start, unit="step", desc="training") as bar:
        for step in range(start, steps):
            rng = np.random.default_rng([recipe.seed, step])
            losses = loss_of(rng, torch.Generator().manual_seed(int(rng.integers(2**62))))
            loss = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(loss):
                raise BackboneError(f"the loss is {loss.item()} at step {step}: lower the learning rate")
            rate = min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate
            optimizer.zero_grad()
            loss.backward()
            gradient = torch.nn.utils.clip_grad_norm_(trained.parameters(), 5.0)
            if not torch.isfinite(gradient):  # a checkpoint must never hold what such a step makes
                raise BackboneError(f"the gradient is {gradient.item()} at step {step}: lower the learning rate")
            optimizer.step()
            bar.set_postfix({name: f"{value.item():.2f}" for name, value in losses.items()}, refresh=False)
            bar.update()
            if checkpoint and ((step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps):
                _save(checkpoint, recipe, step + 1, trained, optimizer)


def _save(file: Path, recipe: Recipe, step: int, trained: Any, optimizer: torch.optim.Optimizer) -> None:
    state = {"recipe": asdict(recipe), "step": step, "model": trained.state_dict(), "optimizer": optimizer.state_dict()}
    with whole_file(file) as private:
        torch.save(state, private)


def _resume(file: Path | None, recipe: Recipe, trained: Any, optimizer: torch.optim.Optimizer) -> int:
    if file is None or not file.exists():
        return 0
    try:
        state = torch.load(file, weights_only=True)
        theirs = state["recipe"]
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise BackboneError(
            f"{file} is no checkpoint of a pretraining ({type(error).__name__}); delete it and start again"
        ) from error
    if theirs != asdict(recipe):
        raise BackboneError(f"{file} belongs to another recipe; delete it, or give the options it was made with")
    trained.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def stored(model: Any) -> dict[str, Tensor]:
    """Weights as they are shipped: half precision, and 8 bits for the vocabulary, nine tenths of it never trained."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    state["token_embedding.weight"] = model.token_embedding.weight.detach().to(torch.float8_e4m3fn)
    return {name: value.contiguous() for name, value in state.items()}


def drawn_photographs(root: Path, recipe: Recipe) -> Photographs:
    """Draw the people of a recipe into a folder, or find them there."""
    draw_dataset(root, recipe.subjects, recipe.images, TINY_SEED, stays=STAYS)
    table = read_hands11k(root).images
    decoded = decode_images(root, list(table["path"]), TOWERS[recipe.tower].resolution)
    table = table.set_index("path").loc[list(decoded.paths)]
    capture = table.index.str.extract(r"(\d+)", expand=False).astype(int).to_numpy() - 1
    hand, photograph = np.divmod(capture, recipe.images)
    person, aspect = np.divmod(hand, len(DRAWN_ASPECTS))
    names = np.array(DRAWN_ASPECTS)[aspect]
    keys = zip((subject_seed(TINY_SEED, number) for number in person.tolist()), names, photograph.tolist(), strict=True)
    sat = np.array([sitting_of(*key, STAYS) for key in keys])
    facts = facts_of(table.to_dict("records"))
    return Photographs(decoded.pixels, facts, names, hand, hand * recipe.images + sat[:, 0], sat[:, 1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train both towers, write the weights."""
    parser = argparse.ArgumentParser(prog="python -m tools.pretrain_tiny", description="Make `tiny`.")
    for name, value in asdict(Recipe()).items():
        kind: dict[str, Any] = {"type": type(value)}
        if name == "tower":
            kind = {"choices": sorted(TOWERS)}
        elif isinstance(value, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, help=f"default: {value}", **kind)
    parser.add_argument("--work", type=Path, help="folder of drawings and checkpoints; default: the cache folder")
    parser.add_argument("--out", type=Path, default=TINY_WEIGHTS, help="the weights to write")
    options = vars(parser.parse_args(arguments))
    work, out = options.pop("work") or cache_folder() / "pretrain", options.pop("out")
    recipe, began = Recipe(**options), time.monotonic()
    photographs = drawn_photographs(work / f"drawn-{recipe.subjects}x{recipe.images}", recipe)
    backbone = new_clip(recipe.tower, recipe.seed)
    checkpoint = work / f"{recipe.key}.pt"
    train_images(backbone, photographs, recipe, checkpoint)
    train_text(backbone, photographs, recipe)
    with whole_file(out) as private:
        safetensors.torch.save_file(stored(backbone.model), private, backbone.properties.facts())
    checkpoint.unlink(missing_ok=True)
    minutes = (time.monotonic() - began) / 60
    tqdm.write(f"{out}: {recipe.steps} steps on {len(photographs.hand)} drawings, {minutes:.0f} minutes in this run")


if __name__ == "__main__":
    main()
