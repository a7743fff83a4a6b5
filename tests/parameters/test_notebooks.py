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


def test_a_choice_names_its_nearest_match():
    with pytest.raises(ConfigError, match="did you mean vitb16"):
        resolve(Evaluation, {"backbone": "vitb61"})


def test_real_photographs_need_their_folder():
    with pytest.raises(ConfigError, match="-p data_root FOLDER"):
        resolve(DataExploration, {"dataset": "11k"})


LIBRARY = Path(handclip_lib.__file__).parent
TAKEN_BY = {
    PromptTraining: ["training/prompt"], Prompts: ["models/prompt_learner"],
    ReidHead: ["models/reid_head"],
    Guidance: [f"models/{name}" for name in ("promptsg", "handid", "reid_head", "prompt_learner")],
    ImageTraining: [f"training/{name}" for name in ("image", "encoding", "optimizer")],
}  # fmt: skip


def test_sessions_are_asked_of_data_that_can_have_them_alone():
    assert DataExploration(dataset="tongji", data_root="x", protocol="cross_session").faults() == []
    said = "protocol='cross_session': dataset='drawn' records no sessions; choose another protocol"
    assert DataExploration(protocol="cross_session").faults() == [said]


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


def test_prompts_that_cannot_be_are_refused_together_before_anything_is_loaded():
    with pytest.raises(ConfigError) as caught:
        resolve(PromptLearning, {"n_ctx": 0, "epochs": "many"})
    assert all(word in str(caught.value) for word in ("2 parameters", "n_ctx=0", "epochs='many'"))
    with pytest.raises(ConfigError) as caught:
        resolve(PromptLearning, {"template": "a hand | {} and {} | {} of {name}"})
    assert all(word in str(caught.value) for word in ("3 parameters", "0 slots", "2 slots", "drop {name}"))
    with pytest.raises(ConfigError, match="n_ctx=78"):
        resolve(PromptLearning, {"n_ctx": 78})
    assert resolve(PromptLearning, {"template": "a {} | the {}"}).templates == ("a {}", "the {}")


def test_losses_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="every loss has weight 0"):
        resolve(ImageFinetune, {"identity_weight": 0, "supcon_weight": 0})
    with pytest.raises(ConfigError, match="need the prompts of a run of 02: -p prompt_run latest"):
        resolve(ImageFinetune, {"text_weight": 1})
    with pytest.raises(ConfigError, match="triplet_weight=-1"):
        resolve(JointTraining, {"triplet_weight": -1})
    assert resolve(JointTraining, {"text_weight": 1}).loss_weights["image_to_text"] == 1


def test_ways_to_stay_near_the_frozen_model_that_cannot_be_are_refused_together():
    assert resolve(ImageFinetune, {"interpolation": -1, "lora_rank": 8, "recompute": True}).interpolation == -1
    with pytest.raises(ConfigError, match=r"interpolation=1\.5"):
        resolve(ImageFinetune, {"interpolation": 1.5})
    alone = {"identity_weight": 0, "supcon_weight": 0, "start_weight": 1, "distillation_weight": 1}
    with pytest.raises(ConfigError) as caught:
        resolve(ImageFinetune, {"interpolation": -0.5, "lora_rank": 8, "unfreeze_blocks": 0, **alone})
    words = ("3 parameters", "give a share of 0 to 1, or -1", "unfreeze_blocks=0", "every loss has weight 0")
    assert [word for word in words if word not in str(caught.value)] == []
    with pytest.raises(ConfigError, match="interpolation=-1 and folds=2: everybody trains at last"):
        resolve(ImageFinetune, {"interpolation": -1, "folds": 2})
    with pytest.raises(ConfigError, match="interpolation=-1 chooses by validation"):
        resolve(ImageFinetune, {"interpolation": -1, "select_by": "loss"})


def test_an_analysis_asks_for_no_photograph():
    assert not {"data_root", "draws", "backbone"} & set(Analysis.model_fields)
    config = resolve(Analysis, {"runs": " 03_x-1, 05_y-2 ,", "dataset": "11k"})
    assert config.ids == ("03_x-1", "05_y-2")
    assert resolve(Analysis, {}).ids == ()
    with pytest.raises(ConfigError, match="did you mean 03_image_finetune"):
        resolve(Analysis, {"runs_of": "03_finetune"})
    with pytest.raises(ConfigError, match=r"data_root: no such parameter"):
        resolve(Analysis, {"data_root": "/photographs"})
    with pytest.raises(ConfigError, match=r"sweep_parameter='lerning_rate': no notebook has it; did you mean learning"):
        resolve(Analysis, {"sweep_parameter": "lerning_rate"})
    assert resolve(Analysis, {"sweep_parameter": "n_ctx"}).sweep_parameter == "n_ctx"


def test_a_version_belongs_to_its_method():
    assert resolve(JointTraining, {"version": "v5"}).version == "v5"
    assert resolve(JointTraining, {"method": "promptsg", "version": "promptsg v8"}).method == "promptsg"
    for given in ({"version": "v11"}, {"method": "promptsg", "version": "v8"}):
        with pytest.raises(ConfigError, match=r"version='v\d+': method='\w+' has"):
            resolve(JointTraining, given)


def test_promptsg_takes_one_template_and_no_text_of_identities():
    with pytest.raises(ConfigError) as error:
        resolve(JointTraining, {"method": "promptsg", "template": "a {} hand|one {} hand", "text_weight": 1})
    assert "promptsg takes one template" in str(error.value)
    assert "text_weight: promptsg has no text of an identity" in str(error.value)
    with pytest.raises(ConfigError, match="has 0 slots"):
        resolve(JointTraining, {"method": "promptsg", "template": "a hand"})


def test_handid_makes_texts_of_its_own_and_they_act():
    with pytest.raises(ConfigError) as error:
        resolve(JointTraining, {
            "method": "handid", "template": "a {} hand|one {} hand", "text_weight": 1, "text_supcon_weight": 0,
            "prompt_run": "latest", "version": "v5",
        })  # fmt: skip
    for words in (
        "handid takes one template", "text_weight: handid has no text of an identity", "handid's texts act by it alone",
        "prompt_run='latest': handid makes its texts of the images", "method='handid' has none: ''",
    ):  # fmt: skip
        assert words in str(error.value)
    assert resolve(JointTraining, {"method": "handid"}).method == "handid"


@pytest.mark.parametrize(("given", "size"), [("", None), ("256x128", (256, 128))])
def test_an_input_size_is_height_and_width(given, size):
    assert resolve(ImageFinetune, {"input_size": given}).size == size


@pytest.mark.parametrize("given", ["256", "256x", "x128", "a x b", "256×128", "-1x2"])
def test_what_is_no_input_size_is_refused(given):
    with pytest.raises(ConfigError, match="height x width"):
        resolve(ImageFinetune, {"input_size": given})


def test_what_chose_the_weights_is_told_by_where_they_come_from():
    assert Evaluation().selected_on == "tiny"
    assert Evaluation(backbone="vitb16").selected_on == "nothing"
    assert Evaluation(weights="some.pt").selected_on == "unknown"


def test_nobody_trains_by_a_protocol_that_only_tests_and_folds_are_of_people():
    with pytest.raises(ConfigError, match="protocol='test_only' trains nobody: choose another"):
        resolve(ImageFinetune, {"protocol": "test_only", "validation": "people"})
    for validation in ("val", "test"):
        with pytest.raises(ConfigError, match="folds=3: folds are of people; leave it out, or give validation=people"):
            resolve(ImageFinetune, {"validation": validation, "folds": 3})
    with pytest.raises(ConfigError, match="folds"):
        resolve(ImageFinetune, {"folds": -1})
    assert (ImageFinetune().validation, ImageFinetune().folds) == ("people", 0)


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


@pytest.mark.parametrize(
    ("given", "said"),
    [("zeroshot", "studies='zeroshot': did you mean zero_shot?"), ("", "studies='': choose all, none"),
     ("all,occlusion", "studies='all'"), ("none,occlusion", "studies='none'")],
)  # fmt: skip
def test_an_unknown_study_is_refused_with_the_known_ones(given, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        resolve(Evaluation, {"studies": given, "trained_run": "latest"})


@pytest.mark.parametrize(("given", "near"), [("10000x128", "1024x128"), ("224x999999999", "224x1024")])
def test_a_size_that_no_memory_holds_is_refused_with_the_nearest(given, near):
    with pytest.raises(ConfigError, match=rf"input_size='{given}': a side has at most 1024 pixels; try {near}"):
        resolve(Evaluation, {"input_size": given})
    with pytest.raises(ConfigError, match="height x width"):
        resolve(Evaluation, {"input_size": "9" * 5000 + "x1"})


def test_a_batch_that_no_memory_holds_names_what_makes_it():
    with pytest.raises(
        ConfigError, match=r"n_identities=4096, n_images=256 and views=2 .* 2,097,152 images; 65,536 are"
    ):
        resolve(ImageFinetune, {"n_identities": 4096, "n_images": 256})


def test_embeddings_stand_in_place_of_a_model_and_encode_nothing():
    config = resolve(Evaluation, {"embeddings": "e.npz"})
    assert [name for name in STUDIES if not config.wants(name)] == ["zero_shot", "occlusion"]
    assert config.left_out("occlusion").startswith("Not computed: it needs a model that encodes photographs")
    assert Evaluation(studies="none").left_out("occlusion") == "Not computed: studies='none' leaves it out."
    assert config.selected_on == "embeddings"
    with pytest.raises(ConfigError) as refused:
        resolve(Evaluation, {"embeddings": "e.npz", "backbone": "vitb16", "studies": "occlusion"})
    assert "stand in place of a model: leave backbone, weights" in str(refused.value)
    assert "studies='occlusion' needs a model that encodes images" in str(refused.value)
    with pytest.raises(ConfigError, match=r"leave .*, embedding_precision and trained_run out"):
        resolve(Evaluation, {"embeddings": "e.npz", "embedding_precision": "bf16"})
