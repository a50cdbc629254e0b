"""A value by its SHA-256: what is looked up, or compared with what was recorded, without being kept whole."""

import hashlib
import json
from typing import Any


def digest(value: Any, *, sort_keys: bool, ensure_ascii: bool) -> str:
    """SHA-256 of a value as JSON, as hex.

    What a digest keys is on people's disks: judgements and answers that were paid for, labels, records. So there are
    no defaults: each caller says which form it has always hashed, and goes on with that one.

    Args:
        sort_keys: whether the order in which the keys of a dict were put in makes no difference.
        ensure_ascii: whether what is not ASCII is escaped. Half a surrogate pair, which UTF-8 has no bytes for, has a
            digest either way.
    """
    text = json.dumps(value, sort_keys=sort_keys, ensure_ascii=ensure_ascii)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
