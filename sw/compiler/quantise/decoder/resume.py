"""An unfinished quantisation in the user's cache: another process goes on where one has ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import asdict

import numpy as np

from sim.cache import drop, find, keep
from sw.compiler.graph.graph_file import flatten, restore
from sw.compiler.graph.tensor_file import TensorFileError, read_tensors, tensor_bytes
from sw.compiler.quantise.decoder.state import State

__all__ = ["Unfinished"]

FORMAT, VERSION = "weft-unfinished-quantisation", 1
SECONDS = 30.0
"""Between two writes, which take a second or two for a model of 135 million weights."""


class Unfinished:
    """The file `name` of a folder of the cache: what the stages that are done have left.

    It is used for the same model, calibration and options only.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._place = folder, name
        self._of = ""
        self._written = time.monotonic()

    def load(self, state: State) -> int:
        """Bring a new state to where the file's was: the number of stages that are done."""
        self._of = _fingerprint(state)
        path = find(*self._place)
        if path is None:
            return 0
        try:
            header, arrays = read_tensors(path, FORMAT, VERSION, "")
        except TensorFileError:
            return 0
        if header["of"] != self._of:
            return 0
        state.resume(*restore(header["state"], arrays))
        return header["done"]

    def save(self, state: State, done: int) -> None:
        """Write the state behind `done` stages, if it is time; a full disk is no reason to stop."""
        if time.monotonic() - self._written < SECONDS or not state.resumable:
            return
        arrays: dict[str, np.ndarray] = {}
        found = flatten(state.remains, arrays)
        header = {"of": self._of, "done": done, "state": found}
        with contextlib.suppress(OSError):
            keep(*self._place, tensor_bytes(arrays, header, FORMAT, VERSION))
        self._written = time.monotonic()

    def remove(self) -> None:
        """Nothing is left to do."""
        drop(*self._place)


def _fingerprint(state: State) -> str:
    """Of everything that the result depends on."""
    given = [state.float_graph, state.graph, list(state.rows.lengths), asdict(state.options)]
    text = json.dumps(flatten([*given, state.remains], {}))
    return hashlib.sha256(text.encode()).hexdigest()
