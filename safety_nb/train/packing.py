"""Rows to optimizer steps, and the rows of a step to packs: several rows in one sequence, without padding.

Packing never moves a row from one step to another. A step has the rows it would have without packing, and with them the
same gradient; so steps, the learning-rate schedule and epochs mean what the recipe says. Knows no model.
"""

import math
import random
from dataclasses import dataclass

from safety_nb.train.encoding import IGNORED, EncodedRow


@dataclass(frozen=True)
class Pack:
    """Rows laid end to end.

    Attributes:
        input_ids: their tokens.
        position_ids: counted from 0 anew in each row. Without an attention mask, transformers reads from this which
            tokens may see each other.
        places: places in the sequence whose next token is supervised. targets: that token. owners: number, within the
            pack, of the row it belongs to. All of one length.
        rows: numbers of the rows.
    """

    input_ids: list[int]
    position_ids: list[int]
    places: list[int]
    targets: list[int]
    owners: list[int]
    rows: list[int]


def epoch_steps(n_rows: int, batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Row numbers of every optimizer step of a training, in order.

    Each epoch is a shuffle of all rows, cut into batches; its last may be smaller. A fraction of an epoch is rounded
    up to whole steps.
    """
    per_epoch = math.ceil(n_rows / batch_size)
    wanted = math.ceil(epochs * per_epoch - 1e-9)
    steps: list[list[int]] = []
    for epoch in range(math.ceil(epochs)):
        order = list(range(n_rows))
        random.Random(f"order {seed} {epoch}").shuffle(order)
        steps += [order[start : start + batch_size] for start in range(0, n_rows, batch_size)]
    return steps[:wanted]


def pack(rows: list[EncodedRow], numbers: list[int], capacity: int) -> list[Pack]:
    """Pack rows best-fit: the longest first, each into the fullest pack that still has room for it.

    Args:
        numbers: which of ``rows``.
        capacity: tokens a pack may have; a row that is longer is a pack by itself.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for number in sorted(numbers, key=lambda number: -len(rows[number].input_ids)):
        length = len(rows[number].input_ids)
        fits = [index for index, left in enumerate(room) if left >= length]
        if fits:
            index = min(fits, key=room.__getitem__)
            bins[index].append(number)
            room[index] -= length
        else:
            bins.append([number])
            room.append(capacity - length)
    return [_lay(rows, members) for members in bins]


def _lay(rows: list[EncodedRow], members: list[int]) -> Pack:
    input_ids: list[int] = []
    position_ids: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for owner, number in enumerate(members):
        row, start = rows[number], len(input_ids)
        for place, label in enumerate(row.labels[1:]):  # a row's first token has nothing to be predicted from
            if label != IGNORED:
                places.append(start + place)
                targets.append(label)
                owners.append(owner)
        input_ids += row.input_ids
        position_ids += range(len(row.input_ids))
    return Pack(input_ids, position_ids, places, targets, owners, list(members))
