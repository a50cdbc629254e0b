"""Instruction templates, as pure strings.

Owns how an instruction becomes the text a model is trained on and asked with. Knows no files, no models and no
tokens: the end-of-text token is added where text becomes token ids (``encoding.py``).
"""

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


def render(instruction: str, input: str = "") -> str:
    """Return the Alpaca prompt that ends where the response begins.

    Args:
        instruction: the task.
        input: further context; the template without input is used when it is empty.
    """
    if input:
        return _ALPACA_WITH_INPUT.format(instruction=instruction, input=input)
    return _ALPACA.format(instruction=instruction)


def cut_next_turn(response: str) -> str:
    """Return the response up to the point where the model starts to write a next instruction of its own."""
    return response.split(_NEXT_TURN, 1)[0].strip()
