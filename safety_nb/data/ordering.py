"""The order in which demonstrations are drawn: seeded, far from what is drawn already, and in rounds over a field.

Places of rows in, places out, and a longer beginning of an order starts with a shorter one. Knows no mixture and no
files, and draws nothing itself.
"""

import random
from collections.abc import Iterator, Sequence

from safety_nb.core.errors import InputError
from safety_nb.data import decontamination


def seeded(n: int, name: str, seed: int) -> list[int]:
    """The places 0 to n - 1 in an order that ``name`` and ``seed`` decide."""
    order = list(range(n))
    random.Random(f"{name} {seed}").shuffle(order)
    return order


def diverse(order: Sequence[int], pool: Sequence[dict]) -> Iterator[int]:
    """The order farthest first: each place is that of a row least like the likest of those before it.

    A farthest-first traversal (Gonzalez 1985, Theoretical Computer Science 38) over the cosine of TF-IDF vectors of
    what rows ask: words that two rows share at least, English stop words left out. It begins with the first of
    ``order``. Of rows that are equally far the most typical is next, the one likest to all rows together, or else the
    first of ``order``: without that, a row in words of its own would be as good as one that stands for many. Rows
    without a word that another one shares come last, in the order they have; where all are so, it stays what it is.

    Args:
        order: the places of the pool, in a seeded order.
        pool: rows with instruction and input, and messages where they are conversations.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(stop_words="english", min_df=2).fit_transform(asked(pool[place]) for place in order)
    except ValueError:  # no word is left
        yield from order
        return
    # Rounded, so that the last bits, which differ between processors, decide nothing.
    typical = (vectors @ vectors.sum(axis=0).T).A1.round(9)
    likeness = np.where(vectors.getnnz(axis=1) > 0, -1.0, 2.0)
    likest = 0
    for _ in order:
        yield order[likest]
        likeness = np.maximum(likeness, (vectors @ vectors[[likest]].T).toarray().ravel().round(9))
        likeness[likest] = np.inf  # never again
        farthest = np.flatnonzero(likeness == likeness.min())
        likest = int(farthest[typical[farthest].argmax()])


def in_rounds(order: Sequence[int], values: Sequence[str], seed: int) -> list[int]:
    """The order in rounds, each with the next row of every value that still has one, so that each beginning of it
    has values equally often as far as they go. Each round is shuffled by itself."""
    queues: dict[str, list[int]] = {}
    for place in order:
        queues.setdefault(values[place], []).append(place)
    shuffler, rounds = random.Random(f"balance {seed}"), []
    for number in range(max(map(len, queues.values()))):
        names = [name for name in sorted(queues) if number < len(queues[name])]
        shuffler.shuffle(names)
        rounds += [queues[name][number] for name in names]
    return rounds


def values_of(field: str, name: str, pool: Sequence[dict]) -> list[str]:
    """What the rows of data set ``name`` have in a field, as text. Raises InputError at a row that lacks it."""
    for index, row in enumerate(pool):
        if field not in row:
            known = sorted(set(row) - {"instruction", "input", "output", "question", "messages", "beside"})
            raise InputError(
                f"balance: row {index + 1} of data set {name!r} has no field {field!r}; "
                f"{'it has ' + ', '.join(known) if known else 'it has none to balance over'}; or leave balance empty."
            )
    return [str(row[field]) for row in pool]


def asked(row: dict) -> str:
    """All that a row asks, whatever its turns."""
    turns = [message["content"] for message in row.get("messages") or () if message["role"] != "assistant"]
    return "\n".join([decontamination.request(row), *turns])
