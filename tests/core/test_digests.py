"""Digests are those of version 0.1.0: by them, what people paid for, labelled and reviewed is found again.

``digests.json`` holds what that version gave for fixed inputs. Another digest here does not break a computation; it
loses what is on people's disks. So nothing in that file is to be made anew.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from safety_nb.core import endpoint, files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.endpoint import Endpoint, Request
from safety_nb.core.params import GenerateParams, JudgeParams, RunParams, TrainParams
from safety_nb.data import mixing
from safety_nb.data.demonstrations import making, review
from safety_nb.generate import capabilities, decoding, generation
from safety_nb.judge import annotations, building, judging, reward_model
from safety_nb.judge.judgement import Judge
from safety_nb.judge.kinds import llm, refusal_classifier, rubrics
from safety_nb.run import runner, stages
from safety_nb.tiny import base_model
from safety_nb.train import checkpoints, models

KEPT = json.loads(Path(__file__).with_name("digests.json").read_text())
HALF = "half \ud83c here"  # of a surrogate pair
RUBRICS = {rubric.name: rubric for rubric in (*rubrics.RUBRICS.values(), rubrics.PAIR)}


# The form


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("sort_keys", [True, False])
def test_order_of_keys_counts_only_where_they_are_not_sorted(sort_keys, ensure_ascii):
    one, other = ({"a": 1, "ö": 2}, {"ö": 2, "a": 1})
    same = digest(one, sort_keys=sort_keys, ensure_ascii=ensure_ascii) == digest(
        other, sort_keys=sort_keys, ensure_ascii=ensure_ascii
    )
    assert same is sort_keys


def test_each_form_has_a_digest_of_its_own():
    value = {"ö": 2, "a": 1}
    forms = [(sort_keys, ensure_ascii) for sort_keys in (True, False) for ensure_ascii in (True, False)]
    assert len({digest(value, sort_keys=sort, ensure_ascii=ascii) for sort, ascii in forms}) == 4


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_half_a_surrogate_pair_has_a_digest(ensure_ascii):
    assert len(digest([HALF], sort_keys=True, ensure_ascii=ensure_ascii)) == 64


def test_callers_must_say_the_form():
    with pytest.raises(TypeError):
        digest({})


# What version 0.1.0 gave


def item(given: dict) -> annotations.Item:
    return annotations.Item(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})


def of_examples(given: dict) -> str:
    rows = ([{**row, "texts": tuple(row["texts"])} for row in given[part]] for part in ("training", "validation"))
    return reward_model.Data(*([reward_model.Example(**row) for row in part] for part in rows)).sha256()


def asked_of_a_judge(given: dict) -> str:
    (request,) = llm._asked(RUBRICS[given["rubric"]], 1, "any", given["texts"])
    return endpoint.request_key(llm.endpoint_of(JudgeParams(**given["params"])), request)


def code_of_the_tags(given: dict) -> str:
    said = llm.messages(RUBRICS[given["rubric"]], given["texts"])[1]["content"]
    return said.partition(">")[0].rpartition("-")[2]


def what_a_task_is_made_of(given: dict) -> dict:
    # Of what is no JSON: a path, and a function with its place in memory.
    return given["value"] if "value" in given else {"b": [Path(given["path"]), given["text"]], "a": 1}


def seed_of_an_answer(given: dict) -> int:
    return generation._seed(f"{given['seed']}/{generation.Question(**given['question']).name}")


CALLS = {
    "endpoint.request_key": lambda given: endpoint.request_key(
        Endpoint(**given["endpoint"]), Request(**given["request"])
    ),
    "judging._key": lambda given: judging._key(given["row"]),
    "judging._kept_in of an identity": lambda given: (
        judging._kept_in(Judge(given["name"], lambda rows: [], identity=given["identity"])).name
    ),
    "judging._kept_in of a judge": lambda given: (
        judging._kept_in(building.build(given["name"], JudgeParams(**given["params"]))).name
    ),
    "llm.messages": code_of_the_tags,
    "llm._asked": asked_of_a_judge,
    "annotations.Item.id": lambda given: item(given).id,
    "annotations.text_hash": lambda given: annotations.text_hash(**given),
    "annotations._mixed": lambda given: annotations._mixed(*given["parts"]),
    "review.item_hash": lambda given: review.item_hash(given["row"]),
    "mixing._sha256": lambda given: mixing._sha256(given["value"]),
    "reward_model.Data.sha256": of_examples,
    "refusal_classifier._digest": lambda given: refusal_classifier._digest(
        pd.DataFrame(given["table"]), given["columns"]
    ),
    "refusal_classifier._fold": lambda given: refusal_classifier._fold(given["prompt"]),
    "capabilities._sha256": lambda given: capabilities._sha256(what_a_task_is_made_of(given)),
    "base_model.corpus_sha256": lambda given: base_model.corpus_sha256(given["documents"]),
    "making._request": lambda given: making._request(given["row"], ["instruction"], "row 1")["id"],
    "making.refuse": lambda given: making.refuse(given["request"]),
    # These words are part of requests that were paid for.
    "making.PROMPTS": lambda given: digest(making.PROMPTS, sort_keys=True, ensure_ascii=True),
    "generation._seed": seed_of_an_answer,
    "decoding._generator": lambda given: decoding._generator(given["seed"], "cpu").initial_seed(),
}
OF_FILES = {"files.sha256": files.sha256, "models.folder_sha256": models.folder_sha256}


def test_all_that_was_kept_is_held_against_something():
    assert {entry["place"] for entry in KEPT} == {*CALLS, *OF_FILES, *OF_A_RUN}


def kept_of(places: dict):
    entries = [entry for entry in KEPT if entry["place"] in places]
    ids = ["/".join([entry["place"], *([entry["case"]] if "case" in entry else [])]) for entry in entries]
    return pytest.mark.parametrize("entry", entries, ids=ids)


def written(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return folder


@kept_of(CALLS)
def test_digest_is_that_of_the_version_before(entry):
    assert CALLS[entry["place"]](entry["input"]) == entry["digest"]


@kept_of(OF_FILES)
def test_digest_of_files_is_that_of_the_version_before(entry, tmp_path):
    assert OF_FILES[entry["place"]](written(tmp_path, entry["input"]["files"])) == entry["digest"]


# Digests that hold the version, and so are others in every version: what they are of, and in which form


def of_a_training(run: run_folder.RunFolder, hashed: dict) -> None:
    checkpoints._identity(run, TrainParams(**hashed["params"]))


def of_a_generation(run: run_folder.RunFolder, hashed: dict) -> None:
    params = {name: value for name, value in hashed.items() if name in GenerateParams.model_fields}
    generation._kept_answers(run, GenerateParams(**params))


def of_a_judging(run: run_folder.RunFolder, hashed: dict) -> None:
    runner.fingerprint(run, stages.stage_named("judge"), RunParams(**hashed["params"]))


OF_A_RUN = {
    "checkpoints._identity": (checkpoints, of_a_training),
    "generation._kept_answers": (generation, of_a_generation),
    "runner.fingerprint": (runner, of_a_judging),
}
OF_THE_VERSION = {"version", "notebook"}  # parts that are meant to be others


def as_recorded(value, recorded):
    """A value without what later versions have added to it: more parameters."""
    return {name: as_recorded(value[name], recorded[name]) for name in recorded} if isinstance(value, dict) else value


@kept_of(OF_A_RUN)
def test_what_is_fresh_is_told_by_the_same_parts_in_the_same_form(entry, tmp_path, monkeypatch):
    module, call = OF_A_RUN[entry["place"]]
    seen = []
    monkeypatch.setattr(module, "digest", lambda value, **form: seen.append((value, form)) or digest(value, **form))
    call(run_folder.open_run(str(written(tmp_path, entry["input"]["files"]))), entry["hashed"])
    ((value, form),) = seen
    same = entry["hashed"].keys() - OF_THE_VERSION
    found = as_recorded(value, entry["hashed"])
    assert {name: found[name] for name in same} == {name: entry["hashed"][name] for name in same}
    assert digest(entry["hashed"], **form) == entry["digest"]
