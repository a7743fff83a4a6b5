"""The parameters of each notebook, made of parts; and what is wrong with a combination of them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from pydantic import Field

from handclip_lib.parameters.backbones import of_library
from handclip_lib.parameters.parts import (
    CHOSEN,
    Aspect,
    Data,
    Dataset,
    Guidance,
    ImageTraining,
    Model,
    Parameters,
    Prompts,
    PromptTraining,
    ReidHead,
    Shown,
    nearest,
)
from handclip_lib.parameters.sets import ExtraData

VERSIONS = {
    "prompts_then_image": tuple(f"v{number}" for number in range(1, 11)),
    "promptsg": tuple(f"promptsg v{number}" for number in range(1, 12)),
    "handid": (),
}
"""Versions of CLIP-FH by method."""
Gallery = Literal["aspect", "all"]
RunsOf = Literal["", "02_prompt_learning", "03_image_finetune", "04_joint_training", "05_evaluation"]
Validation = Literal["people", "val", "test"]
STUDIES = ("enrolment", "cross_view", "reranking", "zero_shot", "occlusion", "menagerie", "template_cost")
"""Sections of notebook 05 that can be left out."""
NEED_MODEL = ("zero_shot", "occlusion")
"""Those that embed something anew."""
SELECTED_ON_TEST = "selected on test"
"""The label of every figure whose epoch test images chose."""
SELECTED_ON: dict[str, str] = {
    "people": "selected on held-out people", "val": "selected on validation images", "test": SELECTED_ON_TEST,
}  # fmt: skip
"""The same label, by what chose the epoch."""


# the bases of a model stand last first: the fields of the last come first in its parameters cell
class DataExploration(Data):
    """Parameters of notebook 01."""

    notebook: ClassVar[str] = "01_data_exploration"

    resolution: int = Field(224, ge=32, le=1024, description="side in pixels of the square the model sees")
    samples: int = Field(12, ge=2, le=60, description="photographs shown at once")


class PromptLearning(PromptTraining, Prompts, Model, Data):
    """Parameters of notebook 02."""

    notebook: ClassVar[str] = "02_prompt_learning"

    ctx_init: str = Field("", description="text whose n_ctx tokens the learning starts from; empty for noise")
    trial_epochs: int = Field(10, ge=1, le=10_000, description="epochs of a training started in the panel")


class ImageFinetune(ImageTraining, ReidHead, Model, ExtraData):
    """Parameters of notebook 03."""

    notebook: ClassVar[str] = "03_image_finetune"
    learns_prompts: ClassVar[bool] = False

    prompt_run: str = Field("", description="id of a run of 02, or latest; its texts are frozen targets; empty: none")
    processes: int = Field(1, ge=1, le=64, description="processes that train together, such as one a GPU")
    validation: Validation = Field(
        "people", description="people who never train, val: images of those who do, or test as CLIP-FH did"
    )
    folds: int = Field(
        0,
        ge=0,
        le=100,
        description="of people: 0, a fifth never trains; 1 or more, all train at last, docs/parameters.md",
    )

    def faults(self) -> list[str]:
        """A protocol by which nobody trains, folds of no people, texts not named, another library's model, too."""
        found = super().faults()
        if self.protocol == "test_only":
            found.append("protocol='test_only' trains nobody: choose another, or evaluate with 05")
        if self.folds and self.validation != "people":
            found.append(f"folds={self.folds}: folds are of people; leave it out, or give validation=people")
        if self.folds and self.interpolation == CHOSEN:
            nobody = "everybody trains at last, and nobody is left to choose the share"
            found.append(f"interpolation={CHOSEN:g} and folds={self.folds}: {nobody}; give folds=0, or a share")
        for name in ("recompute", "lora_rank") if of_library(self.backbone) else ():
            if value := getattr(self, name):
                own = "goes by its library's modules, which are left as they are"
                found.append(f"{name}={value}: backbone={self.backbone!r} {own}; leave it out")
        if self.prompt_run and self.extra_data:
            lacks = "02 learnt no prompt of the people of extra_data; leave one of the two out, or run 04 without it"
            found.append(f"prompt_run={self.prompt_run!r}: {lacks}, which learns prompts of all")
        if (self.text_weight or self.text_supcon_weight) and not self.prompt_run and not self.learns_prompts:
            found.append("text_weight and text_supcon_weight need the prompts of a run of 02: -p prompt_run latest")
        return found


class JointTraining(Guidance, ImageFinetune):
    """Parameters of notebook 04: those of 03, and of the prompts it learns where `prompt_run` names none."""

    notebook: ClassVar[str] = "04_joint_training"
    learns_prompts: ClassVar[bool] = True

    triplet_weight: float = Field(0.2, ge=0, le=1e6, description="weight of the batch-hard triplet loss")
    center_weight: float = Field(0.0005, ge=0, le=1e6, description="weight of the distance to the identity's centre")
    text_supcon_weight: float = Field(0.2, ge=0, le=1e6, description="contrastive of images and texts")
    version: str = Field("", description="version of CLIP-FH this repeats, such as v5; empty: none")
    prompt_epochs: int = Field(20, ge=1, le=10_000, description="epochs of the prompts")
    prompt_learning_rate: float = Field(0.02, gt=0, le=10, description="highest learning rate of the prompts")
    prompt_temperature: float = Field(0.07, gt=0, le=100, description="of the prompts' loss, cosine")
    diversity_weight: float = Field(0.0, ge=0, le=1e6, description="of the cosine between identities' texts")

    @property
    def prompt_training(self) -> PromptTraining:
        """How the prompts learn: as in notebook 02, but for what 04 asks of it."""
        return PromptTraining(
            epochs=self.prompt_epochs, learning_rate=self.prompt_learning_rate, seed=self.seed,
            temperature=self.prompt_temperature, diversity_weight=self.diversity_weight,
        )  # fmt: skip

    def faults(self) -> list[str]:
        """Faults of the version, and of texts that a method has not, or has of its own, too."""
        known, found = VERSIONS[self.method], super().faults()
        if self.version and self.version not in known:
            has = ", ".join([*known, "none: ''"]).replace(", none", ", or none")
            found.append(f"version={self.version!r}: method={self.method!r} has {has}")
        if self.method != "prompts_then_image" and self.text_weight:
            own = f"{self.method} has no text of an identity; text_supcon_weight compares with its own"
            found.append(f"text_weight: {own}")
        if self.method == "handid" and not self.text_supcon_weight:
            found.append("text_supcon_weight=0: handid's texts act by it alone; give it more, or run 03 without texts")
        if self.method == "handid" and self.prompt_run:
            found.append(f"prompt_run={self.prompt_run!r}: handid makes its texts of the images; leave it out")
        if self.method == "promptsg" and of_library(self.backbone):
            places = "promptsg asks every place of an image in the embedding's space, which CLIP's own towers have"
            found.append(f"method='promptsg': {places}; backbone={self.backbone!r} takes prompts_then_image or handid")
        return found


class Evaluation(Model, Data):
    """Parameters of notebook 05."""

    notebook: ClassVar[str] = "05_evaluation"

    trained_run: str = Field("", description="id of a run of 03 or 04, or latest: its weights; empty: the backbone")
    embeddings: str = Field("", description="another program's embeddings, .npz or .parquet, in place of a model")
    burst: int = Field(
        0, ge=0, le=1000, description="leave out queries within this many captures of their gallery image"
    )
    target_fmr: float = Field(0.01, gt=0, lt=1, description="FMR that the threshold is chosen for, on validation")
    held_out: float = Field(0.5, gt=0, lt=1, description="share of test identities that an open gallery does not hold")
    top_k: int = Field(8, ge=1, le=20, description="gallery images shown for a query")
    studies: str = Field("all", description=f"all, none, or some of {', '.join(STUDIES)}, parted by commas")
    parts_by: Literal["auto", "occlusion"] = Field(
        "auto", description="which parts decided: auto, by relevance in a ViT, else by occlusion; or occlusion"
    )

    def wants(self, study: str) -> bool:
        """Whether one of `STUDIES` is asked for, and to be had: some need a model, and embeddings are none."""
        return (self.studies == "all" and not (self.embeddings and study in NEED_MODEL)) or study in self._named_studies

    def left_out(self, study: str) -> str:
        """Why one of `STUDIES` is not in a report, a sentence."""
        if self.embeddings and study in NEED_MODEL:
            return (
                "Not computed: it needs a model that encodes photographs, and these embeddings are another program's."
            )
        return f"Not computed: studies={self.studies!r} leaves it out."

    @property
    def _named_studies(self) -> list[str]:
        return [name.strip() for name in self.studies.split(",")]

    @property
    def selected_on(self) -> str:
        """What chose the weights, as `leak_checks` takes it, where no run that is known here trained them."""
        if self.embeddings:
            return "embeddings"
        if self.weights or of_library(self.backbone):
            return "unknown"
        return "tiny" if self.backbone == "tiny" else "nothing"

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
        if self.embeddings:
            model = self.trained_run or self.weights or self.input_size or self.backbone != "tiny"
            if model or self.embedding_precision != "fp32":
                named = "backbone, weights, input_size, embedding_precision and trained_run"
                said = f"stand in place of a model: leave {named} out"
                found.append(f"embeddings={self.embeddings!r} {said}")
            found += [
                f"studies={name!r} needs a model that encodes images, and embeddings={self.embeddings!r} are none"
                for name in NEED_MODEL
                if name in self._named_studies
            ]
        return found


class Analysis(Shown):
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
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the signs and of the embedding map")
    sign_flips: int = Field(
        10_000, ge=100, le=1_000_000, description="choices of signs a test draws; of up to 14 people all are tried"
    )

    @property
    def ids(self) -> tuple[str, ...]:
        """The runs asked for by id."""
        return tuple(part.strip() for part in self.runs.split(",") if part.strip())

    def faults(self) -> list[str]:
        """A sweep of what no notebook has, too."""
        fault = no_parameter(self.sweep_parameter) if self.sweep_parameter else ""
        return [*super().faults(), *([f"sweep_parameter={self.sweep_parameter!r}: {fault}"] if fault else [])]


NOTEBOOKS: dict[str, type[Parameters]] = {
    model.notebook: model
    for model in (DataExploration, PromptLearning, ImageFinetune, JointTraining, Evaluation, Analysis)
}


def notebook_of(name: str) -> str | None:
    """The notebook that a person names by its number ("5", "05") or name; None where there is none."""
    return next((stem for stem in NOTEBOOKS if stem == name or stem.startswith(f"{name.zfill(2)}_")), None)


def no_parameter(name: str) -> str:
    """That no notebook has a parameter of this name, with the remedy; "" where one has."""
    known = sorted({name for model in NOTEBOOKS.values() for name in model.model_fields})
    return "" if name in known else f"no notebook has it; {nearest(name, known)}"


def trained_name(backbone: str, parameters: Mapping[str, Any], learnt: str = "yes") -> str:
    """What a model that 03 or 04 trained is called: that test images chose it is part of it, and that it learnt not.

    `parameters` are of the training's run, `learnt` of its `ImageResult`.
    """
    made = "joint" if "method" in parameters else "fine-tuned"
    how, _, reason = learnt.partition(": ")
    made = {"no": f"not {made} ({reason})", "in part": f"{made} in part ({reason})"}.get(how, made)
    return f"{backbone}, {made}" + (f", {SELECTED_ON_TEST}" if parameters.get("validation") == "test" else "")
