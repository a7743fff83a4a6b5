import re
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

import handclip_lib
from handclip_lib.errors import ConfigError
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import (
    STUDIES,
    Analysis,
    DataExploration,
    Evaluation,
    ImageFinetune,
    JointTraining,
    PromptLearning,
)
from handclip_lib.parameters.parts import Guidance, ImageTraining, Prompts, PromptTraining, ReidHead


class Training(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    notebook: ClassVar[str] = "99_test"
    n_ctx: int = Field(4, ge=1, le=16, description="context tokens")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    name: str = Field("x", description="a name")
    flip: bool = Field(False, description="flip")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_cxt": 8}, ["n_cxt", "did you mean n_ctx?"]),
        ({"n_ctx": 0}, ["n_ctx=0", "greater than or equal to 1", "context tokens"]),
        ({"n_ctx": 2.5}, ["n_ctx=2.5", "fractional"]),
        ({"n_ctx": "eight"}, ["n_ctx='eight'", "whole number", "4"]),
        ({"n_ctx": True}, ["n_ctx=True", "number is wanted"]),
        ({"n_ctx": None}, ["n_ctx=None"]),
        ({"name": 7}, ["name=7", "-r name"]),
        ({"flip": "tRue"}, ["flip='tRue'", "true or false"]),
        ({"flip": 1}, ["flip=1", "true or false"]),
        ({"lr": float("nan")}, ["lr=nan"]),
    ],
)
def test_a_fault_names_the_value_and_the_remedy(values, words):
    with pytest.raises(ConfigError) as caught:
        resolve(Training, values)
    assert [word for word in words if word not in str(caught.value)] == []


def test_all_faults_come_in_one_message():
    with pytest.raises(ConfigError, match="4 parameters are wrong") as caught:
        resolve(Training, {"n_cxt": 8, "n_ctx": 99, "name": 7, "lr": "fast"})
    assert len(str(caught.value).splitlines()) == 5


ALONE = {"identity_weight": 0, "supcon_weight": 0, "start_weight": 1, "distillation_weight": 1}
REFUSED = [
    (Evaluation, {"backbone": "vitb61"}, ["did you mean vitb16"]),
    (DataExploration, {"dataset": "11k"}, ["-p data_root FOLDER"]),
    (DataExploration, {"protocol": "cross_session"},
     ["protocol='cross_session': dataset='drawn' records no sessions; choose another protocol"]),
    (PromptLearning, {"n_ctx": 0, "epochs": "many"}, ["2 parameters", "n_ctx=0", "epochs='many'"]),
    (PromptLearning, {"template": "a hand | {} and {} | {} of {name}"},
     ["3 parameters", "0 slots", "2 slots", "drop {name}"]),
    (PromptLearning, {"n_ctx": 78}, ["n_ctx=78"]),
    (ImageFinetune, {"identity_weight": 0, "supcon_weight": 0}, ["every loss has weight 0"]),
    (ImageFinetune, {"text_weight": 1}, ["need the prompts of a run of 02: -p prompt_run latest"]),
    (JointTraining, {"triplet_weight": -1}, ["triplet_weight=-1"]),
    (ImageFinetune, {"interpolation": 1.5}, ["interpolation=1.5"]),
    (ImageFinetune, {"interpolation": -0.5, "lora_rank": 8, "unfreeze_blocks": 0, **ALONE},
     ["3 parameters", "give a share of 0 to 1, or -1", "unfreeze_blocks=0", "every loss has weight 0"]),
    (ImageFinetune, {"interpolation": -1, "folds": 2}, ["interpolation=-1 and folds=2: everybody trains at last"]),
    (ImageFinetune, {"interpolation": -1, "select_by": "loss"}, ["interpolation=-1 chooses by validation"]),
    (Analysis, {"runs_of": "03_finetune"}, ["did you mean 03_image_finetune"]),
    (Analysis, {"data_root": "/photographs"}, ["data_root: no such parameter"]),
    (Analysis, {"sweep_parameter": "lerning_rate"},
     ["sweep_parameter='lerning_rate': no notebook has it; did you mean learning"]),
    (JointTraining, {"version": "v11"}, ["version='v11': method='prompts_then_image' has"]),
    (JointTraining, {"method": "promptsg", "version": "v8"}, ["version='v8': method='promptsg' has"]),
    (JointTraining, {"method": "promptsg", "template": "a {} hand|one {} hand", "text_weight": 1},
     ["promptsg takes one template", "text_weight: promptsg has no text of an identity"]),
    (JointTraining, {"method": "promptsg", "template": "a hand"}, ["has 0 slots"]),
    (JointTraining, {"method": "handid", "template": "a {} hand|one {} hand", "text_weight": 1,
                     "text_supcon_weight": 0, "prompt_run": "latest", "version": "v5"},
     ["handid takes one template", "text_weight: handid has no text of an identity", "handid's texts act by it alone",
      "prompt_run='latest': handid makes its texts of the images", "method='handid' has none: ''"]),
    *((ImageFinetune, {"input_size": size}, ["height x width"])
      for size in ("256", "256x", "x128", "a x b", "256×128", "-1x2", "9" * 5000 + "x1")),
    *((Evaluation, {"input_size": size}, [f"input_size='{size}': a side has at most 1024 pixels; try {near}"])
      for size, near in (("10000x128", "1024x128"), ("224x999999999", "224x1024"))),
    (ImageFinetune, {"n_identities": 4096, "n_images": 256},
     ["n_identities=4096, n_images=256 and views=2", "2,097,152 images; 65,536 are"]),
    (ImageFinetune, {"protocol": "test_only", "validation": "people"},
     ["protocol='test_only' trains nobody: choose another"]),
    *((ImageFinetune, {"validation": validation, "folds": 3},
       ["folds=3: folds are of people; leave it out, or give validation=people"]) for validation in ("val", "test")),
    (ImageFinetune, {"folds": -1}, ["folds"]),
    *((Evaluation, {"studies": given, "trained_run": "latest"}, [said]) for given, said in (
        ("zeroshot", "studies='zeroshot': did you mean zero_shot?"), ("", "studies='': choose all, none"),
        ("all,occlusion", "studies='all'"), ("none,occlusion", "studies='none'"))),
    (Evaluation, {"embeddings": "e.npz", "backbone": "vitb16", "studies": "occlusion"},
     ["stand in place of a model: leave backbone, weights", "studies='occlusion' needs a model that encodes images"]),
    (Evaluation, {"embeddings": "e.npz", "embedding_precision": "bf16"}, ["embedding_precision and trained_run out"]),
]  # fmt: skip


@pytest.mark.parametrize(("model", "given", "words"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_loaded(model, given, words):
    with pytest.raises(ConfigError) as refused:
        resolve(model, given)
    assert [word for word in words if word not in str(refused.value)] == []


def test_what_is_near_to_that_is_taken():
    assert DataExploration(dataset="tongji", data_root="x", protocol="cross_session").faults() == []
    assert resolve(PromptLearning, {"template": "a {} | the {}"}).templates == ("a {}", "the {}")
    assert resolve(JointTraining, {"text_weight": 1}).loss_weights["image_to_text"] == 1
    assert resolve(ImageFinetune, {"interpolation": -1, "lora_rank": 8, "recompute": True}).interpolation == -1
    assert resolve(JointTraining, {"version": "v5"}).version == "v5"
    assert resolve(JointTraining, {"method": "promptsg", "version": "promptsg v8"}).method == "promptsg"
    assert resolve(JointTraining, {"method": "handid"}).method == "handid"
    assert [resolve(ImageFinetune, {"input_size": given}).size for given in ("", "256x128")] == [None, (256, 128)]
    assert (ImageFinetune().validation, ImageFinetune().folds) == ("people", 0)


LIBRARY = Path(handclip_lib.__file__).parent
TAKEN_BY = {
    PromptTraining: ["training/prompt"], Prompts: ["models/prompt_learner"],
    ReidHead: ["models/reid_head"],
    Guidance: [f"models/{name}" for name in ("promptsg", "handid", "reid_head", "prompt_learner")],
    ImageTraining: [f"training/{name}" for name in ("image", "encoding", "optimizer")],
}  # fmt: skip


@pytest.mark.parametrize("part", TAKEN_BY, ids=lambda part: part.__name__)
def test_every_field_of_a_part_is_used_by_what_takes_it(part):
    source = "".join(
        (LIBRARY / f"{file}.py").read_text() for file in [*TAKEN_BY[part], "parameters/parts", "training/state"]
    )
    read = set(re.findall(r'(?<=options\.)\w+|(?<=self\.)\w+|(?<=decides\[")\w+', source))
    weights = {name for name in ImageTraining.model_fields if name.endswith("_weight")}  # `loss_weights` has them all
    assert sorted(set(part.model_fields) - read - weights) == []


def test_every_field_has_help():
    for model in (DataExploration, Evaluation, Analysis):
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_an_analysis_asks_for_no_photograph():
    assert not {"data_root", "draws", "backbone"} & set(Analysis.model_fields)
    config = resolve(Analysis, {"runs": " 03_x-1, 05_y-2 ,", "dataset": "11k", "sweep_parameter": "n_ctx"})
    assert (config.ids, config.sweep_parameter) == (("03_x-1", "05_y-2"), "n_ctx")
    assert resolve(Analysis, {}).ids == ()


def test_what_chose_the_weights_is_told_by_where_they_come_from():
    assert Evaluation().selected_on == "tiny"
    assert Evaluation(backbone="vitb16").selected_on == "nothing"
    assert Evaluation(weights="some.pt").selected_on == "unknown"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("all", STUDIES),
        ("none", ()),
        ("reranking, occlusion", ("reranking", "occlusion")),
        ("zero_shot", ("zero_shot",)),
    ],
)
def test_studies_are_asked_for_by_name(given, wanted):
    config = resolve(Evaluation, {"studies": given})
    assert tuple(name for name in STUDIES if config.wants(name)) == wanted


def test_embeddings_stand_in_place_of_a_model_and_encode_nothing():
    config = resolve(Evaluation, {"embeddings": "e.npz"})
    assert [name for name in STUDIES if not config.wants(name)] == ["zero_shot", "occlusion"]
    assert config.left_out("occlusion").startswith("Not computed: it needs a model that encodes photographs")
    assert Evaluation(studies="none").left_out("occlusion") == "Not computed: studies='none' leaves it out."
    assert config.selected_on == "embeddings"
