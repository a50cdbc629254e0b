"""Files called run.json that are no ledger: cut short, of another shape, or with values that nothing can be made of."""

import json

ENTRY = {"state": "done", "wall_seconds": 1.0, "cause": None}


def _with(**facts: object) -> bytes:
    return json.dumps({"stages": {"mix": {**ENTRY, **facts}}}).encode()


DAMAGED = {
    "empty": b"",
    "cut short": b'{"stages": {"mix": {"state": "done"',
    "zeros": bytes(64),
    "UTF-16": '{"stages": {}}'.encode("utf-16"),
    "not UTF-8": b'{"stages": {"mix": {"state": "done", "cause": "\xff"}}}',
    "byte order mark": b"\xef\xbb\xbf" + b'{"stages": {}}',
    "null": b"null",
    "number": b"3",
    "list": b"[]",
    "text": b'"words"',
    "nothing": b"{}",
    "another program's": b'{"name": "run", "version": "1.0.0"}',
    "stages null": b'{"stages": null}',
    "stages a list": b'{"stages": [{"state": "done"}]}',
    "stages a text": b'{"stages": "done"}',
    "entry null": b'{"stages": {"mix": null}}',
    "entry a text": b'{"stages": {"mix": "done"}}',
    "entry a list": b'{"stages": {"mix": ["done"]}}',
    "no state": b'{"stages": {"mix": {}}}',
    "unknown state": _with(state="finished"),
    "state a list": _with(state=["done"]),
    "state null": _with(state=None),
    "outputs a list": _with(outputs=["mix/train.jsonl"]),
    "a hash that is null": _with(outputs={"mix/train.jsonl": None}),
    "fingerprint a number": _with(fingerprint=1),
    "seconds a text": _with(wall_seconds="1"),
    "seconds true": _with(wall_seconds=True),
    "seconds NaN": _with(wall_seconds=float("nan")),
    "seconds infinite": b'{"stages": {"mix": {"state": "done", "wall_seconds": 1e999}}}',
    "seconds huge": _with(wall_seconds=10**400),
    "5,000 digits": b'{"stages": {"mix": {"state": "done", "wall_seconds": ' + b"1" * 5000 + b"}}}",
    "started a text": _with(state="running", started="today"),
    "cause a list": _with(state="failed", cause=["no"]),
    "pid a text": _with(state="running", pid="1"),
    "pid negative": _with(state="running", pid=-1),
    "kernel a number": _with(state="running", kernel=7),
    "kernel without a time": _with(state="running", kernel={"pid": 7}),
    "versions a list": b'{"stages": {}, "versions": ["1"]}',
    "half a surrogate pair": b'{"stages": {"mix": {"state": "failed", "cause": "\\ud800"}}}',
    "nested in a list": b'{"stages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested in an object": b'{"stages": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_001,
    "nested where it is not looked at": b'{"stages": {}, "more": ' + b"[" * 900 + b"]" * 900 + b"}",
    "twice": b'{"stages": {}}\n{"stages": {}}',
}
