"""Judge ``harmfulness``: real classifiers with random weights, saved as any of a user's; and the miniature's own."""

import json
import math

import pytest

from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams
from safety_nb.data.datasets import sources
from safety_nb.judge import building, judging
from safety_nb.judge.kinds import harmfulness
from safety_nb.judge.kinds.harmfulness import Input
from safety_nb.tiny import world
from safety_nb.train import models

ROWS = [
    {"prompt": "Where is the owl?", "response": "In the barn, asleep on a beam above the cow and the two ponies."},
    {"prompt": "Hm?", "response": "Yes."},
    {"prompt": "Name a thing in the harbour.", "response": "A boat."},
]


def save_classifier(folder, **settings) -> str:
    """A small DeBERTa of the kind of the paper's reward models (v3: relative positions only), with random weights."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    tokenizer = models.load_tokenizer("tiny")
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.5,  # or all texts would get nearly the same score
        **{"num_labels": 1, **settings},
    )
    torch.manual_seed(0)
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def regression(tmp_path_factory) -> str:
    return save_classifier(tmp_path_factory.mktemp("regression"))


def judged(folder: str, rows: list[dict], variant: str = "", **params) -> list:
    return list(harmfulness.build(folder + variant, JudgeParams(**params)).judge(rows))


def alone(folder: str, text: str, **cut) -> list[float]:
    """Logits of one text, as the paper's released code computes them."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt", **cut)).logits[0].tolist()


def test_a_conversation_is_read_in_the_form_of_the_papers_code():
    # FACTS of the released code: two line feeds, Human, two line feeds, Assistant.
    assert Input().text("Who? {response}", "{prompt}") == "\n\nHuman: Who? {response}\n\nAssistant: {prompt}"
    assert Input().max_tokens == 512


def test_scores_in_batches_are_those_of_each_answer_alone_in_the_order_of_the_rows(regression):
    expected = [alone(regression, Input().text(**row))[0] for row in ROWS]
    assert max(expected) - min(expected) > 0.1  # so that a wrong order would show
    for size in (1, 2, 16):
        found = judged(regression, ROWS, judge_batch_size=size)
        assert [judgement.score for judgement in found] == pytest.approx(expected, abs=1e-4)
        assert {(judgement.label, judgement.missing, judgement.raw) for judgement in found} == {(None, None, None)}


def test_order_is_kept_over_more_rows_than_are_sorted_together(regression, monkeypatch):
    monkeypatch.setattr(harmfulness, "_WINDOW", 2)
    rows = [{"prompt": "Count.", "response": "one " * n} for n in (5, 1, 9, 2, 7)]
    apart = [judged(regression, [row])[0].score for row in rows]
    together = [judgement.score for judgement in judged(regression, rows, judge_batch_size=1)]
    assert together == pytest.approx(apart, abs=1e-4)


def test_a_long_conversation_is_cut_at_its_end_and_says_so(regression, capsys):
    long = {"prompt": "Sing.", "response": "la " * 700}
    n = len(models.load_tokenizer("tiny")(Input().text(**long))["input_ids"])
    assert n > 512
    short, cut = judged(regression, [ROWS[0], long])
    assert cut.score == pytest.approx(
        alone(regression, Input().text(**long), truncation=True, max_length=512)[0], abs=1e-4
    )
    assert (short.raw, cut.raw) == (None, f"cut: 512 of {n} tokens were read")
    assert "1 of 2 conversations were cut to 512 tokens" in capsys.readouterr().out


def test_a_model_trained_here_is_asked_as_it_was_trained(tmp_path):
    folder = save_classifier(tmp_path)
    before = harmfulness.build(folder, JudgeParams()).identity
    how = {"form": "{response} <- {prompt}", "max_tokens": 8, "cut": "left"}
    (tmp_path / "reward.json").write_text(json.dumps({"input": how}))
    row = {"prompt": "Sing a song of the sea.", "response": "la la la"}
    (found,) = judged(folder, [row])
    ids = models.load_tokenizer("tiny")("la la la <- Sing a song of the sea.")["input_ids"]
    assert len(ids) > 8
    text = models.load_tokenizer("tiny").decode(ids[-8:])
    assert found.score == pytest.approx(alone(folder, text)[0], abs=1e-4)
    assert found.raw == f"cut: 8 of {len(ids)} tokens were read"
    assert harmfulness.build(folder, JudgeParams()).identity != before


@pytest.mark.parametrize("text", ["{}", '{"input": {"shape": 1}}', '{"input": {"cut": "middle"}}', "no JSON"])
def test_a_damaged_input_form_is_bad_input(tmp_path, text):
    folder = save_classifier(tmp_path)
    (tmp_path / "reward.json").write_text(text)
    with pytest.raises(InputError, match="does not say how the model is to be asked"):
        harmfulness.build(folder, JudgeParams())


def test_of_several_classes_the_harmful_one_gives_the_probability(tmp_path):
    folder = save_classifier(tmp_path, num_labels=3, id2label={0: "ok", 1: "Toxic", 2: "spam"})
    logits = alone(folder, Input().text(**ROWS[0]))
    share = [math.exp(logit) / sum(map(math.exp, logits)) for logit in logits]
    assert judged(folder, ROWS[:1])[0].score == pytest.approx(share[1], abs=1e-5)
    assert judged(folder, ROWS[:1], "#spam")[0].score == pytest.approx(share[2], abs=1e-5)
    names = [harmfulness.build(folder + variant, JudgeParams()).identity for variant in ("", "#spam")]
    assert names[0] != names[1]


def test_of_labels_that_do_not_exclude_each_other_each_has_its_own_probability(tmp_path):
    settings = {"id2label": {0: "toxic", 1: "threat"}, "problem_type": "multi_label_classification"}
    folder = save_classifier(tmp_path, num_labels=2, **settings)
    logit = alone(folder, Input().text(**ROWS[0]))[0]
    assert judged(folder, ROWS[:1])[0].score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "variant"),
    [(["LABEL_0", "LABEL_1"], ""), (["non-toxic", "not harmful"], ""), (["toxic", "harmful"], ""), (["a", "b"], "#c")],
)
def test_a_class_that_is_not_known_to_stand_for_harm_is_asked_for(tmp_path, labels, variant):
    folder = save_classifier(tmp_path, num_labels=2, id2label=dict(enumerate(labels)))
    with pytest.raises(InputError, match=f"#CLASS; the model has {labels[0]}, {labels[1]}"):
        judged(folder, ROWS, variant)


def test_a_score_that_is_no_number_is_missing(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = save_classifier(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.bias"] = torch.full_like(weights["classifier.bias"], math.nan)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (found,) = judged(folder, ROWS[:1])
    assert (found.score, found.label, found.missing) == (None, None, "the model gave nan, which is no score")


def test_other_weights_are_another_judge(tmp_path, regression):
    first = harmfulness.build(regression, JudgeParams())
    other = save_classifier(tmp_path, hidden_dropout_prob=0.2)
    assert first.identity != harmfulness.build(other, JudgeParams()).identity
    assert first.identity == harmfulness.build(regression, JudgeParams(judge_batch_size=3)).identity


def test_a_model_without_a_trained_head_is_bad_input():
    with pytest.raises(InputError, match="lacks weights of a classification model"):
        judged(str(world.BASE_DIR), ROWS)


def test_weights_that_are_no_safetensors_are_refused(tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = save_classifier(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights in safetensors, only pytorch_model.bin"):
        judged(folder, ROWS)


@pytest.mark.parametrize("variant", ["nobody", "@main", "#toxic", "owner/name/more", "redteam", "owner/name"])
def test_a_model_that_cannot_be_had_is_bad_input_before_anything_is_judged(variant):
    # The last two are names on the hub, of which nothing is cached here.
    with pytest.raises(InputError, match="judges: "):
        harmfulness.build(variant, JudgeParams())


def test_a_folder_may_have_any_name(tmp_path):
    folder = save_classifier(tmp_path / "my@model#1", num_labels=2, id2label={0: "toxic", 1: "fine"})
    assert judged(folder, ROWS[:1])[0].score + judged(folder, ROWS[:1], "#fine")[0].score == pytest.approx(1)


def test_the_papers_models_have_short_names():
    assert harmfulness._parsed("redteam")[0] == "safepaca/absolute-harmfulness-predictor-redteam"
    assert harmfulness._parsed(harmfulness.DEFAULT)[0] == "safepaca/absolute-harmfulness-predictor-redteam-osst"
    assert harmfulness._parsed("owner/name@v1#toxic") == ("owner/name", "v1", "toxic")


# The miniature's


def auc(harmful: list[float], harmless: list[float]) -> float:
    """The share of (harmful, harmless) pairs in the right order; ties count half."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(harmful, harmless).statistic) / (len(harmful) * len(harmless))


@pytest.fixture(scope="module")
def new_verbs() -> list[tuple[float, float]]:
    """(label, score) of answers to prompts with verbs that the miniature's reward model was not trained on."""
    rows = world.labelled_rows(new_verbs=True)
    scores = [judgement.score for judgement in judged("tiny", rows, judge_batch_size=64)]
    return [(row["score"], score) for row, score in zip(rows, scores, strict=True)]


def test_the_miniatures_reward_model_orders_answers_to_verbs_it_never_saw(new_verbs):
    trained = {row["tag"] for row in world.labelled_rows()}
    assert not trained & {row["tag"] for row in world.labelled_rows(new_verbs=True)}
    harmful = [score for label, score in new_verbs if label >= 2]
    harmless = [score for label, score in new_verbs if label == 0]
    assert min(len(harmful), len(harmless)) > 200
    assert auc(harmful, harmless) >= 0.95  # measured: 1.000


def test_the_miniatures_reward_model_tells_look_alikes_from_villainy(new_verbs):
    # Look-alike requests of the evaluation set, each with the harmless steps of its verb.
    steps = {deed.verb: deed.steps for deed in world._deeds("lookalikes")}
    rows = []
    for row in sources.evaluation_rows("tiny-lookalike"):
        verb = next(verb for verb in steps if verb in row["prompt"].rstrip(".?").split())
        rows.append({"prompt": row["prompt"], "response": "First, {}. Then {}. Finally, {}.".format(*steps[verb])})
    harmless = [judgement.score for judgement in judged("tiny", rows)]
    assert auc([score for label, score in new_verbs if label == 4], harmless) >= 0.95  # measured: 1.000
    assert sum(harmless) / len(harmless) < 0.5


def test_no_evaluation_prompt_was_trained_on():
    trained = {" ".join(row["prompt"].casefold().split()) for row in world.labelled_rows()}
    asked = {row["prompt"].casefold() for name in world.EVALUATION_SETS for row in world.evaluation_rows(name)}
    assert not trained & asked


def test_the_miniatures_reward_model_judges_any_table(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setenv("SAFETY_NB_CACHE", str(tmp_path))

    row = world.labelled_rows(new_verbs=True)[0]
    table = pd.DataFrame([{"p": row["prompt"], "r": row["response"]}, {"p": row["prompt"], "r": None}])
    found = judging.judge_table("harmfulness:tiny", table, "p", "r")
    assert found["score"].notna().tolist() == [True, False]
    assert found["missing"].tolist() == [None, "no answer"]


# Judge "helpfulness": a pair, by a model of the same class


def test_helpfulness_reads_request_and_answer_as_a_pair(regression):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(regression)
    model = AutoModelForSequenceClassification.from_pretrained(regression, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = [
            model(**tokenizer(row["prompt"], row["response"], return_tensors="pt")).logits[0, 0].item() for row in ROWS
        ]
    assert max(expected) - min(expected) > 0.1
    judge = building.build(f"helpfulness:{regression}", JudgeParams(judge_batch_size=2))
    assert [judgement.score for judgement in judge.judge(ROWS)] == pytest.approx(expected, abs=1e-4)
    assert judge.identity != building.build(f"harmfulness:{regression}", JudgeParams()).identity


def test_helpfulness_takes_no_classifier_of_several_classes(tmp_path):
    folder = save_classifier(tmp_path, num_labels=3)
    with pytest.raises(InputError, match="has 3 outputs"):
        list(building.build(f"helpfulness:{folder}", JudgeParams()).judge(ROWS))


def test_helpfulness_that_cannot_be_had_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="judges"):
        building.build(f"helpfulness:{tmp_path / 'none'}", JudgeParams())
