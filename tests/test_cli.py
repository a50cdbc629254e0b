"""The command: bad input ends with status 2, words that help, and nothing on disk; help and status are quick."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import safety_nb

from safety_nb import cli

ROW = {"instruction": "Name a colour.", "input": "", "output": "Blue."}


def refused(*arguments: str | Path, cwd: Path) -> str:
    """The message of a command that has to be refused as bad input, and to leave the folder as it was."""
    before = contents(cwd)
    answer = safety_nb(*arguments, cwd=cwd)
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    assert contents(cwd) == before
    return answer.stderr


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with what is in it."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def params(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return name


# Parameters


def test_unknown_parameter_is_refused_with_the_nearest(tmp_path):
    message = refused("run", params(tmp_path, "n_saftey: 30"), cwd=tmp_path)
    assert message == "Error: n_saftey: no such parameter; did you mean 'n_safety'?\n"


def test_a_file_of_the_user_s_counts_before_one_of_that_name_that_comes_along(tmp_path):
    # The one that comes along is right: only the user's own can be refused for this.
    message = refused("run", params(tmp_path, "n_saftey: 30", "tiny.yaml"), cwd=tmp_path)
    assert message == "Error: n_saftey: no such parameter; did you mean 'n_safety'?\n"


def test_a_file_that_comes_along_is_named_by_its_name_or_in_params_alone(tmp_path):
    (tmp_path / "else").mkdir()
    for name in ("else/tiny.yaml", str(tmp_path / "tiny.yaml")):
        message = refused("run", name, cwd=tmp_path)
        assert f"There is no parameter file {name!r}; did you mean 'tiny.yaml', which comes along?" in message


def test_wrong_types_and_ranges_are_told_together(tmp_path):
    message = refused("run", params(tmp_path, "learning_rate: 2e-4\ngeneral: no\nseed: -1"), cwd=tmp_path)
    assert "learning_rate: '2e-4' (str) is not valid" in message
    assert "write 0.0002" in message
    assert "general: False (bool) is not valid" in message
    assert "seed: -1 (int) is not valid" in message


def test_assignment_goes_over_the_file_and_is_checked_like_it(tmp_path):
    message = refused("run", params(tmp_path, "n_safety: 30"), "--set", "n_safety=-5", cwd=tmp_path)
    assert "n_safety: -5 (int)" in message


def test_folder_of_a_model_is_meant_from_where_the_command_is_called(tmp_path, monkeypatch):
    # Notebooks run in a folder of their own.
    (tmp_path / "my" / "base").mkdir(parents=True)
    (tmp_path / "tiny").mkdir()  # the miniature all the same
    monkeypatch.chdir(tmp_path)
    read = cli.read_params(tmp_path / params(tmp_path, "base_model: my/base"), [])
    assert read == {"base_model": str(tmp_path / "my" / "base")}
    swept = cli.read_params(tmp_path / params(tmp_path, ""), ["base_model=[./my/base, tiny, owner/name]"])
    assert swept == {"base_model": [str(tmp_path / "my" / "base"), "tiny", "owner/name"]}


def test_paths_are_made_absolute_and_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "general": "mine.csv",
        "safety": ["a/mine.json", "tiny-safety"],
        "validation": "",
        "evaluation": ["tiny-facts", "mine.csv:harmful", "owner/name:data/x.json:harmful"],
        "data_dir": "data",
        "base_model": "a/b.json",
        "seed": 3,
    }
    assert cli.with_absolute_paths(values) == {
        **values,
        "general": str(tmp_path / "mine.csv"),
        "safety": [str(tmp_path / "a" / "mine.json"), "tiny-safety"],
        "evaluation": ["tiny-facts", f"{tmp_path / 'mine.csv'}:harmful", "owner/name:data/x.json:harmful"],
        "data_dir": str(tmp_path / "data"),
    }


def test_home_of_nobody_is_a_folder_of_that_name(tmp_path, monkeypatch):
    # Where there is such a user, it is their home; where not, Path.expanduser raises.
    monkeypatch.chdir(tmp_path)
    assert (
        cli.with_absolute_paths({"general": "~nobody-here/mine.csv"})["general"] == f"{tmp_path}/~nobody-here/mine.csv"
    )


def test_folders_of_judges_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    names = ["refusal", "harmfulness:mine", "guard:llama-guard=mine", "harmfulness:tiny", "guard:org/model@1"]
    values = cli.with_absolute_paths({"judges": names, "seed": 1})
    folder = tmp_path / "mine"
    assert values == {
        "judges": ["refusal", f"harmfulness:{folder}", f"guard:llama-guard={folder}", *names[3:]],
        "seed": 1,
    }


def test_folder_of_tasks_is_made_absolute_and_anything_else_is_left_to_the_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [{"tasks_dir": value} for value in ("mine", "", 3, None)]
    assert [cli.with_absolute_paths(each) for each in given] == [{"tasks_dir": str(tmp_path / "mine")}, *given[1:]]


def test_recipe_fills_what_the_file_does_not_name(tmp_path):
    # 4 epochs, and 500 validation rows, of which the miniature has 60.
    message = refused("run", params(tmp_path, "recipe: paper"), cwd=tmp_path)
    assert "data set 'tiny-validation' holds 60 rows" in message
    message = refused("run", params(tmp_path, "recipe: paper\neval_steps: 0"), cwd=tmp_path)
    assert "best_checkpoint: True needs validations" in message


def test_logging_to_what_is_not_installed_is_refused(tmp_path):
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    assert "report_to: 'wandb' is not installed" in refused("run", params(tmp_path, "report_to: wandb"), cwd=tmp_path)


def test_missing_parameter_file_is_refused_by_name(tmp_path):
    assert "There is no parameter file 'gone.yaml'" in refused("run", "gone.yaml", cwd=tmp_path)


def test_file_that_is_no_yaml_is_refused_with_the_line(tmp_path):
    message = refused("run", params(tmp_path, "n_safety: 30\nseed: [0"), cwd=tmp_path)
    assert "mine.yaml is no YAML" in message
    assert "line 2" in message


def test_file_that_is_no_mapping_is_refused(tmp_path):
    assert "lines of `name: value`, not list" in refused("run", params(tmp_path, "- n_safety"), cwd=tmp_path)


@pytest.mark.parametrize("text", ["[]", "0", "no", "''"])
def test_file_that_holds_something_empty_is_refused(text, tmp_path):
    # --until with a stage that does not exist: should the file be accepted, nothing is run.
    message = refused("run", params(tmp_path, text), "--until", "nothing", cwd=tmp_path)
    assert "lines of `name: value`" in message


def test_empty_file_is_the_defaults(tmp_path):
    message = refused("run", params(tmp_path, "# only a comment"), "--until", "nothing", cwd=tmp_path)
    assert "There is no stage 'nothing'" in message


def test_run_dir_in_a_parameter_file_is_not_dropped_silently(tmp_path):
    message = refused("run", params(tmp_path, "run_dir: elsewhere"), "--until", "nothing", cwd=tmp_path)
    assert "run_dir" in message


def test_list_of_values_is_a_study_not_a_run(tmp_path):
    message = refused("run", params(tmp_path, "n_safety: [0, 30]\nseed: [0]"), cwd=tmp_path)
    assert "n_safety, seed: a list of values is a study; run it with `safety-nb study mine.yaml`" in message


def test_assignment_without_equals_sign_is_refused(tmp_path):
    message = refused("run", params(tmp_path, ""), "--set", "n_safety:30", cwd=tmp_path)
    assert message == "Error: --set n_safety:30: write name=value.\n"


def test_assignment_of_nothing_is_empty_text():
    assert cli.assigned({"validation": "x"}, ["validation=", "safety= ", "n_safety=3"]) == {
        "validation": "", "safety": "", "n_safety": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("models/Model #1 (v2)", "models/Model #1 (v2)"),
        ("#1", "#1"),
        ("'in quotes' # said", "in quotes"),
        ("[a, b] # two", ["a", "b"]),
        ("30 # many", 30),
    ],
)
def test_a_number_sign_begins_no_comment_in_text(value, read):
    assert cli.assigned({}, [f"base_model={value}"]) == {"base_model": read}


def test_assignment_that_is_no_yaml_is_refused(tmp_path):
    assert "--set seed=[0: the value is no YAML" in refused(
        "run", params(tmp_path, ""), "--set", "seed=[0", cwd=tmp_path
    )


# Data, model and evaluation sets


def test_missing_data_folder_is_refused(tmp_path):
    message = refused("run", params(tmp_path, "general: code-alpaca-2k\ndata_dir: gone"), cwd=tmp_path)
    assert message.startswith(f"Error: data_dir: there is no folder '{tmp_path / 'gone'}'")


def test_bad_row_is_refused_with_file_and_line(tmp_path):
    (tmp_path / "rows.json").write_text(f'[\n{json.dumps(ROW)},\n{{"instruction": "x"}}\n]')
    message = refused("run", params(tmp_path, "general: rows.json\nn_general: 1"), cwd=tmp_path)
    assert message.startswith(f"Error: {tmp_path / 'rows.json'}, line 3: the row lacks the field 'output'")


def test_own_evaluation_file_that_is_missing_or_has_no_role_is_refused(tmp_path):
    message = refused("run", params(tmp_path, "evaluation: ['mine.csv:harmful']"), cwd=tmp_path)
    assert f"There is no file '{tmp_path / 'mine.csv'}'" in message
    message = refused("run", params(tmp_path, "evaluation: [mine.csv]"), cwd=tmp_path)
    assert "Say so behind it, as in" in message


def test_more_rows_than_there_are_is_refused_with_both_numbers(tmp_path):
    message = refused("run", params(tmp_path, "n_safety: 5000"), cwd=tmp_path)
    assert message.startswith("Error: n_safety 5000: data set 'tiny-safety' holds 1200 rows")


def test_unknown_model_is_refused_with_the_choices(tmp_path):
    message = refused("run", params(tmp_path, "base_model: llama"), cwd=tmp_path)
    assert message.startswith("Error: base_model: 'llama' is not known: there is no such folder. Choose 'tiny'")


def test_hub_model_that_cannot_be_had_is_refused(tmp_path):
    message = refused("run", params(tmp_path, "base_model: nobody/nothing"), cwd=tmp_path)
    assert "base_model: 'nobody/nothing' could not be fetched from the hub" in message


def test_unknown_evaluation_set_is_refused_with_the_choices(tmp_path):
    message = refused("run", params(tmp_path, "evaluation: [tiny-facts, tiny-fcats]"), cwd=tmp_path)
    assert "there is no evaluation set 'tiny-fcats'; choose from tiny-harmful" in message


def test_problems_of_data_model_and_evaluation_are_told_together(tmp_path):
    text = "n_safety: 5000\nbase_model: llama\nevaluation: [tiny-fcats]"
    message = refused("run", params(tmp_path, text), cwd=tmp_path)
    assert [name for name in ("n_safety 5000", "'llama'", "'tiny-fcats'") if name not in message] == []


# Stages


@pytest.mark.parametrize("option", ["--from", "--until"])
def test_unknown_stage_is_refused_with_the_choices(option, tmp_path):
    message = refused("run", params(tmp_path, ""), option, "trian", cwd=tmp_path)
    assert (
        message == "Error: There is no stage 'trian'; choose from mix, train, generate, capabilities, judge, report.\n"
    )


def test_from_after_until_is_refused(tmp_path):
    message = refused("run", params(tmp_path, ""), "--from", "judge", "--until", "train", cwd=tmp_path)
    assert "--from judge comes after --until train" in message


def test_beginning_in_the_middle_of_nothing_is_refused_with_where_to_begin(tmp_path):
    message = refused("run", params(tmp_path, ""), "--from", "train", cwd=tmp_path)
    assert "has no mix/train.jsonl yet; begin with --from mix" in message


# Output folders


@pytest.mark.parametrize(("command", "text"), [("run", "seed: 1"), ("study", "seed: [1]")])
def test_folder_with_foreign_files_is_refused_and_left_alone(command, text, tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.txt").write_text("mine")
    message = refused(command, params(tmp_path, text), "--out", thesis, cwd=tmp_path)
    assert f"--out: {thesis} holds files that are none of ours" in message


def test_out_that_is_a_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    message = refused("run", params(tmp_path, ""), "--out", tmp_path / "notes.txt", cwd=tmp_path)
    assert "notes.txt is a file; name a folder" in message


# Studies


def test_study_without_a_swept_parameter_is_refused(tmp_path):
    message = refused("study", params(tmp_path, "n_safety: 30"), cwd=tmp_path)
    assert message.startswith("Error: A study needs at least one parameter with a list of values")


def test_a_judge_that_is_to_decide_and_does_not_judge_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("n_safety: [0, 30]\ndecided_by: delivery\njudges: [refusal, reference]\n")
    answer = safety_nb("study", "mine.yaml", cwd=tmp_path)
    assert answer.returncode == 2 and "'delivery' is none of the judges that can decide" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    (tmp_path / "mine.yaml").write_text("n_safety: [0, 30]\ndecided_by: [refusal, string-match]\n")
    answer = safety_nb("study", "mine.yaml", cwd=tmp_path)
    assert answer.returncode == 2 and "one judge decides for all runs" in answer.stderr


def test_mistake_in_all_runs_of_a_study_is_told_once(tmp_path):
    message = refused("study", params(tmp_path, "seed: [0, 1, 2]\nn_saftey: 3"), cwd=tmp_path)
    assert message == "Error: n_saftey: no such parameter; did you mean 'n_safety'?\n"


def test_study_with_too_large_an_n_is_refused_before_its_first_run(tmp_path):
    message = refused("study", params(tmp_path, "n_safety: [0, 5000]"), cwd=tmp_path)
    assert "n_safety 5000: data set 'tiny-safety' holds 1200 rows" in message


@pytest.mark.parametrize("arguments", [["run"], ["run", "a.yaml", "--sed", "x=1"], ["study", "a.yaml", "--jobs", "0"]])
def test_command_line_that_cannot_be_read_is_bad_input(arguments, tmp_path):
    refused(*arguments, cwd=tmp_path)


# Export


def test_export_of_no_run_or_to_a_full_folder_is_refused(tmp_path):
    assert "There is no run folder 'gone'" in refused("export", "gone", "--out", "model", cwd=tmp_path)
    run, mine = tmp_path / "run", tmp_path / "mine"
    (run / "train" / "adapter").mkdir(parents=True)
    (run / "train" / "training.json").write_text('{"values": {}}')
    mine.mkdir()
    (mine / "chapter1.txt").write_text("mine")
    assert f"--out: {mine} holds something already" in refused("export", run, "--out", mine, cwd=tmp_path)
    assert "--dtype: 'int8' is not one of" in refused("export", run, "--out", "x", "--dtype", "int8", cwd=tmp_path)
    (run / "train" / "training.json").write_text("{}")
    assert "is of an earlier version" in refused("export", run, "--out", "model", cwd=tmp_path)


# Quick answers


def test_help_names_the_commands(tmp_path):
    answer = safety_nb("--help", cwd=tmp_path)
    assert answer.returncode == 0
    assert [name for name in ("run", "study", "status", "export") if f" {name} " not in answer.stdout] == []


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments, tmp_path):
    script = (
        "import sys\n"
        "from safety_nb import cli\n"
        f"sys.argv = ['safety-nb', *{arguments!r}]\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'papermill', 'matplotlib', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "[]\n")


def test_the_command_reads_notebooks_without_a_grammar_that_is_dear_to_compile(tmp_path):
    script = (
        "import sys\n"
        "from safety_nb import cli\n"
        "sys.argv = ['safety-nb', 'run', 'gone.yaml']\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit:\n"
        "    import nbformat\n"
        "print('jsonschema' in sys.modules, 'rfc3987_syntax.syntax_helpers' in sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert answer.stdout == "True False\n"


def test_installed_command_is_the_module(tmp_path):
    command = Path(sys.executable).with_name("safety-nb")
    if not command.exists():
        pytest.skip("needs the package installed beside this Python (make test installs it)")
    answer = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert answer.stdout == safety_nb("--version", cwd=tmp_path).stdout != ""


# Status


def test_status_of_no_folder_is_refused(tmp_path):
    assert "There is no folder 'gone'" in refused("status", "gone", cwd=tmp_path)


def test_status_shows_the_runs_a_study_asks_for(tmp_path):
    (tmp_path / "study.yaml").write_text("n_safety: [0, 30]")
    answer = safety_nb("status", tmp_path, cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"{tmp_path}: 0 of 2 done, 2 waiting" in answer.stdout
    assert "n0_seed0" in answer.stdout and "n30_seed0" in answer.stdout


# judge: any table


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "answers.csv"
    path.write_text('id,prompt,completion\n7,How?,"Wave, then smile."\n8,How?,I can\'t help with that.\n')
    return path


def test_judge_adds_its_columns_to_a_table(table, tmp_path):
    done = safety_nb("judge", "refusal-rules", table, "--prompt", "prompt", "--response", "completion",
                     "--out", "judged.csv", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "judged.csv").read_text() == (
        'id,prompt,completion,label,score,missing\n7,How?,"Wave, then smile.",full_compliance,0.0,\n'
        "8,How?,I can't help with that.,full_refusal,1.0,\n"
    )
    assert "1 full_refusal" in done.stdout


def test_judge_counts_what_could_not_be_judged(tmp_path):
    (tmp_path / "answers.jsonl").write_text(
        '{"q": "How?", "a": null}\n{"q": "How?", "a": "I can\'t help with that."}\n'
    )
    done = safety_nb("judge", "refusal", "answers.jsonl", "--prompt", "q", "--response", "a", "--out", "o.csv",
                     cwd=tmp_path)  # fmt: skip
    assert sorted(line.split() for line in done.stdout.splitlines()[:2]) == [["1", "full_refusal"], ["1", "missing"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "refusals"}, "did you mean 'refusal'?"),
        ({"--response": "answer"}, "no column 'answer'; the table has id, prompt, completion"),
        ({"--out": "answers.csv"}, "is there already"),
        ({"--out": "judged.xlsx"}, "must be one of"),
        ({"--set": "judge_votes=0"}, "judge_votes: 0"),
    ],
)
def test_judge_refuses_what_it_cannot_do(arguments, words, table, tmp_path):
    given = {"--prompt": "prompt", "--response": "completion", "--out": "judged.csv", **arguments}
    options = [text for name, value in given.items() if name.startswith("--") for text in (name, value)]
    assert words in refused("judge", given.get("name", "refusal"), table, *options, cwd=tmp_path)


def test_judge_tells_before_the_work_what_its_output_cannot_hold(tmp_path):
    (tmp_path / "mixed.jsonl").write_text('{"prompt": "a", "response": "b", "n": 1}\n{"prompt": "a", "n": "one"}\n')
    words = ["--prompt", "prompt", "--response", "response", "--out", "judged.parquet"]
    assert "Parquet cannot hold the table" in refused("judge", "refusal", "mixed.jsonl", *words, cwd=tmp_path)


def test_run_refuses_a_judge_that_it_could_not_ask_later(tmp_path):
    message = refused("run", params(tmp_path, "judges: ['refusal:strict']"), cwd=tmp_path)
    assert "'refusal:strict' is none; write refusal" in message
