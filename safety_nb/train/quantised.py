"""The bits that the linear layers of a base are held in: 4 (NF4), 8 (LLM.int8) or 16, which is unquantised.

What bitsandbytes does is asked for here and nowhere else, and tried before it is relied on: whether 8 bits work on a
CPU differs by its version and by the processor. Knows layers; neither models by name nor adapters.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from safety_nb.core.errors import InputError
from safety_nb.core.text import first_line

UNQUANTISED = 16
NAMES = {4: "NF4", 8: "LLM.int8"}
# From this size of an activation on, its column is computed in 16 bits (Dettmers et al. 2022, LLM.int8, section 3.2).
_OUTLIER = 6.0
# Outputs and gradients of a trial layer off by more of a row's norm are no rounding. Of normal weights, NF4 leaves
# about 0.12, 8 bits 0.012, and 8 bits without the columns of outliers set apart 0.035.
_MOST_OFF = {4: 0.2, 8: 0.025}


def loading(bits: int, dtype: Any) -> dict[str, Any]:
    """What ``from_pretrained`` is told so that it holds linear layers in ``bits`` and computes in ``dtype``.

    4 bits are NF4 with double quantisation (QLoRA, Dettmers et al. 2023), 8 are LLM.int8 (Dettmers et al. 2022). With
    8 an answer may depend a little on the others of its batch, since outliers are looked for among all of them.
    """
    from transformers import BitsAndBytesConfig

    if bits == UNQUANTISED:
        return {}
    if bits == 8:
        # At each forward in another dtype it says that it casts to float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=_OUTLIER)}
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": four}


def layers(model: Any, *bits: int) -> list[Any]:
    """The layers of a model that hold their weights in 4 or in 8 bits; only those of ``bits`` where any are given."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    kinds = {4: Linear4bit, 8: Linear8bitLt}
    wanted = tuple(kinds[each] for each in bits or kinds)
    return [module for module in model.modules() if isinstance(module, wanted)]


def layer(inside: int, outside: int, bits: int, dtype: Any, device: str) -> Any:
    """A linear layer as a base has them, without bias, its weights normal with a deviation of 1 / sqrt(inside)."""
    import torch
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    weight = torch.randn(outside, inside).div_(inside**0.5).to(dtype)
    if bits == 4:
        made = Linear4bit(inside, outside, False, dtype, compress_statistics=True, quant_type="nf4")
        made.weight = Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
    elif bits == 8:
        made = Linear8bitLt(inside, outside, False, has_fp16_weights=False, threshold=_OUTLIER)
        made.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        made = torch.nn.Linear(inside, outside, bias=False)
        made.weight = torch.nn.Parameter(weight, requires_grad=False)
    made = made.to(device)
    keep_autograd(made)
    return made


def keep_autograd(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit weights into a form without gradients.

    On CPUs with AVX512-BF16 any forward in evaluation mode repacks each layer in place; training that goes on
    afterwards shows a normal loss while most LoRA gradients are zero. Must run before the first forward.
    """
    for held in layers(model, 4):
        held.support_avx512bf16_for_cpu = False


def written_out(held: Any) -> Any:
    """The weight of a layer that holds it in 4 or 8 bits, as it computes with it: float32, shape (outside, inside)."""
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
    from bitsandbytes.nn import Linear4bit

    if isinstance(held, Linear4bit):
        return dequantize_4bit(held.weight.data, held.weight.quant_state).float()
    scales = held.state.SCB if held.weight.SCB is None else held.weight.SCB  # moved by the first forward
    return int8_vectorwise_dequant(held.weight.data, scales).float()


def weight_bytes(shape: tuple[int, int], bits: int, itemsize: int) -> float:
    """Bytes of the weight of a linear layer.

    Args:
        shape: (outside, inside). itemsize: bytes of a number that is not quantised.
    """
    outside, inside = shape
    if bits == 4:
        # NF4 with double quantisation (section 3): 4 bits a weight, an 8-bit scale for every 64 weights, and a 32-bit
        # one for every 256 of those.
        return outside * inside * (0.5 + 1 / 64 + 4 / (64 * 256))
    if bits == 8:
        return outside * inside + 4 * outside  # a 32-bit scale for every row
    return outside * inside * itemsize


def keep_inputs(of: list[Any]) -> None:
    """Have the layers of an outline keep their inputs for the backward pass, as 8-bit layers do and others need not."""
    import torch

    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.kept = x
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient

    for each in of:
        each.register_forward_pre_hook(lambda _, given: (Keep.apply(given[0]), *given[1:]))


def trial(bits: int, device: str, dtype: Any) -> float:
    """How far a trial layer of random weights is off, against the same in float32 and unquantised.

    Looked at are outputs in training and evaluation, and gradients before and after an evaluation. One input is
    larger than the others, as language models have them, and one row is as large as 8 bits hold in every place, which
    some processors cannot sum.

    Returns:
        The largest norm of a row's error over that of the row.

    Raises:
        ArithmeticError: it is more than rounding, or a gradient is missing. What bitsandbytes raises, too.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        held = layer(128, 96, bits, dtype, device)
        torch.manual_seed(0)  # the same weights again
        weight = layer(128, 96, UNQUANTISED, torch.float32, "cpu").weight
        x, gradient = torch.randn(2, 8, 128), torch.randn(2, 8, 96)
    x[1, :, 5] = 60.0
    x[0, 0] = weight[0].sign()
    expected, expected_gradient = x @ weight.t(), gradient @ weight
    off = []
    for training in (True, False, True):
        given = x.clone().to(device, dtype).requires_grad_(training)
        with torch.set_grad_enabled(training):
            found = held.train(training)(given)
        off.append(_off(found.detach(), expected))
        if training:
            found.backward(gradient.to(device, dtype))
            off.append(_off(given.grad, expected_gradient))
    if not max(off) < _MOST_OFF[bits]:
        raise ArithmeticError(f"its products or gradients are off by {max(off):.2f}")
    return max(off)


def _off(found: Any, expected: Any) -> float:
    if found is None:
        raise ArithmeticError("it gives no gradients")
    error = found.float().cpu() - expected
    return float((error.norm(dim=-1) / expected.norm(dim=-1)).nan_to_num(float("inf")).max())


def check(bits: int, device: str, dtype: Any) -> None:
    """Check that a base can be held in ``bits`` here: 8 are tried on the device, 4 and 16 work everywhere.

    Raises:
        InputError: a trial layer of 8 bits gave wrong outputs or gradients, or none.
    """
    if bits != 8:
        return
    try:
        with _quiet():
            trial(bits, device, dtype)
    except Exception as error:  # what a library raises that lacks a kernel has no common kind
        where = "GPU" if device == "cuda" else device.upper()
        raise InputError(
            f"base_bits: 8 bits do not work on this {where}: bitsandbytes failed on a trial layer "
            f"({type(error).__name__}: {first_line(error)}). Set base_bits to 4 or 16, or install another bitsandbytes."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what bitsandbytes says of its kernels and casts from a user who only asks for a run."""
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
