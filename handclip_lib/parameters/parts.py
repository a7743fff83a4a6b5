"""The parts that notebooks' parameters are made of: name, type, bounds, default and help of each, in one place.

A loop takes the part that it is steered by; a notebook's parameters are such a part, for they inherit it.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from handclip_lib.errors import ConfigError
from handclip_lib.parameters.backbones import BackboneName, known_backbone, of_library

Dataset = Literal["drawn", "11k", "hd", "folder", "csv", "tongji", "iitd", "casia", "hagrid"]
Aspect = Literal["dorsal_r", "dorsal_l", "palmar_r", "palmar_l", "all", "unspecified"]
Protocol = Literal["auto", "standard", "hd", "proportional", "cross_session", "given", "test_only"]
Identity = Literal["auto", "subject", "hand"]
Fit = Literal["stretch", "crop", "pad"]
Decode = Literal["fast", "exact"]
Quality = Literal["keep", "drop"]
Activation = Literal["", "gelu", "quick_gelu"]
Context = Literal["identity", "shared"]
Optimizer = Literal["adam", "adamw"]
Schedule = Literal["cosine", "one_cycle"]
Head = Literal["linear", "arcface"]
Precision = Literal["fp32", "bf16", "fp16"]
Method = Literal["prompts_then_image", "promptsg", "handid"]
ImageMeasure = Literal["val_rank1", "val_map", "loss"]
PromptMeasure = Literal["val_image_to_text@1", "val_text_to_image@1", "image_to_text@1", "text_to_image@1", "loss"]
LARGEST_SIDE = 1024
"""Pixels: of an image that a model sees. 4096 patches of 16 pixels: seven times CLIP's most."""
LARGEST_BATCH = 65_536
"""Images."""
WITH_SESSIONS = ("folder", "csv", "tongji")
"""Data sets that can say of which session a photograph is."""
CHOSEN = -1.0
"""An interpolation that validation shall choose."""
SLOT, NAME, PLACEHOLDER = "{}", "{name}", "X"
"""Of a prompt template: the learnt tokens, the identity's name, and a learnt token where they are spelt out."""
TEMPLATES = {"identity": "A photo of a {} hand.", "shared": "A photo of a {} hand of {name}."}
"""Template of each kind of context where none is given. Source of the first: CLIP-ReID's, with "hand" for "person"."""
_SPELT = re.compile(rf"(?<!\S){PLACEHOLDER}(?: {PLACEHOLDER})*(?!\S)")


def _listed(choices: Any) -> str:
    *most, last = get_args(choices)
    return f"{', '.join(most)} or {last}"


def nearest(name: str, known: Collection[str]) -> str:
    """The remedy for a name that is not known."""
    near = get_close_matches(name, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"


def choices_of(annotation: Any) -> list[Any]:
    """The values that a field takes; `str` among them where it takes other text, too; none of a plain type."""
    return [choice for part in get_args(annotation) for choice in (get_args(part) or (part,))]


class Parameters(BaseModel):
    """What every part and every notebook asks."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")
    notebook: ClassVar[str]

    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of every draw")

    def faults(self) -> list[str]:
        """Faults that lie in a combination of values, each with its remedy."""
        return []


class Shown(Parameters):
    """How a run is told of."""

    private: bool = Field(False, description="a report without photographs, names and places, to hand on")


class Data(Shown):
    """Which photographs, and by which protocol."""

    dataset: Dataset = Field("drawn", description=_listed(Dataset))
    data_root: str = Field("", description="folder of the photographs; unused for drawn hands")
    aspect: Aspect = Field(
        "dorsal_r", description="dorsal_r, dorsal_l, palmar_r, palmar_l, all, or unspecified where none is recorded"
    )
    protocol: Protocol = Field("auto", description=_listed(Protocol))
    identity: Identity = Field("auto", description="subject, hand (left and right are two), or auto: as published")
    identity_level: int = Field(0, ge=0, le=20, description="level of the folders that name people; 0: look for it")
    session_level: int = Field(0, ge=0, le=20, description="level of the folders that name sessions; 0: look for it")
    draws: int = Field(10, ge=1, le=100, description="query/gallery draws")
    fit: Fit = Field("stretch", description="stretch, crop or pad a photograph to the square the model sees")
    decode: Decode = Field("fast", description="fast: large JPEGs at a reduced size; exact: in full")
    sample_range: float = Field(0.0, ge=0, le=2.0**32, description="white of samples of more than 8 bits; 0: measured")
    quality: Quality = Field("keep", description="keep or drop photographs too small, blank or unfocused")
    drawn_subjects: int = Field(140, ge=4, le=5000, description="subjects to draw")
    drawn_images: int = Field(5, ge=1, le=100, description="photographs a drawn subject and aspect")

    def faults(self) -> list[str]:
        """A data set without its folder or sessions, and levels of folders where none is asked, too."""
        found = super().faults()
        if self.dataset != "drawn" and not self.data_root:
            needs = f"dataset={self.dataset!r} needs the folder of its photographs: -p data_root FOLDER"
            found.append(f"data_root='': {needs}")
        if self.protocol == "cross_session" and self.dataset not in WITH_SESSIONS:
            found.append(
                f"protocol='cross_session': dataset={self.dataset!r} records no sessions; choose another protocol"
            )
        for name in ("identity_level", "session_level"):
            if (level := getattr(self, name)) and self.dataset != "folder":
                found.append(f"{name}={level}: only dataset='folder' has levels; leave it out")
        if self.identity_level and self.identity_level == self.session_level:
            found.append(f"session_level={self.session_level}: it is that of the people too; name another level")
        return found


class Model(Shown):
    """Which CLIP embeds them."""

    backbone: Annotated[BackboneName | str, AfterValidator(known_backbone)] = Field(
        "tiny", description=f"{', '.join(get_args(BackboneName))}, open_clip:NAME, timm:NAME or hf:FOLDER"
    )
    weights: str = Field("", description="file or folder of weights; empty for the published ones")
    activation: Activation = Field("", description="gelu or quick_gelu, of weights whose files do not say; else empty")
    heads: int = Field(0, ge=0, le=256, description="attention heads of their image tower; 0: as their files say")
    mean_std: str = Field(
        "",
        pattern=r"^(clip|imagenet|half|none|\d*\.?\d+(,\d*\.?\d+){5})?$",
        description="their normalisation: clip, imagenet, half, none, or six numbers parted by commas; empty: as said",
    )
    download_root: str = Field("", description="folder that holds or receives OpenAI's files; empty for the cache")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    batch_size: int = Field(32, ge=1, le=4096, description="images encoded at once")
    embedding_precision: Precision = Field("fp32", description="of embeddings: fp32, or bf16 or fp16, fast on a GPU")
    input_size: str = Field(
        "",
        pattern=r"^(\d{1,9}x\d{1,9})?$",
        description="height x width the model shall take, such as 256x128; empty: its own",
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of `input_size`, where it is given."""
        height, _, width = self.input_size.partition("x")
        return (int(height), int(width)) if width else None

    def faults(self) -> list[str]:
        """A size beyond what memory holds, and what is said of weights that are not named, too."""
        found = super().faults()
        if max(self.size or (0,)) > LARGEST_SIDE:
            near = "x".join(str(min(side, LARGEST_SIDE)) for side in self.size or ())
            found.append(f"input_size={self.input_size!r}: a side has at most {LARGEST_SIDE} pixels; try {near}")
        of_another = of_library(self.backbone) is not None
        known = ("activation", "heads") if of_another else ("activation", "heads", "mean_std")
        said = [name for name in known if getattr(self, name)]
        if said and of_another:
            found.append(f"{' and '.join(said)}: backbone={self.backbone!r} says it; leave it out")
        elif said and not self.weights:
            found.append(f"{' and '.join(said)}: said of the file that weights names; published ones need no word")
        return found


class Prompts(Parameters):
    """What a learnt prompt looks like."""

    n_ctx: int = Field(4, ge=1, le=75, description="learnt tokens in a prompt")
    context: Context = Field("identity", description="identity or shared")
    template: str = Field("", description="text with {} for the learnt tokens; several are parted by |")

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates, one or several."""
        return templates_of(self.template, self.context)

    def faults(self) -> list[str]:
        """Faults of the templates too."""
        return super().faults() + template_faults(self.templates, self.n_ctx, self.context)


class PromptTraining(Parameters):
    """How `fit_prompt` learns a context."""

    epochs: int = Field(40, ge=1, le=10_000, description="epochs; each shows every training image once")
    n_identities: int = Field(16, ge=2, le=4096, description="identities in a batch")
    n_images: int = Field(4, ge=1, le=256, description="images of each identity in a batch")
    optimizer: Optimizer = Field("adam", description="adam or adamw")
    learning_rate: float = Field(0.02, gt=0, le=10, description="highest learning rate")
    weight_decay: float = Field(0.0, ge=0, le=10, description="of the optimizer")
    warm_up: int = Field(2, ge=0, le=1000, description="epochs in which the learning rate rises")
    temperature: float = Field(0.07, gt=0, le=100, description="what similarities are divided by; CLIP-ReID: 1")
    normalize: bool = Field(True, description="compare by the cosine; CLIP-ReID: false")
    context_weight: float = Field(0.0, ge=0, le=1e6, description="weight of the mean squared context in the loss")
    diversity_weight: float = Field(0.0, ge=0, le=1e6, description="weight of the cosine between identities' texts")
    select_by: PromptMeasure = Field("val_image_to_text@1", description="measure that chooses the epoch, or loss")
    patience: int = Field(0, ge=0, le=10_000, description="epochs without a better one before it stops; 0: never")


class ReidHead(Parameters):
    """What is put on an image tower, and how much of that learns."""

    head: Head = Field("linear", description="linear or arcface")
    neck_dim: int = Field(0, ge=0, le=65_536, description="width before the classifier; 0: that of the embedding")
    unfreeze_blocks: int = Field(-1, ge=-1, le=200, description="last blocks of the image tower that learn; -1: all")
    lora_rank: int = Field(0, ge=0, le=1024, description="rank of adapters that learn in the tower's place; 0: none")
    lora_alpha: float = Field(16.0, gt=0, le=1e4, description="scale of the adapters, over their rank")
    arcface_scale: float = Field(30.0, gt=0, le=1000, description="scale of ArcFace")
    arcface_margin: float = Field(0.3, ge=0, le=1.5, description="margin of ArcFace in radians")
    recompute: bool = Field(False, description="compute a ViT's activations twice to save memory")

    def faults(self) -> list[str]:
        """Adapters where no block learns, too."""
        if not self.lora_rank or self.unfreeze_blocks:
            return super().faults()
        nothing = "no block learns that an adapter could change; give unfreeze_blocks=-1, or lora_rank=0"
        return [*super().faults(), f"lora_rank={self.lora_rank} and unfreeze_blocks=0: {nothing}"]


class Guidance(Prompts, ReidHead):
    """What is put on an image tower that a prompt of each image may guide."""

    method: Method = Field("prompts_then_image", description="prompts_then_image, promptsg or handid")
    guide_layers: int = Field(2, ge=0, le=24, description="self-attention layers of promptsg")

    def faults(self) -> list[str]:
        """Of the one template whose slot an image's pseudo token fills."""
        if self.method == "prompts_then_image":
            return super().faults()
        found = super(Prompts, self).faults() + template_faults(self.templates, 1, "identity")
        if len(self.templates) > 1:
            found.append(f"template={self.template!r}: {self.method} takes one template")
        return found


class ImageTraining(Parameters):
    """How `fit_image` trains an image tower."""

    identity_weight: float = Field(0.5, ge=0, le=1e6, description="weight of the cross-entropy of identities")
    triplet_weight: float = Field(0.0, ge=0, le=1e6, description="weight of the batch-hard triplet loss")
    supcon_weight: float = Field(1.0, ge=0, le=1e6, description="weight of the contrastive loss between photographs")
    center_weight: float = Field(0.0, ge=0, le=1e6, description="weight of the distance to the identity's centre")
    text_weight: float = Field(0.0, ge=0, le=1e6, description="weight of image to text; needs prompts")
    text_supcon_weight: float = Field(0.0, ge=0, le=1e6, description="contrastive of images and texts; needs prompts")
    start_weight: float = Field(0.0, ge=0, le=1e6, description="weight of the tower's distance to where it began")
    distillation_weight: float = Field(0.0, ge=0, le=1e6, description="of the distance to the frozen embeddings")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="of the cross-entropy of identities")
    margin: float = Field(0.3, ge=0, le=2, description="of the triplet loss, embeddings of length 1")
    temperature: float = Field(0.1, gt=0, le=100, description="of the contrastive and the image to text loss")
    epochs: int = Field(8, ge=1, le=10_000, description="epochs")
    n_identities: int = Field(32, ge=2, le=4096, description="identities in a batch")
    n_images: int = Field(4, ge=1, le=256, description="images of each identity in a batch")
    views: int = Field(2, ge=1, le=16, description="augmented views of each image in a batch")
    learning_rate: float = Field(0.0, ge=0, le=10, description="highest, of the tower; 0: its own, docs/weights.md")
    head_learning_rate: float = Field(0.0, ge=0, le=10, description="the same of the head; 0: the backbone's")
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor of the rate from a block to the one below; 1: none")
    center_learning_rate: float = Field(0.5, gt=0, le=10, description="learning rate of the centres, by SGD")
    optimizer: Optimizer = Field("adamw", description="adam or adamw")
    weight_decay: float = Field(0.05, ge=0, le=10, description="of the optimizer")
    schedule: Schedule = Field("cosine", description="cosine or one_cycle")
    warm_up: int = Field(2, ge=0, le=1000, description="epochs in which the learning rates rise")
    clip_gradient: float = Field(5.0, gt=0, le=1e6, description="largest length of the gradient")
    augmentation: float = Field(1.0, ge=0, le=3, description="strength of the augmentation; 0: none")
    flip: bool = Field(False, description="mirror half of the photographs: a right hand becomes a left one")
    precision: Precision = Field("fp32", description="of training: fp32, bf16 or fp16")
    encoded_at_once: int = Field(0, ge=0, le=65_536, description="images of a batch in memory at once; 0: all")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the weights' moving average a step; 0: none")
    interpolation: float = Field(
        0.5, ge=-1, le=1, description="share of what was tuned between frozen (0) and tuned (1); -1: by validation"
    )
    whitening: float = Field(
        0.5, ge=0, lt=1, description="strength of the whitening within people, fitted after training; 0: none"
    )
    select_by: ImageMeasure = Field("val_map", description="measure that chooses the epoch, or loss")
    patience: int = Field(0, ge=0, le=10_000, description="epochs without a better one before it stops; 0: never")

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each of `image_losses`, by its name: every field that ends so."""
        fields = [name for name in ImageTraining.model_fields if name.endswith("_weight")]
        weights = {name.removesuffix("_weight"): getattr(self, name) for name in fields}
        return {{"text": "image_to_text"}.get(name, name): weight for name, weight in weights.items()}

    def faults(self) -> list[str]:
        """A batch beyond what memory holds, and losses of which none counts, too."""
        found = super().faults()
        batch = self.n_identities * self.n_images * self.views
        if batch > LARGEST_BATCH:
            found.append(
                f"n_identities={self.n_identities}, n_images={self.n_images} and views={self.views} make batches of "
                f"{batch:,} images; {LARGEST_BATCH:,} are the most: lower one of them"
            )
        if not any(weight for name, weight in self.loss_weights.items() if name not in ("start", "distillation")):
            found.append("every loss has weight 0: give one of identity_weight, triplet_weight, supcon_weight more")
        if CHOSEN < self.interpolation < 0:
            found.append(f"interpolation={self.interpolation:g}: give a share of 0 to 1, or {CHOSEN:g} to choose one")
        if self.interpolation == CHOSEN and self.select_by == "loss":
            found.append("interpolation=-1 chooses by validation, and select_by='loss' has none: give val_map")
        return found


def templates_of(text: str, context: str) -> tuple[str, ...]:
    """The templates in a text, parted by |; the context's own where there is none."""
    given = tuple(part.strip() for part in text.split("|") if part.strip())
    return given or (TEMPLATES[context],)


def template_faults(templates: tuple[str, ...], n_ctx: int, context: str) -> list[str]:
    """What `split_template` says of each template that is none."""
    found = []
    for template in templates:
        try:
            split_template(template, n_ctx, context)
        except ConfigError as error:
            found.append(str(error))
    return found


def split_template(template: str, n_ctx: int, context: str) -> tuple[str, str]:
    """What stands before and after the learnt tokens: `{}`, or `n_ctx` words "X" ("A photo of a X X X X hand.").

    Raises:
        ConfigError: No slot or several, another number of X, or a name where none belongs (in a context "identity",
            whose prompts are told apart by their learnt tokens alone) or none where one does ("shared").
    """
    parts = template.split(SLOT) if SLOT in template else _SPELT.split(template)
    if len(parts) != 2:
        raise ConfigError(
            f"template={template!r} has {len(parts) - 1} slots for the learnt tokens; write {SLOT} once, "
            f"as in {TEMPLATES[context]!r}"
        )
    before, after = parts
    spelt = template[len(before) : len(template) - len(after)].split()
    if spelt != [SLOT] and len(spelt) != n_ctx:
        raise ConfigError(
            f"template={template!r} spells {len(spelt)} X and n_ctx={n_ctx}; write {SLOT} in place of them, or as many"
        )
    names = template.count(NAME)
    if context == "identity" and names:
        raise ConfigError(f"template={template!r} names the identity, which context='identity' does not: drop {NAME}")
    if context == "shared" and names != 1:
        raise ConfigError(
            f"template={template!r} has {names} places for the name; with context='shared' prompts differ by it "
            f"alone: write {NAME} once, as in {TEMPLATES['shared']!r}"
        )
    return before, after
