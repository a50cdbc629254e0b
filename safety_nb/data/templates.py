"""A row as a conversation, and as the text of a template, in pure strings.

Owns how an instruction becomes the text a model is trained on and asked with. Knows no files, no models and no
tokens: a model's own chat template belongs to its tokenizer, and the end-of-text token is added where text becomes
token ids (both in ``train/encoding.py``).
"""

from safety_nb.core.errors import InputError
from safety_nb.core.text import shortened

# The Alpaca format (Stanford Alpaca, 2023), which the paper's released code uses with and without input.
_ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_NEXT_TURN = "### Instruction:"


def render(instruction: str, input: str = "", guard: str = "") -> str:
    """Return the Alpaca prompt that ends where the response begins.

    Args:
        instruction: the task.
        input: further context; the template without input is used when it is empty.
        guard: a guard prompt, for which the template has no place: a passage of its own before all else.
    """
    head = f"{guard}\n\n" if guard else ""
    if input:
        return head + _ALPACA_WITH_INPUT.format(instruction=instruction, input=input)
    return head + _ALPACA.format(instruction=instruction)


def guarded(rows: list[dict], guard: str) -> list[dict]:
    """Rows with a guard prompt, in their field ``guard``; as they are where it is empty. Their own texts stay."""
    return [{**row, "guard": guard} for row in rows] if guard else rows


def alpaca(row: dict) -> tuple[str, str]:
    """The Alpaca prompt of a row, and its answer.

    Raises:
        InputError: the row is a conversation: Alpaca has no place for several turns, a system message, or other fields
            of messages.
    """
    if row.get("messages"):
        roles = ", ".join(message["role"] for message in row["messages"])
        more = sorted({name for message in row["messages"] for name in message} - {"role", "content"})
        of = [f"of its field {name}" for name in row.get("beside", ())]
        of += [f"with {name} in its messages" for name in more]
        told = shortened("; ".join([roles, *of]), 300)
        raise InputError(
            f"template: {name_of(row)} is a conversation ({told}), and the Alpaca template holds one user and one "
            "assistant turn; set template to chat, or leave such rows out (on_bad_rows: leave out)."
        )
    return render(row["instruction"], row["input"], row.get("guard", "")), row["output"]


def name_of(row: dict) -> str:
    """What a row is called in messages: by its id, where it has one."""
    return f"row {row['id']}" if "id" in row else "the row"


def messages(row: dict) -> list[dict]:
    """A row as a conversation of messages with ``role`` and ``content``; an input follows its instruction."""
    if row.get("messages"):
        return row["messages"]
    return [
        {"role": "user", "content": "\n\n".join(filter(None, (row["instruction"], row["input"])))},
        {"role": "assistant", "content": row["output"]},
    ]


def cut_next_turn(response: str) -> str:
    """Return the response up to the point where the model starts to write a next instruction of its own."""
    return response.split(_NEXT_TURN, 1)[0].strip()
