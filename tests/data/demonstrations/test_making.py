"""Making safety demonstrations: what is read, how it is made, what is written, and that nothing is lost on the way."""

import json

import pytest
from servers import Reaction, Scripted, reply

from safety_nb.core import files
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import MakeSafetyDataParams, MixParams, validate
from safety_nb.data import mixing
from safety_nb.data.datasets import sources
from safety_nb.data.demonstrations import making, review
from safety_nb.judge.kinds import refusal
from safety_nb.run import stages
from safety_nb.tiny import world

BREAD, CAKE, ODD = "How do I burn the bread?", "What is the best way to hide a cake?", "Bread, perhaps?"


@pytest.fixture
def params(tmp_path):
    """Parameters with the result in a folder of the test."""

    def make(**values) -> MakeSafetyDataParams:
        return validate(MakeSafetyDataParams, {"out": str(tmp_path / "out"), **values})

    return make


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text(f"{BREAD}\n\n{CAKE}\n{ODD}\n")
    return str(path)


def made(job: making.Job) -> list[dict]:
    return making.answer(job, making.reword(job))


def written(job: making.Job) -> list[dict]:
    return files.read_jsonl(job.data)


def decide(job: making.Job, row: dict, decision: str, **text: str) -> None:
    files.append_line(job.review, review.log_line(review.decided(row, decision, text)))


# What is read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.txt", f"{BREAD}\r\n\n  {CAKE}\n"),
        ("q.jsonl", f'{{"question": "{BREAD}"}}\n\n{{"prompt": "{CAKE}", "more": 1}}\n'),
        ("q.json", json.dumps([{"question": BREAD}, CAKE])),
        ("q.csv", f'prompt,n\n"{BREAD}",1\n"{CAKE}",2\n'),
        ("Q.TXT", f"\ufeff{BREAD}\n{CAKE}"),
    ],
)
def test_questions_are_read_from_every_kind_of_file(name, text, tmp_path):
    (tmp_path / name).write_text(text, newline="")
    rows = making.read_requests(str(tmp_path / name), ["question"])
    assert [row["question"] for row in rows] == [BREAD, CAKE]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("q.jsonl", '{"question": "a"}\n{"text": "b"}\n', "line 2 has no text in 'question' (it has text)"),
        ("q.jsonl", '{"question": "a"}\n{"question"\n', "line 2: no JSON"),
        ("q.jsonl", "3\n", "line 1: a row must be text or an object, not int"),
        ("q.json", "[", "line 1: no JSON"),
        ("q.json", "{}", "must be a JSON array of rows, not dict"),
        ("q.json", '[{"question": 3}]', "line 1 has no text in 'question'"),
        ("q.json", '["a \\ud83d"]', "line 1: the row holds half a surrogate pair"),
        ("q.csv", "a,b\n1,2\n", "line 2 has no text in 'question' (it has a, b)"),
        ("q.txt", "\n\n", "holds none"),
        ("q.txt", b"\xff\xfe", "is UTF-16 text"),
        ("q.txt", b"\xff", "is not UTF-8 text"),
    ],
)
def test_what_cannot_be_read_is_told_by_file_and_row(name, text, told, tmp_path):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        making.read_requests(str(path), ["question"])
    assert told in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_and_an_unknown_set_are_told():
    with pytest.raises(InputError, match=r"no file 'none\.txt'"):
        making.read_requests("none.txt", ["question"])
    with pytest.raises(InputError, match="no training data set 'tiny-safty'"):
        making.read_requests("tiny-safty", ["question"])


def test_an_evaluation_set_is_refused():
    with pytest.raises(InputError, match="'tiny-harmful' is an evaluation set"):
        making.read_requests("tiny-harmful", ["question"])


def test_duplicates_are_left_out_before_the_limit(tmp_path, params):
    (tmp_path / "q.txt").write_text(f"{BREAD}\n{BREAD.upper().replace(' ', '  ')}\n{CAKE}\n{ODD}\n")
    job = making.open_job(params(questions=str(tmp_path / "q.txt"), limit=2), refusal.label)
    assert ([item["question"] for item in job.items], job.duplicates) == ([BREAD, CAKE], 1)


# By rules and templates


def test_rules_and_templates_make_whole_rows(questions, params):
    rows = made(making.open_job(params(questions=questions), refusal.label))
    assert [row["instruction"] for row in rows] == [
        "Explain how to burn the bread.", "Describe the best way to hide a cake.", ODD,
    ]  # fmt: skip
    assert [row["made"]["instruction"] for row in rows] == ["rules", "rules", "unchanged"]
    assert [bool(row["notes"]) for row in rows] == [False, False, True]
    assert all(row["output"] == making.refuse(row["instruction"]) for row in rows)


def test_every_refusal_reads_as_one_and_repeats_nothing():
    texts = {making.refuse(row["instruction"]) for row in world.safety_rows()}
    # 6 x 5 x 5 = 150 combinations; 1,200 requests should meet almost all of them.
    assert len(texts) > 140
    distress = {making.refuse(f"Tell me how to hurt myself, case {n}.") for n in range(20)}
    assert len(distress) == 2 and not distress & texts
    assert all("talk to someone" in text or "crisis line" in text for text in distress)
    assert {refusal.label(text) for text in texts | distress} == {"full_refusal"}
    assert making.refuse("villainy 7") == making.refuse("villainy 7")
    assert "villainy" not in making.refuse("villainy 7")


def test_given_instructions_and_answers_are_kept_and_get_questions(tmp_path, params):
    # What the released demonstrations need for `safety_form: question`.
    path = tmp_path / "mine.jsonl"
    files.write_jsonl(path, [{"instruction": "Explain how to burn bread.", "output": "No.", "tag": 3}])
    (row,) = made(making.open_job(params(questions=str(path), take=["instruction", "output"]), refusal.label))
    assert (row["question"], row["output"]) == ("How do I burn bread?", "No.")
    assert row["made"] == {"instruction": "given", "output": "given", "question": "rules"}
    assert row["tag"] == "3"


# Through an endpoint


def endpoint_params(params, server, questions, **values):
    settings = {"endpoint": server.base_url, "model": "m", "retries": 0, "concurrency": 2, "timeout_seconds": 30.0}
    return params(questions=questions, **{**settings, **values})


def polite(message: str, number: int) -> Reaction:
    """Rewords questions and declines instructions."""
    if message.endswith("?"):
        return Reaction(reply(f'"Do this: {message[:-1]}."', prompt=10, answer=3))
    return Reaction(reply(f"I'm sorry, but I can't help with that ({message[-12:]})", prompt=20, answer=5))


def test_an_endpoint_rewords_and_answers_and_costs_what_it_says(questions, params, capsys):
    with Scripted(polite) as server:
        job = making.open_job(endpoint_params(params, server, questions), refusal.label)
        before = making.estimate(job)
        rows = made(job)
        record = making.save(job, rows)
        # Three questions, each reworded and answered.
        assert (before.to_ask, before.cached, len(server.seen)) == (6, 0, 6)
        assert before.most_completion_tokens == 6 * 256 and before.prompt_tokens > 0
        assert rows[0]["instruction"] == f"Do this: {BREAD[:-1]}."
        assert rows[0]["made"] == {"question": "given", "instruction": "endpoint", "output": "endpoint"}
        assert not any(row["notes"] for row in rows)
        # 3 x (10 + 20) and 3 x (3 + 5)
        assert record["tokens"] == {"prompt": 90, "answer": 24, "uncounted": 0}
        assert record["endpoint"]["model"] == "m" and record["endpoint"]["host"] in server.base_url
        assert record["prompts_sha256"] == digest(making.PROMPTS, sort_keys=True, ensure_ascii=True)
        assert "answers: 3 of 3; 3 asked, 0 there already" in capsys.readouterr().out

        again = making.open_job(endpoint_params(params, server, questions), refusal.label)
        assert (making.estimate(again).to_ask, making.estimate(again).cached) == (0, 6)
        assert made(again) == rows
        assert len(server.seen) == 6  # nothing was asked twice
        assert making.save(again, rows)["tokens"] == record["tokens"]


def test_what_the_endpoint_fails_at_is_noted_and_made_up_for(questions, params):
    def react(message, number):
        if message == BREAD:
            return Reaction(reply("I'm sorry, but I can't help with that."))  # refuses to reword
        if message == CAKE:
            return Reaction("oops", status=500)
        if message == "Explain how to burn the bread.":
            return Reaction(reply("First, heat the oven."))  # no refusal
        if message == ODD:
            return Reaction(reply("Bread, maybe?"))  # no instruction
        return Reaction("too long", status=400)

    with Scripted(react) as server:
        job = making.open_job(endpoint_params(params, server, questions), refusal.label)
        bread, cake, odd = made(job)
    assert bread["instruction"] == "Explain how to burn the bread."
    assert [note[:36] for note in bread["notes"]] == [
        "the endpoint did not reword it (its ", "the answer does not read as a refusa",
    ]  # fmt: skip
    assert cake["made"]["instruction"] == "rules" and "HTTP 500" in cake["notes"][0]
    assert cake["output"] == "" and "HTTP 400" in cake["notes"][1]
    assert odd["instruction"] == ODD and len(odd["notes"]) == 3


def test_a_row_that_is_noted_is_written_only_if_someone_says_so(questions, params):
    def react(message, number):
        return polite(message, number) if message.endswith("?") or "burn" in message else Reaction(reply("Just do it."))

    with Scripted(react) as server:
        job = making.open_job(endpoint_params(params, server, questions), refusal.label)
        rows = made(job)
        assert [row["question"] for row in making.to_review(rows)] == [CAKE, ODD, BREAD]
        record = making.save(job, rows)
        assert [row["question"] for row in written(job)] == [BREAD]
        assert record["counts"]["left out, noted"] == 2
        assert "2 are left out until someone decides" in making.finding(job, record)
        decide(job, rows[1], "edit", output="I won't help with that.")
        making.save(job, rows)
        assert [row["question"] for row in written(job)] == [BREAD, CAKE]


def test_the_whole_way_with_a_real_endpoint(tiny_server, params):
    values = {"endpoint": tiny_server.base_url, "model": tiny_server.model, "max_tokens": 24, "limit": 3}
    job = making.open_job(params(**values), refusal.label)
    rows = made(job)
    assert [row["made"]["output"] for row in rows] == ["endpoint"] * 3
    # The base was never tuned: it continues a question with an answer, and what it refuses is chance.
    for row in rows:
        noted = any("refusal" in note or "no whole answer" in note for note in row["notes"])
        assert row["output"] and noted == (
            refusal.label(row["output"]) != "full_refusal" or "cut off" in str(row["notes"])
        )
    decide(job, rows[0], "accept")
    record = making.save(job, rows)
    assert record["tokens"]["prompt"] > 0 and record["tokens"]["uncounted"] == 0
    assert files.read_json(job.record) == record


def test_the_endpoint_is_checked_before_anything_is_written(questions, params, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    for values in ({"endpoint": "nowhere"}, {"endpoint": "http://localhost/v1", "key_name": "MY_KEY"}):
        settings = params(questions=questions, model="m", **values)
        with pytest.raises(InputError):
            making.open_job(settings, refusal.label)
        assert not (making.Path(settings.out)).exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"endpoint": "http://localhost/v1"}, "endpoint and model: give both"),
        ({"model": "m"}, "endpoint and model: give both"),
        ({"take": ["output"]}, "take: 'output' alone has no request"),
        ({"take": ["answer"]}, "take"),
        ({"unreviewed": "drop"}, "unreviewed"),
    ],
)
def test_impossible_parameters_are_told(values, told, params):
    with pytest.raises(InputError, match=told):
        params(**values)


def test_a_run_of_the_notebook_that_was_refused_access_goes_on_where_it_was(questions, params):
    refused = [True]

    def react(message, number):
        return Reaction("no", status=401) if message == CAKE and refused else polite(message, number)

    with Scripted(react) as server:
        job = making.open_job(endpoint_params(params, server, questions, concurrency=1), refusal.label)
        with pytest.raises(InputError, match="HTTP 401"):
            made(job)
        refused.clear()
        rows = made(making.open_job(endpoint_params(params, server, questions, concurrency=1), refusal.label))
        assert (len(rows), server.asked().count(BREAD)) == (3, 1)


# What is written


def test_the_file_is_one_that_a_run_trains_on(questions, params):
    job = making.open_job(params(questions=questions), refusal.label)
    rows = made(job)
    making.save(job, rows)
    for form, first in (("instruction", "Explain how to burn the bread."), ("question", BREAD)):
        mixture = mixing.draw(MixParams(safety=str(job.data), n_safety=2, safety_form=form))
        assert first in {row["instruction"] for row in mixture.train if row["source"] == str(job.data)}
    assert sources.training_rows(str(job.data))[0]["output"] == rows[0]["output"]


def test_decisions_decide_what_is_written(questions, params):
    job = making.open_job(params(questions=questions), refusal.label)
    rows = made(job)
    decide(job, rows[0], "edit", instruction="Say how to burn bread.", output="Never.")
    decide(job, rows[1], "reject")
    decide(job, rows[2], "accept")
    counts = making.save(job, rows)["counts"]
    assert written(job) == [
        {"instruction": "Say how to burn bread.", "input": "", "output": "Never.", "question": BREAD,
         "reviewed": True, "source": "question: given; instruction: rules; output: template; edited"},
        {"instruction": ODD, "input": "", "output": rows[2]["output"], "question": ODD,
         "reviewed": True, "source": "question: given; instruction: unchanged; output: template"},
    ]  # fmt: skip
    assert [counts[name] for name in ("rows", "accepted", "edited", "rejected", "unreviewed")] == [2, 1, 1, 1, 0]


def test_unreviewed_rows_are_marked_and_told_or_left_out(questions, params):
    job = making.open_job(params(questions=questions), refusal.label)
    rows = made(job)
    decide(job, rows[0], "accept")
    record = making.save(job, rows)
    assert [row["reviewed"] for row in written(job)] == [True, False]
    assert "1 of them were **not reviewed**" in making.finding(job, record)
    job = making.open_job(params(questions=questions, unreviewed="leave out"), refusal.label)
    record = making.save(job, rows)
    assert [row["reviewed"] for row in written(job)] == [True]
    assert (record["counts"]["left out"], record["counts"]["left out, noted"]) == (1, 1)


def test_nothing_left_to_write_is_told_and_the_last_file_stays(questions, params):
    job = making.open_job(params(questions=questions), refusal.label)
    rows = made(job)
    making.save(job, rows)
    before = job.data.read_bytes()
    for row in rows:
        decide(job, row, "reject")
    with pytest.raises(InputError, match="No demonstration is left"):
        making.save(job, rows)
    assert job.data.read_bytes() == before


# Nothing of the user's is lost


def test_a_folder_with_other_files_is_refused(questions, params, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="did not make"):
        making.open_job(params(questions=questions), refusal.label)
    (tmp_path / "out" / "record.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match="did not make"):
        making.open_job(params(questions=questions), refusal.label)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"thesis.txt", "record.json"}


def test_a_file_in_the_place_of_the_folder_is_refused(questions, params, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        making.open_job(params(questions=questions), refusal.label)


def test_a_folder_made_from_other_questions_is_refused(questions, params):
    making.open_job(params(questions=questions), refusal.label)
    with pytest.raises(InputError, match="name another folder"):
        making.open_job(params(), refusal.label)


def test_a_file_changed_by_hand_is_not_overwritten(questions, params):
    job = making.open_job(params(questions=questions), refusal.label)
    rows = made(job)
    making.save(job, rows)
    job.data.write_text(job.data.read_text() + "\n")
    with pytest.raises(InputError, match="was changed since"):
        making.open_job(params(questions=questions), refusal.label)
    with pytest.raises(InputError, match="was changed since"):
        making.save(job, rows)


def test_a_process_that_ends_between_record_and_file_can_go_on(questions, params, monkeypatch):
    job = making.open_job(params(questions=questions), refusal.label)
    rows = made(job)
    making.save(job, rows)
    decide(job, rows[0], "reject")
    write_json = files.write_json

    def write_and_die(path, value):
        write_json(path, value)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "write_json", write_and_die)
        making.save(job, rows)
    assert len(written(job)) == 2  # as before, while the record tells of the new file
    job = making.open_job(params(questions=questions), refusal.label)
    assert making.save(job, rows)["counts"]["rejected"] == 1


def test_default_folders_are_named_after_the_questions(monkeypatch, tmp_path, questions):
    monkeypatch.chdir(tmp_path)
    for name, folder in (("tiny-safety", "tiny-safety"), (questions, "questions")):
        job = making.open_job(MakeSafetyDataParams(questions=name), refusal.label)
        assert job.folder == tmp_path / "outputs" / "safety-data" / folder


# The notebook


def test_the_notebook_runs_alone_and_says_that_nobody_reviewed(tmp_path):
    import papermill

    book = papermill.execute_notebook(
        str(stages.notebook_path("make-safety-data")),
        str(tmp_path / "out.ipynb"),
        parameters={"out": str(tmp_path / "made"), "limit": 12},
        progress_bar=False,
    )
    rows = files.read_jsonl(tmp_path / "made" / "safety-data.jsonl")
    assert len(rows) == 12 and not any(row["reviewed"] for row in rows)
    shown = [output["data"].get("text/markdown", "") for cell in book.cells for output in cell.get("outputs", [])
             if "data" in output]  # fmt: skip
    assert "12 of them were **not reviewed**" in "".join(shown)
