"""Parameters: what is refused, in which words, and how sweeps and parameters cells come of the schema."""

import io
import tokenize

import pytest
import yaml

from safety_nb.core import grid
from safety_nb.core.errors import InputError
from safety_nb.core.params import (
    CapabilityParams,
    GenerateParams,
    JudgeParams,
    MixParams,
    Parameters,
    ReportParams,
    RunParams,
    StudyParams,
    TrainParams,
    TrainRewardParams,
    validate,
)
from safety_nb.core.recipes import RECIPES
from safety_nb.run.parameter_cells import parameters_cell

MODELS = [
    MixParams,
    TrainParams,
    GenerateParams,
    JudgeParams,
    ReportParams,
    RunParams,
    StudyParams,
]


def complaint(model=RunParams, **values) -> str:
    """The message that values are refused with."""
    with pytest.raises(InputError) as caught:
        validate(model, values)
    return str(caught.value)


# Names


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("n_saftey", "n_safety"), ("sead", "seed"), ("lora-r", "lora_r"), ("learning_rates", "learning_rate")],
)
def test_unknown_name_is_refused_with_the_nearest_valid_one(wrong, nearest):
    assert complaint(**{wrong: 1}) == f"{wrong}: no such parameter; did you mean {nearest!r}?"


def test_unknown_name_like_no_other_is_refused_with_the_choices():
    message = complaint(zzz=1)
    assert message.startswith("zzz: no such parameter; choose from ")
    assert set(message.split("choose from ")[1].split(", ")) == set(RunParams.model_fields)


def test_notebook_is_not_given_the_parameters_of_another():
    assert "lora_r: no such parameter" in complaint(MixParams, lora_r=8)


# Types and ranges


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("general", False, "a valid string"),  # YAML's `general: no`
        ("general", 7, "a valid string"),
        ("n_safety", 7.0, "a valid integer"),
        ("n_safety", "100", "a valid integer"),
        ("n_safety", True, "a valid integer"),
        ("n_safety", None, "a valid integer"),  # YAML's `n_safety:`
        ("epochs", "two", "a valid number"),
        ("epochs", True, "a valid number"),
        ("best_checkpoint", "yes", "a valid boolean"),
        ("best_checkpoint", 1, "a valid boolean"),
        ("lora_targets", "all-linear", "a valid list"),
        ("lora_targets", {"a": 1}, "a valid list"),
    ],
)
def test_value_of_a_wrong_type_is_refused_never_coerced(name, value, wanted):
    told = complaint(**{name: value})
    assert told.startswith(f"{name}: {value!r} ({type(value).__name__}) is not valid: it should be {wanted}")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("n_general", 0, "greater than or equal to 1"),
        ("n_safety", -1, "greater than or equal to 0"),
        ("cutoff", 7, "greater than or equal to 8"),
        ("epochs", 0, "greater than 0"),
        ("learning_rate", 0.0, "greater than 0"),
        ("learning_rate", 1.5, "less than or equal to 1"),
        ("learning_rate", float("nan"), "a finite number"),
        ("weight_decay", float("nan"), "a finite number"),
        ("epochs", float("inf"), "a finite number"),  # training would not end
        ("lora_dropout", 1.0, "less than 1"),
        ("report_samples", -1, "greater than or equal to 0"),
        ("safety_form", "statement", "'instruction', 'question' or 'mixed'"),
        ("lora_targets", [], "at least 1 item"),
        ("evaluation", [], "at least 1 item"),
    ],
)
def test_value_out_of_range_is_refused_with_the_range(name, value, wanted):
    message = complaint(**{name: value})
    assert message.startswith(f"{name}: {value!r}")
    assert wanted in message


def test_bad_element_of_a_list_is_told_with_its_place_and_the_choices():
    message = complaint(judges=["refusal", "refusals"])
    assert message.startswith("judges.1: 'refusals' (str)")
    assert "one of refusal, refusal-rules, delivery, string-match," in message and "did you mean 'refusal'?" in message


# BUG (params.py): a set named twice is answered and judged twice, so every n of it is doubled and every interval
# too narrow, without a word.
@pytest.mark.parametrize(
    ("name", "value"), [("evaluation", ["tiny-facts", "tiny-facts"]), ("judges", ["refusal", "refusal"])]
)
def test_element_that_is_named_twice_is_refused(name, value):
    assert complaint(**{name: value}).startswith(name)


@pytest.mark.parametrize(("batch", "micro", "divides"), [(8, 3, False), (8, 4, True), (8, 8, True), (8, 9, True)])
def test_pairs_on_the_device_at_once_divide_the_batch(batch, micro, divides):
    # At once there may be more than the batch has: then all of it.
    told = TrainRewardParams.impossible({"batch_size": batch, "micro_batch_size": micro})
    assert told == ([] if divides else [f"micro_batch_size: {micro} does not divide batch_size {batch}"])


def test_complaint_ends_with_what_the_parameter_is():
    assert complaint(n_safety=-1).endswith("; n_safety is: safety demonstrations to add")


@pytest.mark.parametrize("text", ["2e-4", "1e-5", "1e-3", "3e5", "5e-07"])
def test_number_that_yaml_reads_as_text_is_refused_with_one_that_it_reads(text):
    assert yaml.safe_load(text) == text  # a str: the trap itself
    hint = complaint(learning_rate=text).split("write ")[1].split(" ")[0]
    assert yaml.safe_load(hint) == float(text)


def test_text_that_is_no_number_gets_no_advice_on_numbers():
    assert "YAML" not in complaint(learning_rate="fast")


@pytest.mark.parametrize("number", [1, 1.0])
def test_whole_number_serves_where_a_fraction_may_stand(number):
    assert validate(RunParams, {"epochs": number}).epochs == 1.0


# Combinations


def test_best_checkpoint_without_validations_on_the_way_is_refused():
    message = complaint(best_checkpoint=True)
    assert message.startswith("best_checkpoint: True needs")
    assert "eval_steps" in message


def test_best_checkpoint_with_validations_on_the_way_is_valid():
    assert validate(RunParams, {"best_checkpoint": True, "eval_steps": 5}).best_checkpoint


def test_checkpoints_apart_from_the_validations_are_refused_with_best_checkpoint():
    message = complaint(best_checkpoint=True, eval_steps=5, checkpoint_steps=2)
    assert message.startswith("checkpoint_steps: with best_checkpoint")


def test_all_wrong_names_types_and_ranges_are_told_at_once_a_line_each():
    message = complaint(n_saftey=1, learning_rate="2e-4", general=False, seed=-1)
    assert sorted(line.split(":")[0] for line in message.splitlines()) == sorted(
        ["n_saftey", "learning_rate", "general", "seed"]
    )


# BUG (params.py): the combinations are one "after" validator, which stops at its first complaint and does not run
# at all when a single field is wrong, so a user mends one mistake only to be told of the next.
def test_all_impossible_combinations_are_told_at_once():
    message = complaint(n_safety=20, n_general=10, total="fixed", best_checkpoint=True)
    assert sorted(line.split(":")[0] for line in message.splitlines()) == ["best_checkpoint", "n_safety"]


# BUG (params.py): as above.
@pytest.mark.parametrize(
    "other", [{"adapter": "none"}, {"backend": "server", "base_url": "http://localhost/v1", "served_model": "m"}]
)
def test_capabilities_are_not_measured_beside_answers_of_another_model(other):
    assert "capabilities: they are those of the adapter" in complaint(capabilities=["boolq"], **other)
    assert RunParams(**other).capabilities == []  # which is no combination


def test_impossible_combination_is_told_beside_a_wrong_name():
    message = complaint(best_checkpoint=True, n_saftey=1)
    assert sorted(line.split(":")[0] for line in message.splitlines()) == ["best_checkpoint", "n_saftey"]


# Defaults


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_defaults_are_valid(model):
    # pydantic does not check defaults by itself, so they are given as if a user had written them.
    defaults = {name: field.get_default() for name, field in model.model_fields.items()}
    assert validate(model, defaults).model_dump() == defaults


def test_run_has_the_parameters_of_all_its_notebooks():
    stages = [MixParams, TrainParams, GenerateParams, JudgeParams, ReportParams]
    # stage_timeout is for whoever executes the notebooks.
    expected = {name for model in stages for name in model.model_fields} | {"stage_timeout"}
    # Of the stage that a run may have, names that would tell nothing among a run's are longer.
    renamed = {"tasks": "capabilities", "limit": "capability_limit", "seed": "capability_seed"}
    expected |= {renamed.get(name, name) for name in CapabilityParams.model_fields}
    assert set(RunParams.model_fields) == expected


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_parameter_has_a_help(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_namespace_of_a_notebook_may_hold_other_names():
    assert MixParams.from_namespace({"n_safety": 3, "run": object(), "__name__": "__main__"}).n_safety == 3


def test_namespace_of_a_notebook_is_checked():
    with pytest.raises(InputError, match="n_safety: '3'"):
        MixParams.from_namespace({"n_safety": "3"})


# Recipes

# What decides what is learned, apart from the data, the seed and the machine's own matters.
TRAINING_VALUES = {
    *("cutoff", "epochs", "learning_rate", "lr_scheduler", "warmup_steps", "weight_decay", "optimizer", "batch_size"),
    *("micro_batch_size", "lora_r", "lora_alpha", "lora_dropout", "lora_targets", "eval_steps", "best_checkpoint"),
    *("loss_on", "base_bits"),
}


@pytest.mark.parametrize(
    ("recipe", "more"),
    [("current", set()), ("paper", {"n_validation"}), ("paper-script", {"n_validation", "train_dtype"})],
)
def test_recipe_names_every_training_value(recipe, more):
    others = set(TrainParams.model_fields) - TRAINING_VALUES
    assert others == {
        *Parameters.model_fields,
        *("base_model", "revision", "template", "guard_prompt", "guard_training", "recipe", "report_to"),
        *("gradient_checkpointing", "train_dtype", "checkpoint_steps", "checkpoint_minutes"),
    }
    assert set(RECIPES[recipe]) == TRAINING_VALUES | more


def test_recipe_of_the_paper_is_the_known_one():
    # Epochs to LoRA: two re-implementations agree. Validation every 50 steps, best checkpoint: quoted.
    filled = validate(RunParams, {"recipe": "paper"})
    known = {"epochs": 4, "learning_rate": 1e-4, "batch_size": 128, "micro_batch_size": 4, "cutoff": 512}
    known |= {"n_validation": 500, "warmup_steps": 10, "lora_r": 4, "lora_alpha": 16, "lora_dropout": 0.05}
    known |= {"lora_targets": ["q_proj", "v_proj"], "eval_steps": 50, "best_checkpoint": True}
    assert filled.model_dump(include=set(known)) == known


def test_recipe_of_the_released_script_is_the_known_one():
    # Read in the released script; what its trainer does with what it does not name: no weight decay, a linear decay.
    filled = validate(RunParams, {"recipe": "paper-script"})
    known = {"epochs": 3, "learning_rate": 3e-4, "batch_size": 128, "micro_batch_size": 4, "cutoff": 256, "lora_r": 8}
    known |= {"lora_alpha": 16, "lora_dropout": 0.05, "lora_targets": ["q_proj", "v_proj"], "n_validation": 2000}
    known |= {"loss_on": "all", "base_bits": 8, "train_dtype": "float16", "warmup_steps": 10, "eval_steps": 50}
    known |= {"optimizer": "adamw_torch", "best_checkpoint": True, "lr_scheduler": "linear", "weight_decay": 0.0}
    assert filled.model_dump(include=set(known)) == known


def test_recipes_but_the_scripts_keep_four_bits_and_the_loss_on_answers():
    for recipe in RECIPES.keys() - {"paper-script"}:
        filled = validate(RunParams, {"recipe": recipe})
        assert (filled.base_bits, filled.loss_on, filled.train_dtype) == (4, "answers", "auto")


def test_current_recipe_is_what_it_is_said_to_be():
    filled = validate(TrainParams, {"recipe": "current"})
    said = {"lora_r": 16, "lora_alpha": 16, "lora_targets": ["all-linear"], "learning_rate": 2e-4, "batch_size": 16}
    said |= {"lr_scheduler": "cosine", "optimizer": "auto"}
    assert filled.model_dump(include=set(said)) == said


def test_recipe_of_the_miniature_is_the_defaults():
    assert validate(RunParams, {"recipe": "tiny"}) == RunParams()


def test_named_value_goes_over_the_recipe_even_where_it_is_the_default():
    default = TrainParams().lora_r
    assert default != RECIPES["paper"]["lora_r"]
    filled = validate(RunParams, {"lora_r": default, "recipe": "paper"})
    assert (filled.lora_r, filled.lora_dropout) == (default, 0.05)


def test_recipe_serves_whoever_builds_the_parameters_in_python():
    assert TrainParams(recipe="paper", epochs=2.0).lora_dropout == 0.05
    assert TrainParams(recipe="paper", epochs=2.0).epochs == 2.0


def test_recipe_in_a_study_fills_each_run_and_may_be_swept():
    filled = [validate(RunParams, run) for run in grid.expand({"recipe": ["paper", "current"]})]
    assert [run.lora_r for run in filled] == [4, 16]


def test_unknown_recipe_is_refused_with_the_choices():
    assert "'tiny', 'current', 'paper' or 'paper-script'" in complaint(recipe="papers")
    assert complaint(recipe={"a": 1}).startswith("recipe:")


def test_combination_that_only_the_recipe_makes_impossible_is_told_beside_a_wrong_name():
    message = complaint(recipe="paper", eval_steps=0, n_saftey=1)
    assert sorted(line.split(":")[0] for line in message.splitlines()) == ["best_checkpoint", "n_saftey"]


def opened(model, injected="", **edited) -> dict:
    """The namespace of a notebook: its parameters cell with values edited in it, then what papermill injected."""
    namespace: dict = {}
    exec(parameters_cell(model), {}, namespace)
    namespace |= edited
    cells = ["# Parameters\n" + injected] if injected else []
    exec(injected, {}, namespace)
    return {**namespace, "In": ["", *cells]}


def test_recipe_in_a_notebook_fills_what_stands_in_its_cell_as_written():
    params = TrainParams.from_namespace(opened(TrainParams, recipe="paper", lora_r=32))
    assert (params.lora_r, params.lora_dropout, params.cutoff) == (32, 0.05, 512)


def test_recipe_given_by_papermill_fills_what_papermill_did_not_give():
    namespace = opened(TrainParams, 'recipe = "paper"\nlora_r = 8')
    params = TrainParams.from_namespace(namespace)
    assert params.lora_r == 8 == TrainParams().lora_r  # the default, but given
    assert params.lora_dropout == 0.05


def test_notebook_that_is_given_all_values_keeps_them_whatever_the_recipe():
    # As a run executes it: every value is injected, after expansion.
    values = TrainParams(recipe="paper", lora_dropout=0.0, cutoff=256).model_dump()
    injected = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    assert TrainParams.from_namespace(opened(TrainParams, injected)).model_dump() == values


# Sweeps


def test_scalar_with_a_list_is_swept_and_a_list_parameter_is_not():
    values = {"seed": [0, 1], "evaluation": ["tiny-facts"], "lora_targets": ["q_proj"], "judges": [], "n_safety": 3}
    assert grid.swept_names(values) == ["seed"]


def test_unknown_name_with_a_list_is_still_told_as_unknown():
    (run,) = grid.expand({"n_saftey": [0]})
    assert "did you mean 'n_safety'" in complaint(**run)


def test_expansion_is_every_combination_the_last_named_fastest():
    runs = grid.expand({"n_safety": [0, 30], "epochs": 1, "seed": [5, 6]})
    # 2 values x 2 values; epochs stays the same in all.
    assert [(run["n_safety"], run["seed"]) for run in runs] == [(0, 5), (0, 6), (30, 5), (30, 6)]
    assert {run["epochs"] for run in runs} == {1}


def test_expansion_of_nothing_swept_is_the_one_run():
    values = {"n_safety": 3, "evaluation": ["tiny-facts", "tiny-ordinary"]}
    assert grid.expand(values) == [values]


def test_expansion_leaves_its_argument_alone():
    values = {"seed": [0, 1]}
    grid.expand(values)
    assert values == {"seed": [0, 1]}


def test_empty_sweep_is_refused():
    with pytest.raises(InputError, match="^seed: the list to sweep over is empty"):
        grid.expand({"n_safety": [0, 1], "seed": []})


@pytest.mark.parametrize("twice", [[0, 30, 0], [1, 1.0]])
def test_sweep_with_a_value_twice_is_refused(twice):
    with pytest.raises(InputError, match="^n_safety: .* names a value twice"):
        grid.expand({"n_safety": twice})


# The parameters cell


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_parameters_cell_executed_gives_exactly_the_defaults(model):
    namespace: dict = {}
    exec(parameters_cell(model), {"__builtins__": __builtins__}, namespace)
    annotations = namespace.pop("__annotations__")
    assert namespace == model().model_dump()
    # The annotation is the type that papermill shows; list for a list of anything.
    assert annotations == {name: type(value) for name, value in namespace.items()}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_comments_of_the_parameters_cell_hold_no_equals_sign(model):
    # papermill drops a parameter whose comment has one.
    tokens = tokenize.generate_tokens(io.StringIO(parameters_cell(model)).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    assert len(comments) == len(model.model_fields)
    assert [comment for comment in comments if "=" in comment] == []
