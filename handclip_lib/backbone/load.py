"""Load a CLIP backbone: OpenAI's nine by short name, a checkpoint of your own, or the embedded `tiny`."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handclip_lib.backbone.fitting import NOTHING, build_model, fitting_model, own_size
from handclip_lib.backbone.image_tower import RESNET_STEP, autocast, kind_of, learning_part, resize_input, whole_cells
from handclip_lib.backbone.library.load import clip_shaped, load_library
from handclip_lib.backbone.openai_clip import ClipShape, cells_of, clip_tokenizer, fetch_published
from handclip_lib.backbone.properties import PLAIN_STEMS, Given, Properties, openais
from handclip_lib.backbone.weights import TINY_WEIGHTS, Weights, fingerprint, read_weights, refuse_not_finite
from handclip_lib.data.batches import Normalisation, plain
from handclip_lib.data.decoder import Resolution, height_and_width
from handclip_lib.errors import BackboneError, reason_of
from handclip_lib.finite import require_finite
from handclip_lib.parameters.backbones import folder_of, of_library
from handclip_lib.parameters.parts import Model, Precision
from handclip_lib.places import cache_folder

SHAPES = {
    "vitb16": ClipShape(512, 224, 12, 768, 16, 512, published="ViT-B/16"),
    "vitb32": ClipShape(512, 224, 12, 768, 32, 512, published="ViT-B/32"),
    "vitl14": ClipShape(768, 224, 24, 1024, 14, 768, published="ViT-L/14"),
    "vitl14_336": ClipShape(768, 336, 24, 1024, 14, 768, published="ViT-L/14@336px"),
    "rn50": ClipShape(1024, 224, (3, 4, 6, 3), 64, None, 512, published="RN50"),
    "rn101": ClipShape(512, 224, (3, 4, 23, 3), 64, None, 512, published="RN101"),
    "rn50x4": ClipShape(640, 288, (4, 6, 10, 6), 80, None, 640, published="RN50x4"),
    "rn50x16": ClipShape(768, 384, (6, 8, 18, 8), 96, None, 768, published="RN50x16"),
    "rn50x64": ClipShape(1024, 448, (3, 15, 36, 10), 128, None, 1024, published="RN50x64"),
    "tiny": ClipShape(128, 128, (2, 2, 2, 2), 16, None, 64, text_layers=2),
}


@dataclass(frozen=True)
class Backbone:
    """A CLIP model with what is needed to feed it.

    Attributes:
        name: Short name of OpenAI's nine or `tiny`; of other weights the file's stem and eight digits of `fingerprint`.
        model: `clip.model.CLIP`, float32, in evaluation mode, on `device`.
        resolution: Side in pixels of the square images it takes, or their height and width.
        embedding_dim: Length of an embedding.
        context_length: Tokens in a text, start and end included.
        device: Where it computes.
        fingerprint: First 16 hex digits of the SHA-256 of the weights and of what differs from OpenAI's properties.
        properties: What its tensors do not say.
        source: Where the weights come from, for records: "tiny of this library", "published …", "file …", "run …".
        precision: Of images' embeddings.
    """

    name: str
    model: Any
    resolution: Resolution
    embedding_dim: int
    context_length: int
    device: torch.device
    fingerprint: str
    properties: Properties = field(default_factory=Properties)
    source: str = ""
    precision: Precision = "fp32"

    @torch.inference_mode()
    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Embed RGB images, uint8 (n, height, width, 3): not normalised, float32, shape (n, embedding_dim).

        Raises:
            BackboneError: Another type or shape, or an embedding that is no number.
        """
        height, width = height_and_width(self.resolution)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (height, width, 3):
            wanted = f"{self.name} takes uint8 images of shape (n, {height}, {width}, 3), not {pixels.dtype}"
            raise BackboneError(f"{wanted} {pixels.shape}; decode them with resolution={self.resolution}")
        if not len(pixels):
            return np.empty((0, self.embedding_dim), np.float32)
        images = plain(torch.from_numpy(np.require(pixels, None, ["C", "W"])).to(self.device), self.normalisation)
        with autocast(self.device, self.precision):
            return self._finite(learning_part(self.model.visual, images), "image embeddings", self.precision)

    def copy(self) -> "Backbone":
        """The same with an image tower of its own that may learn, so that this one stays what its fingerprint says."""
        model = self.model
        shared = {id(value): value for name, value in model.named_parameters() if not name.startswith("visual.")}
        return replace(self, model=deepcopy(model, shared))

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the channels of pixels in 0..1."""
        return self.properties.mean, self.properties.std

    @property
    def unlike_clip(self) -> str:
        """As `Properties.unlike_clip`, for a fingerprint of weights trained from these."""
        if self.properties.library:
            return self.properties.unlike_clip((0, 0))
        pool, text = getattr(self.model.visual, "attnpool", None), getattr(self.model, "transformer", None)
        width = self.model.visual.conv1.out_channels if pool is None else pool.positional_embedding.shape[1]
        return self.properties.unlike_clip((width, text.width if text is not None else 0))

    @property
    def reads_text(self) -> bool:
        """Whether the model has CLIP's vocabulary, without which it embeds images only: a larger one is another."""
        return bool(self.model.vocab_size == ClipShape.vocab_size)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: not normalised, float32, shape (len(texts), embedding_dim).

        Raises:
            BackboneError: See `tokenize`; or an embedding is no number.
        """
        if not len(texts):
            return np.empty((0, self.embedding_dim), np.float32)
        tokens = self.tokenize(texts).to(self.device)  # which refuses a model without a text tower
        return self._finite(self.model.encode_text(tokens), "text embeddings")

    def _finite(self, embeddings: torch.Tensor, what: str, precision: str = "fp32") -> np.ndarray:
        found = embeddings.float().cpu().numpy()
        remedy = "its weights overflow or were changed since they were loaded; load others"
        if precision != "fp32":
            remedy = f"embedding_precision={precision!r} may be too narrow for these weights; choose fp32"
        require_finite(found, f"the {what} of {self.name}", remedy, BackboneError)
        return found

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokens of each text between start and end tokens, zero-padded: int64, (len(texts), context_length).

        Raises:
            BackboneError: A text is longer than the context, or the model has another vocabulary than CLIP's.
        """
        texts = [texts] if isinstance(texts, str) else texts
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            encoded = [self.start_token, *self.encode_words(text), self.end_token]
            if len(encoded) > self.context_length:
                long = f"{text[:60]!r}… is {len(encoded)} tokens long"
                raise BackboneError(f"{long} and {self.name} takes {self.context_length}; shorten it")
            row[: len(encoded)] = torch.tensor(encoded)
        return tokens

    def encode_words(self, text: str) -> list[int]:
        """Tokens of a text, without start and end.

        Raises:
            BackboneError: The model has another vocabulary than CLIP's.
        """
        if not self.reads_text:
            known = f"{self.name} knows {self.model.vocab_size} tokens and CLIP's vocabulary has {ClipShape.vocab_size}"
            known = known if self.model.vocab_size else f"{self.name}: {self.model.no_text}"
            raise BackboneError(f"{known}; it can embed images, not texts")
        return list(clip_tokenizer().encode(text))

    def words(self, tokens: Sequence[int]) -> list[str]:
        """What each token stands for, for messages and tables."""
        tokenizer = clip_tokenizer()
        return [tokenizer.decode([token]).strip() or tokenizer.decoder[token] for token in tokens]

    @property
    def start_token(self) -> int:
        """The token every text starts with."""
        return int(clip_tokenizer().encoder["<|startoftext|>"])

    @property
    def end_token(self) -> int:
        """The token every text ends with, the highest of all; its place holds the text's embedding."""
        return int(clip_tokenizer().encoder["<|endoftext|>"])


def load_backbone(
    name: str, weights: str | Path | None = None, device: str = "auto", download_root: str | Path | None = None,
    input_size: tuple[int, int] | None = None, given: Given = NOTHING, progress: bool = True,
    precision: Precision = "fp32",
) -> Backbone:  # fmt: skip
    """Load a backbone, its weights in float32.

    Args:
        name: A short name of `SHAPES`, the path of weights of any CLIP's shape, or another library's model, see
            `load_library`; where that is of CLIP's own shape, it is read as such weights are.
        weights: Weights to use in place of OpenAI's download. `name` must then be of their shape, but for the size of
            images, or "tiny", the default, with which the weights say what they are.
        device: `auto` (CUDA where there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.
        download_root: Where OpenAI's files lie and are put; default: `clip` in HandCLIP's cache folder.
        input_size: Height and width in pixels of the images it shall take, multiples of its patch; position
            embeddings are interpolated. None: the size it was trained on.
        precision: In which images are embedded; weights stay in float32.

    Raises:
        BackboneError: An unknown name or device, weights that cannot be had or read, of another shape, that hold NaN
            or infinity, or of which nobody says what their tensors do not.
    """
    place, known = _device(device), SHAPES.get(name)
    described = clip_shaped(name, weights, given)
    if of_library(name) and described is None:
        model, properties, size, width, file, remarks = load_library(name, weights, input_size, given)
        source = "; ".join([f"file {file}", *remarks])
        return _ready("", model, file, properties, (0, 0), size, width, place, source, precision)
    if described is None and known is None and (weights or not Path(name).expanduser().exists()):
        one_of = f"choose from {', '.join(SHAPES)}, or give the path of a checkpoint"
        raise BackboneError(f"unknown backbone {name!r}; {one_of}")
    if described is not None:
        file, read = described.path, _sized(described, input_size)
        source = "; ".join([f"file {file}", *read.remarks])
    elif known is not None and known.published and not weights:
        folder = Path(download_root or cache_folder() / "clip").expanduser()
        file = fetch_published(known.published, folder, progress, name)
        source = f"published {known.published}, {file}"
        read = replace(read_weights(file), stated=openais(f"OpenAI's {known.published}, by its SHA-256"))
    else:
        if known and not weights:
            _refuse_unpublished(name)
        file = Path(weights or (TINY_WEIGHTS if known else name)).expanduser()
        read = _sized(read_weights(file), input_size)
        source = "; ".join(["tiny of this library" if file == TINY_WEIGHTS else f"file {file}", *read.remarks])
    model, shape, properties = build_model(read, given)
    if weights and described is None:
        _refuse_other_shape(name, shape, file)
    size = own_size(read)[0] or (shape.resolution, shape.resolution)
    resize_input(model.visual, size, input_size or size)
    if shape.patch_size is None:  # convolutions run 1.4 times as fast on a CPU with channels last
        model.visual.to(memory_format=torch.channels_last)
    called, width = name if known and not weights else "", shape.embedding_dim
    return _ready(called, model, file, properties, shape.widths, input_size or size, width, place, source, precision)


def _ready(
    called: str, model: Any, file: Path, properties: Properties, widths: tuple[int, int], size: tuple[int, int],
    embedding_dim: int, place: torch.device, source: str, precision: Precision,
) -> Backbone:  # fmt: skip
    """A model with its weights as a backbone, called after their file where it has no name."""
    refuse_not_finite(model, str(file))
    content = fingerprint(model, properties.unlike_clip(widths))
    if not called:
        path = file.resolve()
        stem = path.name if path.is_dir() else path.parent.name if path.stem in PLAIN_STEMS else path.stem
        called = f"{stem} {content[:8]}"
    taken = size[0] if size[0] == size[1] else size
    context_length = model.context_length
    return Backbone(called, model.to(place), taken, embedding_dim, context_length, place, content, properties, source,
                    precision)  # fmt: skip


def configured_backbone(config: Model, device: str = "", progress: bool = True) -> Backbone:
    """The backbone that a notebook's parameters name; raises as `load_backbone`.

    A private run calls weights of one's own by their fingerprint alone: a report leaves out the figures that show what
    a folder is called.
    """
    found = load_backbone(
        config.backbone, config.weights, device or config.device, config.download_root, config.size, given_in(config),
        progress, config.embedding_precision,
    )  # fmt: skip
    of_ones_own = config.weights or folder_of(config.backbone)
    return replace(found, name=f"weights {found.fingerprint[:8]}") if config.private and of_ones_own else found


def given_in(config: Model) -> Given:
    """What a notebook's parameters say of the file of weights."""
    return Given(config.activation, config.heads, config.mean_std)


def check_weights(
    name: str, weights: str, input_size: tuple[int, int] | None = None, given: Given = NOTHING, texts: bool = False
) -> tuple[bool, int]:
    """Refuse what `load_backbone` would refuse of a name's weights and input size, without making a CLIP.

    Published weights, those of an empty `weights`, are not looked at. `texts`: what is run needs a text tower.

    Returns:
        As `kind_of` the image tower.

    Raises:
        BackboneError: The file is absent, damaged, no CLIP or of another shape, or the size fits no patches.
    """
    file = Path(weights).expanduser()
    if weights and file.exists() and not (file.is_file() or file.is_dir()):
        raise BackboneError(f"{file} is no file; give the path of a checkpoint")
    shape: Any = SHAPES.get(name)
    described = clip_shaped(name, weights, given)
    if of_library(name) and described is None:
        model = load_library(name, weights, input_size, given).model
        if texts and not model.vocab_size:
            raise BackboneError(f"{name}: {model.no_text}; {_NO_PROMPTS}")
        return kind_of(model.visual)
    if described is None and not weights:
        _refuse_unpublished(name)
    else:
        read = _sized(described or read_weights(file), input_size)
        _, shape, _ = fitting_model(read, given)
        if described is None:
            _refuse_other_shape(name, shape, file)
        if texts and shape.vocab_size != ClipShape.vocab_size:
            alone = f"{read.path} has no text tower of CLIP's {ClipShape.vocab_size} tokens"
            raise BackboneError(f"{alone}; {_NO_PROMPTS}")
    if input_size:
        whole_cells(shape.patch_size or RESNET_STEP, input_size)
    return shape.patch_size is not None, shape.vision_width


_NO_PROMPTS = "prompts need one: notebooks 03 and 05 take it, 02 and 04 do not; give a whole CLIP"


def _sized(read: Weights, input_size: tuple[int, int] | None) -> Weights:
    """Where nothing says which images weights are for and square ones do not fit, an input size says it."""
    cells = cells_of(read.state)
    silent = read.size is None and input_size is not None and round(cells**0.5) ** 2 != cells
    return replace(read, size=input_size) if silent else read


def _refuse_other_shape(name: str, shape: ClipShape, file: Path) -> None:
    """Images of another size than the named shape's are no other shape: `input_size` changes that, too."""
    if name == "tiny" or replace(shape, resolution=SHAPES[name].resolution) == SHAPES[name]:
        return
    remedy = "leave backbone out: a file says itself what it is"
    raise BackboneError(f"{name} is a {SHAPES[name]}, but {file} holds a {shape}; {remedy}")


def _refuse_unpublished(name: str) -> None:
    if name != "tiny" and not SHAPES[name].published:
        raise BackboneError(f"nobody publishes weights of {name}; name a file or folder of them: -p weights FILE")


def _device(name: str) -> torch.device:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise BackboneError(f"device {name!r} cannot be used here ({reason_of(error)}); choose auto or cpu") from error
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # else convolutions, every ViT's patches too, keep 10 bits of fp32's 23
    return device
