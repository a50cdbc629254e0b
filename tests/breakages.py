"""Lines of the package broken one at a time, to see whether the tests notice: each is a guard that has to hold.

    .venv/bin/python tests/breakages.py             all of them
    .venv/bin/python tests/breakages.py data stats  those of some rooms

Each is made in a copy of the checkout, where the test file named beside it is executed up to the first failure. What is
printed is the test that noticed; the status is 1 if one goes unnoticed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Breakage:
    """What stands in a module once, what it is changed to, and the test file (below ``tests/``) that has to notice."""

    module: str
    right: str
    broken: str
    tests: str


BREAKAGES = (
    Breakage(
        "core/files.py",
        'parts = sorted(f"{file.relative_to(path)}:{of_file(file)}"',
        'parts = sorted(f"{of_file(file)}"',
        "core/test_run_folder.py",
    ),
    Breakage(
        "core/secrets.py",
        "if len(value) >= SHORTEST",
        "if len(value) > SHORTEST",
        "core/test_secrets.py",
    ),
    Breakage(
        "core/text.py",
        "return html.escape(visible(text, limit)[0])",
        "return visible(text, limit)[0]",
        "judge/test_labelling.py",
    ),
    Breakage(
        "core/text.py",
        "if 0.995 < share < 1:",
        "if 0.995 < share < 0:",
        "report/findings/test_rates.py",
    ),
    Breakage(
        "core/endpoint.py",
        "many = self._failed_in_a_row >= _GIVE_UP_AFTER",
        "many = self._failed_in_a_row > _GIVE_UP_AFTER",
        "core/test_endpoint.py",
    ),
    Breakage(
        "core/wire.py",
        "if status in (408, 409, 429) or status >= 500:",
        "if status in (408, 409) or status >= 500:",
        "core/test_endpoint.py",
    ),
    Breakage(
        "core/params.py",
        "if micro < batch and batch % micro:",
        "if micro < batch and batch % micro == 0:",
        "core/test_params.py",
    ),
    Breakage(
        "stats/estimates.py",
        "return max(self.of_seeds - self.of_cells, 0.0)",
        "return max(self.of_seeds + self.of_cells, 0.0)",
        "stats/test_estimates.py",
    ),
    Breakage(
        "stats/paired.py",
        "if -margin < found.low and found.high < margin:",
        "if -margin < found.low or found.high < margin:",
        "stats/test_paired.py",
    ),
    Breakage(
        "stats/paired.py",
        "linear = lost + won - supposed * (2 * n + lost - won)",
        "linear = lost + won - supposed * (2 * n + lost + won)",
        "stats/test_paired.py",
    ),
    Breakage(
        "stats/dose.py",
        "misses = [n for n in tried if high[n] > target]",
        "misses = [n for n in tried if high[n] >= target]",
        "stats/test_dose.py",
    ),
    Breakage(
        "stats/agreement.py",
        "pairs = n_true * (weights.sum(1) - n_true)",
        "pairs = n_true * (weights.sum(1) + n_true)",
        "stats/test_agreement.py",
    ),
    Breakage(
        "stats/prediction_powered.py",
        "errors = y - weight * f",
        "errors = y + weight * f",
        "stats/test_prediction_powered.py",
    ),
    Breakage(
        "tiny/world.py",
        "others = {first(section, other, thing) for other in _tasks(section)} - {right, *wrong}",
        "others = {first(section, other, thing) for other in _tasks(section)} - {*wrong}",
        "generate/test_capabilities.py",
    ),
    Breakage(
        "data/mixing.py",
        'n_general = params.n_general - (params.n_safety if params.total == "fixed" else 0)',
        'n_general = params.n_general - (params.n_safety + 1 if params.total == "fixed" else 0)',
        "data/test_mixing.py",
    ),
    Breakage(
        "data/mixing.py",
        'return "question" if after > before else "instruction"',
        'return "question" if after >= before else "instruction"',
        "data/test_mixing.py",
    ),
    Breakage(
        "data/overlap.py",
        "if text[place : place + len(whole)] == whole:",
        "if text[place : place + len(whole) - 1] == whole[:-1]:",
        "data/test_overlap.py",
    ),
    Breakage(
        "data/decontamination.py",
        'if message["role"] == "user"]',
        'if message["role"] != "system"]',
        "data/test_mixing.py",
    ),
    Breakage(
        "data/datasets/fetch.py",
        "if answer.status == 206 and not resumed:",
        "if answer.status == 206 and resumed:",
        "data/datasets/test_fetch.py",
    ),
    Breakage(
        "data/datasets/rows.py",
        "if needed and not value.strip():",
        "if needed and not value:",
        "data/datasets/test_rows.py",
    ),
    Breakage(
        "data/demonstrations/making.py",
        "items = list({_identity(row): row for row in reversed(rows)}.values())[::-1]",
        "items = list({_identity(row): row for row in reversed(rows)}.values())",
        "data/demonstrations/test_making.py",
    ),
    Breakage(
        "data/demonstrations/rewording.py",
        'lead = "some " if several and not head["determiner"] else ""',
        'lead = "some " if several else ""',
        "data/demonstrations/test_rewording.py",
    ),
    Breakage(
        "train/encoding.py",
        "labels += ids[len(labels) : end] + [IGNORED] * (len(ids) - end)",
        "labels += ids[len(labels) : end - 1] + [IGNORED] * (len(ids) - end + 1)",
        "train/test_encoding.py",
    ),
    Breakage(
        "train/packing.py",
        "fits = [index for index, left in enumerate(room) if left >= length]",
        "fits = [index for index, left in enumerate(room) if left > length]",
        "train/test_packing.py",
    ),
    Breakage(
        "train/checkpoints.py",
        "sorted(self._all(), key=step_of, reverse=True)",
        "sorted(self._all(), key=step_of)",
        "train/test_resume.py",
    ),
    Breakage(
        "train/packed_trainer.py",
        "step = self.state.global_step + 1",
        "step = self.state.global_step",
        "train/test_resume.py",
    ),
    Breakage(
        "generate/decoding.py",
        "self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)",
        "self._positions = self._mask.cumsum(1).clamp(min=0)",
        "generate/test_decoding.py",
    ),
    Breakage(
        "generate/coherence.py",
        "return len(set(triples)) < len(triples) / 4",
        "return len(set(triples)) < len(triples) / 8",
        "generate/test_coherence.py",
    ),
    Breakage(
        "generate/generation.py",
        "if room is not None and length > room:",
        "if room is not None and length >= room:",
        "generate/test_generation.py",
    ),
    Breakage(
        "judge/annotations.py",
        "order = sorted(strata, key=lambda key: _mixed(seed, *key[0], key[1]))",
        "order = sorted(strata)",
        "judge/test_labelling.py",
    ),
    Breakage(
        "judge/kinds/llm.py",
        "if not counts or 2 * counts[0][1] <= len(ballots):",
        "if not counts or 2 * counts[0][1] < len(ballots):",
        "judge/kinds/test_llm.py",
    ),
    Breakage(
        "judge/kinds/refusal_rules.py",
        'if n_items < 2 and "no_access" in',
        'if "no_access" in',
        "judge/kinds/test_refusal.py",
    ),
    Breakage(
        "judge/kinds/moderation.py",
        "if answer.error and len(batch) > 1:",
        "if answer.error and len(batch) > 2:",
        "judge/kinds/test_moderation.py",
    ),
    Breakage(
        "report/study_tables.py",
        'judgements[judgements["label"].notna()].drop_duplicates(on)',
        "judgements.drop_duplicates(on)",
        "report/test_loading.py",
    ),
    Breakage(
        "report/findings/rates.py",
        'n = int(group["value"].notna().sum())',
        "n = len(group)",
        "report/findings/test_rates.py",
    ),
    Breakage(
        "report/findings/verdict.py",
        "if harmful.answer.n <= n <= lookalike.answer.n",
        "if harmful.answer.n <= n < lookalike.answer.n",
        "report/findings/test_verdict.py",
    ),
    Breakage(
        "report/findings/contrasts.py",
        "first, *others = sorted(matrices)",
        "first, *others = sorted(matrices)[::-1]",
        "report/findings/test_contrasts.py",
    ),
    Breakage(
        "report/calibration/measures.py",
        'alone = judged[~judged["prompt_id"].isin(labelled.index)]',
        'alone = judged[judged["prompt_id"].isin(judged["prompt_id"])]',
        "report/calibration/test_calibration.py",
    ),
    Breakage(
        "report/pages/answers_page.py",
        "key=lambda item: -item[1]",
        "key=lambda item: item[1]",
        "report/pages/test_answers_page.py",
    ),
    Breakage(
        "report/plots/study.py",
        "dodge = min(0.1, 0.4 / len(lines)) * (index - (len(lines) - 1) / 2)",
        "dodge = 0.0 * index",
        "report/plots/test_plots.py",
    ),
    Breakage(
        "run/runner.py",
        "if begin > 0 or not is_fresh(run, stage, params):",
        "if not is_fresh(run, stage, params):",
        "run/test_runner.py",
    ),
    Breakage(
        "run/progress.py",
        'spent / made * (inside["total"] - inside["done"])',
        'spent / made * inside["total"]',
        "run/test_progress.py",
    ),
    Breakage(
        "run/search.py",
        "if len(grid) < 3:",
        "if len(grid) < 2:",
        "run/test_search.py",
    ),
    Breakage(
        "run/study.py",
        "ordered = sorted(planned, key=lambda run: -run.params.n_safety)",
        "ordered = list(planned)",
        "run/test_endings.py",
    ),
    Breakage(
        "run/timing.py",
        "_timed(lambda: answer(_MORE)) - _timed(lambda: answer(_FEW))",
        "_timed(lambda: answer(_MORE))",
        "run/test_timing.py",
    ),
    Breakage(
        "cli.py",
        'counts = judged["label"].where(judged["missing"].isna(), "missing")',
        'counts = judged["label"]',
        "test_cli.py",
    ),
)


def noticed(one: Breakage, copy: Path) -> str:
    """The test that fails where this is broken, empty if none does; the copy of the checkout is left as it was."""
    module = copy / "safety_nb" / one.module
    whole = module.read_text()
    module.write_text(whole.replace(one.right, one.broken))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not soak and not study"]
    command += [f"tests/{one.tests}"]
    try:
        done = subprocess.run(
            command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True
        )
    finally:
        module.write_text(whole)
    found = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    if done.returncode not in (0, 1) and not found:
        raise RuntimeError(f"{one.tests} could not be executed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found[-1] if found else ""


def main(rooms: list[str]) -> int:
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "outputs", "__pycache__"))
        for one in BREAKAGES:
            if rooms and one.module.split("/")[0] not in rooms:
                continue
            test = noticed(one, copy)
            missed += not test
            print(f"{one.module}: {one.broken}\n    {test or 'NOBODY NOTICED'}", flush=True)
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
