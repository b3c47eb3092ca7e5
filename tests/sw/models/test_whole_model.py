"""Complete inputs of all-MiniLM-L6-v2: reference, golden model and RTL agree on every byte."""

from __future__ import annotations

import numpy as np
import pytest

from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_lengths, with_shape
from sw.models import minilm
from tests.sim.rtl import open_pair

TEXT = (
    "A transformer turns a sentence into numbers: attention compares every word with every other "
    "word, and what it finds is mixed into each of them. "
)


@pytest.mark.parametrize("tokens", [1, 16, 37, 128])
def test_same_bytes(tokens, embedder):
    ids = minilm.tokenise([TEXT * 6])[0][None, :tokens]
    program = embedder.program(tokens)
    (want,) = run_reference(with_shape(embedder.graph, 1, tokens), [ids])
    with open_pair(embedder.config) as pair:
        for device in pair.devices:
            np.testing.assert_array_equal(device.load(program)(ids), want, err_msg=device.name)
        pair.assert_same_memory(f"{tokens} tokens")
        print(f"{tokens} tokens: {pair.rtl.counters()['cycles']:,} cycles")


def test_same_bytes_of_texts_in_one_run(embedder):
    lengths = [7, 1, 12]
    ids = minilm.tokenise([TEXT])[0][: sum(lengths)]
    program = embedder.packed(lengths)
    (want,) = run_reference(with_lengths(embedder.graph, lengths), [ids])
    with open_pair(embedder.config) as pair:
        for device in pair.devices:
            np.testing.assert_array_equal(device.load(program)(ids), want, err_msg=device.name)
        pair.assert_same_memory(f"{lengths} tokens")
        print(f"{lengths} tokens: {pair.rtl.counters()['cycles']:,} cycles")
