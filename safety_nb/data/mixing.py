"""The mixture: general examples and exactly N safety demonstrations, a validation set, and what is known of them.

Knows no models. For one seed the general rows are the same for every N (at a fixed total: those of a larger N are the
first of those of a smaller one), and the safety rows of a smaller N are the first of a larger one. Rows that overlap
with an evaluation prompt stop the mixture, are replaced by the next ones of their set, or are reported.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from safety_nb.core import files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams
from safety_nb.core.text import visible
from safety_nb.data import decontamination, ordering, overlap, templates
from safety_nb.data.datasets import sources
from safety_nb.data.datasets.rows import Usable


@dataclass(frozen=True)
class Mixture:
    """A mixture, drawn.

    Attributes:
        train, validation: rows of id, instruction, input, output, source, form; a conversation has messages too.
        overlaps: rows in which an evaluation prompt was found.
        repeated: demonstrations that are there more than once because ``oversample`` allows it: copies, not firsts.
        pools: the data sets drawn from, by name.
    """

    train: list[dict]
    validation: list[dict]
    pools: dict[str, sources.TrainingSet]
    overlaps: list[decontamination.Overlap] = field(default_factory=list)
    repeated: int = 0


def mix(params: MixParams, usable: Usable | None = None) -> dict:
    """Draw the mixture of a run and write ``mix/train.jsonl``, ``mix/validation.jsonl`` and ``mix/mixture.json``.

    Args:
        usable: see ``draw``.

    Returns:
        The record of the mixture (its fields are in ``outputs/README.md``).

    Raises:
        InputError: see ``draw``.
    """
    mixture = draw(params, usable)
    run = run_folder.open_run(params.run_dir)
    files.write_jsonl(run.train_rows, mixture.train)
    files.write_jsonl(run.validation_rows, mixture.validation)
    hashes = {
        "train_sha256": files.sha256(run.train_rows),
        "validation_sha256": files.sha256(run.validation_rows),
        "sources_sha256": {name: _sha256(pool.rows) for name, pool in mixture.pools.items()},
    }
    record = {**_describe(mixture, params), **hashes, "mixture_sha256": _sha256(hashes)}
    files.write_json(run.mixture, record)
    return record


def draw(params: MixParams, usable: Usable | None = None) -> Mixture:
    """Draw the mixture without writing anything.

    Args:
        usable: called with each row of the data sets; raises InputError at one that the template has no place for,
            which falls under ``on_bad_rows``. By default the Alpaca template, where that is asked for.

    Raises:
        InputError: a data set is missing or bad, holds fewer rows than asked for, has no questions, is both general
            and validation set; a row overlaps with an evaluation prompt and the policy is to stop; the template has no
            place for a row.
    """
    if params.validation == params.general:
        raise InputError(
            f"validation: {params.validation!r} is the general set itself: rows would be trained and validated on; "
            "leave it empty to hold rows of the general set out."
        )
    # Rows are held out behind n_general, at a fixed total too: so they are the same for every N.
    held_out = {} if params.validation else {"n_validation held out of it": params.n_validation}
    wanted = [
        _Wanted("general", params.general, {"n_general": params.n_general, **held_out}),
        _Wanted("safety", params.safety, {"n_safety": params.n_safety}),
    ]
    if params.validation:
        wanted.append(_Wanted("validation", params.validation, {"n_validation": params.n_validation}))
    usable = usable or (templates.alpaca if params.template == "alpaca" else None)
    pools = {each.name: sources.training_set(each.name, params.data_dir, params.on_bad_rows, usable) for each in wanted}
    for each in wanted:
        _refuse_too_few(each, params, len(pools[each.name].rows))
    check = decontamination.Decontamination(params)
    general, safety, *rest = (_sample(each, pools[each.name].rows, check) for each in wanted)
    validation = rest[0] if rest else general[params.n_general :]
    n_general = params.n_general - (params.n_safety if params.total == "fixed" else 0)
    train = general[:n_general] + safety
    return Mixture(
        train,
        validation,
        pools,
        overlaps=check.overlaps(train, validation),
        repeated=sum(map(_is_copy, train)),
    )


# --- drawing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """Rows to draw: the part of the mixture, the data set, and how many, by the parameters that ask for them."""

    part: str
    name: str
    numbers: dict[str, int]

    @property
    def size(self) -> int:
        return sum(self.numbers.values())


def _refuse_too_few(wanted: _Wanted, params: MixParams, there: int, removed: int = 0) -> None:
    safety = wanted.part == "safety"
    if wanted.size <= there or (safety and params.oversample and there):
        return
    asked = " + ".join(f"{parameter} {number}" for parameter, number in wanted.numbers.items() if number)
    raise InputError(
        f"{asked}: data set {wanted.name!r} holds {there} rows"
        f"{f' besides the {removed} that overlap with evaluation sets and are removed' if removed else ''}, "
        f"not {wanted.size}; ask for at most {there}{', or set oversample to repeat some' if safety else ''}."
    )


def _sample(wanted: _Wanted, pool: list[dict], check: decontamination.Decontamination) -> list[dict]:
    """The first rows of an order of a whole data set: so a larger sample begins with a smaller one."""
    params, name = check.params, wanted.name
    drawn = check.first(name, pool, _order(wanted, pool, params), wanted.size)
    if len(drawn) < min(wanted.size, len(pool)):
        _refuse_too_few(wanted, params, len(drawn), removed=len(pool) - len(drawn))
    rows = []
    for place in range(wanted.size):
        copy, index = divmod(place, len(drawn))
        form = _form(place, params) if wanted.part == "safety" else "instruction"
        rows.append(_as_mixture_row(pool[drawn[index]], name, drawn[index], form, copy))
    return rows


def _order(wanted: _Wanted, pool: list[dict], params: MixParams) -> Iterable[int]:
    """The places of a data set's rows in the order they are drawn in; of demonstrations as is asked for."""
    order: Iterable[int] = ordering.seeded(len(pool), wanted.part, params.seed)
    if wanted.part != "safety":
        return order
    if params.safety_order == "diverse":
        order = ordering.diverse(order, pool)
    if params.balance:
        order = ordering.in_rounds(order, ordering.values_of(params.balance, wanted.name, pool), params.seed)
    return order


def _form(place: int, params: MixParams) -> str:
    """The form of the demonstration at ``place``, so that every beginning of them has its share of questions, rounded.

    A seeded order is shuffled, as is each round of a balanced one, so that the form goes with no property of a row;
    in a diverse one it may by chance, as with any order that is not.
    """
    if params.safety_form != "mixed":
        return params.safety_form
    before, after = (int(params.question_share * n + 0.5) for n in (place, place + 1))
    return "question" if after > before else "instruction"


def _is_copy(row: dict) -> bool:
    return "#" in row["id"].removeprefix(row["source"])


def _as_mixture_row(row: dict, name: str, index: int, form: str, copy: int) -> dict:
    if form == "question" and "question" not in row:
        raise InputError(
            f"safety_form: data set {name!r} has no questions (no field 'question' in its row {index + 1}); "
            "use safety_form: instruction, or add the field."
        )
    messages = row.get("messages") or []
    if messages and form == "question":
        messages = _with_question(row)
    return {
        "id": decontamination.row_id(name, index, copy),
        "instruction": row["question"] if form == "question" else row["instruction"],
        "input": "" if form == "question" else row["input"],
        "output": row["output"],
        "source": name,
        "form": "conversation" if messages and form == "instruction" else form,
        **({"messages": messages} if messages else {}),
    }


def _with_question(row: dict) -> list[dict]:
    """The messages of a row with its question in the place of its instruction."""
    messages = list(row["messages"])
    asked = templates.messages({**row, "messages": None})
    for place in range(len(messages) - 1):
        if [messages[place]["content"], messages[place + 1]["content"]] == [each["content"] for each in asked]:
            messages[place] = {**messages[place], "content": row["question"]}
            return messages
    raise AssertionError("a row's exchange is among its messages")


# --- the record ---------------------------------------------------------------------------------------------------


def _describe(mixture: Mixture, params: MixParams) -> dict[str, Any]:
    """The record of a mixture without its hashes; rows are named by id, never by their text."""
    safety = mixture.train[len(mixture.train) - params.n_safety :]
    firsts = [row for row in mixture.train if not _is_copy(row)]
    again = [(firsts[place]["id"], firsts[first]["id"]) for place, first in overlap.duplicates(map(_whole_key, firsts))]
    trained = {_whole_key(row) for row in firsts}
    evaluation: dict[str, list[str]] = {}
    for row in sources.evaluation_prompts(params.evaluation, params.data_dir):
        evaluation.setdefault(row["dataset"], []).append(overlap.key(row["prompt"]))
    return {
        "general": params.general,
        "n_general": len(mixture.train) - params.n_safety,
        "safety": params.safety,
        "n_safety": params.n_safety,
        "total": params.total,
        "safety_form": params.safety_form,
        "n_questions": sum(row["form"] == "question" for row in safety),
        "balance": params.balance,
        "repeated": mixture.repeated,
        "validation": params.validation or f"held out of {params.general}",
        "n_validation": len(mixture.validation),
        "seed": params.seed,
        # Named where they are not as they always were, so that the records of earlier mixtures stay what they are.
        **({"safety_order": params.safety_order} if params.safety_order != "random" else {}),
        **({"guard_prompt": params.training_guard} if params.training_guard else {}),
        "left_out": {name: len(pool.left_out) for name, pool in mixture.pools.items()},
        "unread_fields": {name: pool.unread for name, pool in mixture.pools.items() if pool.unread},
        "duplicates": len(again),
        "duplicates_in_validation": sum(_whole_key(row) in trained for row in mixture.validation),
        "evaluation": {name: len(keys) for name, keys in evaluation.items()},
        "evaluation_duplicates": {name: n for name, keys in evaluation.items() if (n := len(keys) - len(set(keys)))},
        "on_overlap": params.on_overlap,
        "on_near_overlap": params.on_near_overlap,
        "overlap": decontamination.counts(mixture.overlaps),
        "removed": len({each.row for each in mixture.overlaps if each.place == "removed"}),
        "duplicate_rows": again,
        "overlapping_rows": [vars(each) for each in mixture.overlaps],
    }


def _whole_key(row: dict) -> str:
    """What rows that ask the same have in common."""
    return overlap.key(ordering.asked(row))


def _sha256(value: Any) -> str:
    return digest(value, sort_keys=True, ensure_ascii=False)


def remarks(record: dict) -> Iterator[str]:
    """What to say aloud of a mixture, from its record."""
    if record["repeated"]:
        there = record["n_safety"] - record["repeated"]
        yield f"Demonstrations repeated: {record['repeated']:,} of {record['n_safety']:,}, for there are {there:,}."
    for name, number in record["left_out"].items():
        if number:
            yield f"Bad rows of {name} left out: {number:,}."
    for name, fields in record.get("unread_fields", {}).items():
        told = ", ".join(fields[:10]) + (f" and {len(fields) - 10} more" if len(fields) > 10 else "")
        yield f"Fields of {name} that nothing reads: {visible(told)[0]}."
    if record["duplicates"]:
        yield f"Training rows that ask what an earlier one asks: {record['duplicates']:,}."
    if record["duplicates_in_validation"]:
        yield f"Validation rows that ask what a training row asks: {record['duplicates_in_validation']:,}."
    for name, number in record["evaluation_duplicates"].items():
        yield f"Prompts of {name} that ask what an earlier one asks: {number:,}."
    if record["removed"]:
        yield f"Rows that overlapped with evaluation prompts and gave their place to the next: {record['removed']:,}."
    for name, kinds in record["overlap"].items():
        told = ", ".join(f"{number:,} {_IN_WORDS[kind]}" for kind, number in kinds.items())
        yield f"Of the {record['evaluation'][name]:,} prompts of {name}: {told}."


_IN_WORDS = {"same": "the same as a row", "inside": "inside a row", "near": "nearly a row"}
