"""The parameters of each notebook: name, type, bounds, help; and what is wrong with a combination of them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from handclip_lib.parameters.templates import template_faults, templates_of

Dataset = Literal["drawn", "11k", "hd", "folder"]
Aspect = Literal["dorsal_r", "dorsal_l", "palmar_r", "palmar_l", "all"]
Protocol = Literal["auto", "standard", "hd", "proportional", "given", "test_only"]
Fit = Literal["stretch", "crop", "pad"]
BackboneName = Literal[
    "tiny", "vitb16", "vitb32", "vitl14", "vitl14_336", "rn50", "rn101", "rn50x4", "rn50x16", "rn50x64"
]  # fmt: skip
Context = Literal["identity", "shared"]
Optimizer = Literal["adam", "adamw"]
Schedule = Literal["cosine", "one_cycle"]
Head = Literal["linear", "arcface"]
Precision = Literal["fp32", "bf16", "fp16"]
Method = Literal["prompts_then_image", "promptsg"]
VERSIONS = {
    "prompts_then_image": tuple(f"v{number}" for number in range(1, 11)),
    "promptsg": tuple(f"promptsg v{number}" for number in range(1, 12)),
}
"""Versions of CLIP-FH by method."""
Gallery = Literal["aspect", "all"]
RunsOf = Literal["", "02_prompt_learning", "03_image_finetune", "04_joint_training", "05_evaluation"]
Validation = Literal["val", "test"]
LARGEST_SIDE = 1024
"""Pixels: of an image that a model sees. 4096 patches of 16 pixels: seven times CLIP's most."""
LARGEST_BATCH = 65_536
"""Images."""
STUDIES = ("enrolment", "cross_view", "reranking", "zero_shot", "occlusion")
"""Sections of notebook 05 that can be left out."""
SELECTED_ON_TEST = "selected on test"
"""The label of every figure whose epoch test images chose."""
ImageMeasure = Literal["val_rank1", "val_map", "loss"]
PromptMeasure = Literal["val_image_to_text@1", "val_text_to_image@1", "image_to_text@1", "text_to_image@1", "loss"]


class Parameters(BaseModel):
    """What every notebook asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    notebook: ClassVar[str]

    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of every draw")

    def faults(self) -> list[str]:
        """Faults that lie in a combination of values, each with its remedy."""
        return []


class WithData(Parameters):
    """What every notebook asks that looks at photographs: which, and by which protocol."""

    dataset: Dataset = Field("drawn", description="drawn, 11k, hd or folder")
    data_root: str = Field("", description="folder of the photographs; unused for drawn hands")
    aspect: Aspect = Field("dorsal_r", description="dorsal_r, dorsal_l, palmar_r, palmar_l or all")
    protocol: Protocol = Field("auto", description="auto, standard, hd, proportional, given or test_only")
    draws: int = Field(10, ge=1, le=100, description="query/gallery draws")
    fit: Fit = Field("stretch", description="stretch, crop or pad a photograph to the square the model sees")
    drawn_subjects: int = Field(140, ge=4, le=5000, description="subjects to draw")
    drawn_images: int = Field(5, ge=1, le=100, description="photographs a drawn subject and aspect")

    def faults(self) -> list[str]:
        """A data set without its folder, too."""
        if self.dataset != "drawn" and not self.data_root:
            return [f"data_root='': dataset={self.dataset!r} needs the folder of its photographs: -p data_root FOLDER"]
        return []


class DataExploration(WithData):
    """Parameters of notebook 01."""

    notebook: ClassVar[str] = "01_data_exploration"

    resolution: int = Field(224, ge=32, le=1024, description="side in pixels of the square the model sees")
    samples: int = Field(12, ge=2, le=60, description="photographs shown at once")


class WithBackbone(WithData):
    """What every notebook asks that embeds photographs."""

    backbone: BackboneName = Field("tiny", description="tiny, or one of OpenAI's nine models by short name")
    weights: str = Field("", description="file of CLIP weights; empty for the published ones")
    download_root: str = Field("", description="folder that holds or receives OpenAI's files; empty for the cache")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    batch_size: int = Field(32, ge=1, le=4096, description="images encoded at once")
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
        """A size beyond what memory holds, too."""
        if max(self.size or (0,)) <= LARGEST_SIDE:
            return super().faults()
        near = "x".join(str(min(side, LARGEST_SIDE)) for side in self.size or ())
        return [
            *super().faults(), f"input_size={self.input_size!r}: a side has at most {LARGEST_SIDE} pixels; try {near}",
        ]  # fmt: skip


class PromptLearning(WithBackbone):
    """Parameters of notebook 02."""

    notebook: ClassVar[str] = "02_prompt_learning"

    n_ctx: int = Field(4, ge=1, le=75, description="learnt tokens in a prompt")
    context: Context = Field("identity", description="identity or shared")
    template: str = Field("", description="text with {} for the learnt tokens; several are parted by |")
    ctx_init: str = Field("", description="text whose n_ctx tokens the learning starts from; empty for noise")
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
    trial_epochs: int = Field(10, ge=1, le=10_000, description="epochs of a training started in the panel")

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates, one or several."""
        return templates_of(self.template, self.context)

    def options(self) -> dict[str, Any]:
        """What a training takes, by name."""
        names = (
            "epochs", "n_identities", "n_images", "optimizer", "learning_rate", "weight_decay", "warm_up",
            "temperature", "normalize", "context_weight", "diversity_weight", "select_by", "patience", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def faults(self) -> list[str]:
        """Faults of the templates too."""
        return super().faults() + template_faults(self.templates, self.n_ctx, self.context)


class ImageFinetune(WithBackbone):
    """Parameters of notebook 03."""

    notebook: ClassVar[str] = "03_image_finetune"
    learns_prompts: ClassVar[bool] = False

    prompt_run: str = Field("", description="id of a run of 02, or latest; its texts are frozen targets; empty: none")
    head: Head = Field("linear", description="linear or arcface")
    neck_dim: int = Field(0, ge=0, le=65_536, description="width before the classifier; 0: that of the embedding")
    unfreeze_blocks: int = Field(-1, ge=-1, le=200, description="last blocks of the image tower that learn; -1: all")
    identity_weight: float = Field(0.5, ge=0, le=1e6, description="weight of the cross-entropy of identities")
    triplet_weight: float = Field(0.0, ge=0, le=1e6, description="weight of the batch-hard triplet loss")
    supcon_weight: float = Field(1.0, ge=0, le=1e6, description="weight of the contrastive loss between photographs")
    center_weight: float = Field(0.0, ge=0, le=1e6, description="weight of the distance to the identity's centre")
    text_weight: float = Field(0.0, ge=0, le=1e6, description="weight of image to text; needs prompts")
    text_supcon_weight: float = Field(0.0, ge=0, le=1e6, description="contrastive of images and texts; needs prompts")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="of the cross-entropy of identities")
    margin: float = Field(0.3, ge=0, le=2, description="of the triplet loss, embeddings of length 1")
    arcface_scale: float = Field(30.0, gt=0, le=1000, description="scale of ArcFace")
    arcface_margin: float = Field(0.3, ge=0, le=1.5, description="margin of ArcFace in radians")
    temperature: float = Field(0.1, gt=0, le=100, description="of the contrastive and the image to text loss")
    epochs: int = Field(20, ge=1, le=10_000, description="epochs")
    n_identities: int = Field(32, ge=2, le=4096, description="identities in a batch")
    n_images: int = Field(4, ge=1, le=256, description="images of each identity in a batch")
    views: int = Field(2, ge=1, le=16, description="augmented views of each image in a batch")
    learning_rate: float = Field(5e-4, gt=0, le=10, description="highest learning rate of the image tower")
    head_learning_rate: float = Field(5e-3, gt=0, le=10, description="the same of the head")
    center_learning_rate: float = Field(0.5, gt=0, le=10, description="learning rate of the centres, by SGD")
    optimizer: Optimizer = Field("adamw", description="adam or adamw")
    weight_decay: float = Field(0.05, ge=0, le=10, description="of the optimizer")
    schedule: Schedule = Field("cosine", description="cosine or one_cycle")
    warm_up: int = Field(2, ge=0, le=1000, description="epochs in which the learning rates rise")
    clip_gradient: float = Field(5.0, gt=0, le=1e6, description="largest length of the gradient")
    augmentation: float = Field(1.0, ge=0, le=3, description="strength of the augmentation; 0: none")
    flip: bool = Field(False, description="mirror half of the photographs: a right hand becomes a left one")
    precision: Precision = Field("fp32", description="fp32, bf16 or fp16")
    encoded_at_once: int = Field(0, ge=0, le=65_536, description="images of a batch in memory at once; 0: all")
    recompute: bool = Field(False, description="compute a ViT's activations twice to save memory")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the weights' moving average a step; 0: none")
    processes: int = Field(1, ge=1, le=64, description="processes that train together, such as one a GPU")
    select_by: ImageMeasure = Field("val_map", description="measure that chooses the epoch, or loss")
    validation: Validation = Field("val", description="val, or test as CLIP-FH did: every figure is labelled so")
    patience: int = Field(0, ge=0, le=10_000, description="epochs without a better one before it stops; 0: never")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples of the identities for an interval")

    @property
    def weights_of(self) -> dict[str, float]:
        """Weight of each loss term."""
        names = {"identity": self.identity_weight, "triplet": self.triplet_weight, "supcon": self.supcon_weight}
        names |= {"center": self.center_weight, "image_to_text": self.text_weight}
        return names | {"text_supcon": self.text_supcon_weight}

    def encoder_options(self) -> dict[str, Any]:
        """What the encoder that learns takes, by name."""
        return {
            "head": self.head, "unfreeze_blocks": self.unfreeze_blocks, "neck_dim": self.neck_dim,
            "recompute": self.recompute, "scale": self.arcface_scale, "margin": self.arcface_margin,
            "seed": self.seed,
        }  # fmt: skip

    def options(self) -> dict[str, Any]:
        """What a training takes, by name."""
        names = (
            "epochs", "n_identities", "n_images", "views", "learning_rate", "head_learning_rate",
            "center_learning_rate", "optimizer", "weight_decay", "schedule", "warm_up", "clip_gradient",
            "label_smoothing", "margin", "temperature", "augmentation", "flip", "precision", "encoded_at_once",
            "average", "select_by", "patience", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"weights": self.weights_of}

    def faults(self) -> list[str]:
        """Losses that do not fit together, too."""
        found = super().faults()
        batch = self.n_identities * self.n_images * self.views
        if batch > LARGEST_BATCH:
            found.append(
                f"n_identities={self.n_identities}, n_images={self.n_images} and views={self.views} make batches of "
                f"{batch:,} images; {LARGEST_BATCH:,} are the most: lower one of them"
            )
        if not any(self.weights_of.values()):
            found.append("every loss has weight 0: give one of identity_weight, triplet_weight, supcon_weight more")
        if (self.text_weight or self.text_supcon_weight) and not (self.prompt_run or self.learns_prompts):
            found.append("text_weight and text_supcon_weight need the prompts of a run of 02: -p prompt_run latest")
        return found


class JointTraining(ImageFinetune):
    """Parameters of notebook 04: those of 03, and of the prompts it learns where `prompt_run` names none."""

    notebook: ClassVar[str] = "04_joint_training"
    learns_prompts: ClassVar[bool] = True

    triplet_weight: float = Field(0.2, ge=0, le=1e6, description="weight of the batch-hard triplet loss")
    center_weight: float = Field(0.0005, ge=0, le=1e6, description="weight of the distance to the identity's centre")
    text_supcon_weight: float = Field(0.2, ge=0, le=1e6, description="contrastive of images and texts")
    epochs: int = Field(30, ge=1, le=10_000, description="epochs of the image tower")
    method: Method = Field("prompts_then_image", description="prompts_then_image, or promptsg")
    guide_layers: int = Field(2, ge=0, le=24, description="self-attention layers of promptsg")
    version: str = Field("", description="version of CLIP-FH this repeats, such as v5; empty: none")
    n_ctx: int = Field(4, ge=1, le=75, description="learnt tokens in a prompt")
    context: Context = Field("identity", description="identity or shared")
    template: str = Field("", description="text with {} for the learnt tokens; several are parted by |")
    prompt_epochs: int = Field(20, ge=1, le=10_000, description="epochs of the prompts")
    prompt_learning_rate: float = Field(0.02, gt=0, le=10, description="highest learning rate of the prompts")
    prompt_temperature: float = Field(0.07, gt=0, le=100, description="of the prompts' loss, cosine")
    diversity_weight: float = Field(0.0, ge=0, le=1e6, description="of the cosine between identities' texts")

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates, one or several."""
        return templates_of(self.template, self.context)

    def encoder_options(self) -> dict[str, Any]:
        """The same, with the method and what it needs."""
        template = self.templates[0] if self.method == "promptsg" else ""
        return super().encoder_options() | {"method": self.method, "template": template, "layers": self.guide_layers}

    def prompt_options(self) -> dict[str, Any]:
        """What the training of the prompts takes, by name."""
        return {
            "epochs": self.prompt_epochs, "learning_rate": self.prompt_learning_rate, "seed": self.seed,
            "temperature": self.prompt_temperature, "normalize": True, "select_by": "val_image_to_text@1",
            "diversity_weight": self.diversity_weight,
        }  # fmt: skip

    def faults(self) -> list[str]:
        """Faults of the templates, and of the version, too."""
        known = VERSIONS[self.method]
        unknown = [f"version={self.version!r}: method={self.method!r} has {', '.join(known)}, or none: ''"]
        found = unknown if self.version and self.version not in known else []
        if self.method != "promptsg":
            return super().faults() + found + template_faults(self.templates, self.n_ctx, self.context)
        found = found + template_faults(self.templates, 1, "identity")
        if len(self.templates) > 1:
            found.append(f"template={self.template!r}: promptsg takes one template")
        if self.text_weight:
            found.append("text_weight: promptsg has no text of an identity; text_supcon_weight compares with its own")
        return super().faults() + found


class Evaluation(WithBackbone):
    """Parameters of notebook 05."""

    notebook: ClassVar[str] = "05_evaluation"

    trained_run: str = Field("", description="id of a run of 03 or 04, or latest: its weights; empty: the backbone")
    burst: int = Field(
        0, ge=0, le=1000, description="leave out queries within this many captures of their gallery image"
    )
    target_fmr: float = Field(0.01, gt=0, lt=1, description="FMR that the threshold is chosen for, on validation")
    held_out: float = Field(0.5, gt=0, lt=1, description="share of test identities that an open gallery does not hold")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples of the identities for an interval")
    top_k: int = Field(8, ge=1, le=20, description="gallery images shown for a query")
    studies: str = Field("all", description=f"all, none, or some of {', '.join(STUDIES)}, parted by commas")

    def wants(self, study: str) -> bool:
        """Whether one of `STUDIES` is asked for."""
        return self.studies == "all" or study in self._named_studies

    @property
    def _named_studies(self) -> list[str]:
        return [name.strip() for name in self.studies.split(",")]

    def selected_on(self, trained: Mapping[str, Any] | None) -> str:
        """What chose the weights, as `leak_checks` takes it, by the parameters of the training if there was one."""
        if trained is not None:
            return str(trained.get("validation", "val"))
        return "unknown" if self.weights else "tiny" if self.backbone == "tiny" else "nothing"

    def faults(self) -> list[str]:
        """Two models at once, and unknown studies, too."""
        found = super().faults()
        for name in self._named_studies if self.studies not in ("all", "none") else ():
            if name not in STUDIES:
                near = get_close_matches(name, STUDIES, 1, 0.5)
                hint = f"did you mean {near[0]}? " if near else ""
                found.append(f"studies={name!r}: {hint}choose all, none, or some of {', '.join(STUDIES)}")
        if self.trained_run and (self.weights or self.input_size or self.backbone != "tiny"):
            own = "brings its own backbone, weights and input_size: leave those out"
            found.append(f"trained_run={self.trained_run!r} {own}")
        return found


class Analysis(Parameters):
    """Parameters of notebook 06, which reads runs and looks at no photograph."""

    notebook: ClassVar[str] = "06_analysis"

    runs: str = Field(
        "", description="ids parted by commas; empty: all on the split of the reference, or of the newest"
    )
    reference: str = Field("", description="id the others are compared with; empty: the oldest of 05, or of all")
    runs_of: RunsOf = Field(
        "", description="notebook whose runs are taken alone, such as 03_image_finetune; empty: all"
    )
    dataset: Literal["", Dataset] = Field("", description="runs on this data set alone; empty: on all")
    aspect: Literal["", Aspect] = Field("", description="runs on this aspect alone; empty: on all")
    gallery: Gallery = Field("aspect", description="aspect or all")
    sweep_parameter: str = Field("", description="parameter whose effect is shown, such as learning_rate; empty: none")
    mapped_identities: int = Field(12, ge=1, le=40, description="identities that have a colour in the embedding map")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the resampling and of the embedding map")
    bootstrap: int = Field(10_000, ge=100, le=1_000_000, description="resamples of the identities for an interval")

    @property
    def ids(self) -> tuple[str, ...]:
        """The runs asked for by id."""
        return tuple(part.strip() for part in self.runs.split(",") if part.strip())

    def faults(self) -> list[str]:
        """A sweep of what no notebook has, too."""
        known = sorted({name for model in NOTEBOOKS.values() for name in model.model_fields})
        if not self.sweep_parameter or self.sweep_parameter in known:
            return super().faults()
        near = get_close_matches(self.sweep_parameter, known, 1, 0.5)
        remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
        return [*super().faults(), f"sweep_parameter={self.sweep_parameter!r}: no notebook has it; {remedy}"]


NOTEBOOKS: dict[str, type[Parameters]] = {
    model.notebook: model
    for model in (DataExploration, PromptLearning, ImageFinetune, JointTraining, Evaluation, Analysis)
}


def trained_name(backbone: str, parameters: Mapping[str, Any], learnt: str = "yes") -> str:
    """What a model that 03 or 04 trained is called in tables and figures.

    That test images chose it is part of it, and that it did not learn.

    Args:
        backbone: The backbone's name.
        parameters: Of the training's run.
        learnt: `ImageResult.learnt`.
    """
    made = "joint" if "method" in parameters else "fine-tuned"
    how, _, reason = learnt.partition(": ")
    made = {"no": f"not {made} ({reason})", "in part": f"{made} in part ({reason})"}.get(how, made)
    return f"{backbone}, {made}" + (f", {SELECTED_ON_TEST}" if parameters.get("validation") == "test" else "")
