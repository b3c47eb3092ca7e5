"""The stream as a whole: encoding, legal waits, and speed as the scheduler's model sees it."""

from __future__ import annotations

import time

import pytest

from hw import isa
from hw.config import get_config
from hw.vector.rsqrt import NormRow
from sw.bench import workloads
from sw.compiler.lower.lower import lower
from sw.compiler.stream.allocate import DoesNotFit, Pool
from sw.compiler.stream.emit import Emitter
from sw.compiler.stream.order import merge
from sw.compiler.stream.timing import NORM_ROW_CYCLES
from tests.sw.compiler.execution import CONFIGS
from tests.sw.compiler.random_graphs import random_mixture


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_commands_decode_to_themselves(config):
    data = lower(random_mixture(1), config).commands.tobytes()
    for start in range(0, len(data), isa.COMMAND_BYTES):
        word = data[start : start + isa.COMMAND_BYTES]
        assert isa.encode(isa.decode(word)) == word


@pytest.mark.parametrize(
    ("graph", "least"),
    [
        (lambda: workloads.encoder(384, 12, 1536, 128), 0.995),
        (lambda: workloads.encoder(384, 12, 1536, 64), 0.99),
        (lambda: workloads.encoder(384, 12, 1536, 32), 0.975),
        (lambda: workloads.encoder(384, 12, 1536, 16), 0.935),
        (lambda: workloads.encoder(768, 12, 3072, 128), 0.99),
        (lambda: workloads.gemm(512, 768, 768), 0.995),
        (lambda: workloads.attention(1, 512, 64), 0.99),
    ],
    ids=["minilm128", "minilm64", "minilm32", "minilm16", "bert128", "gemm", "attention"],
)
def test_estimated_utilisation(graph, least):
    """What the schedule allows; the RTL comes within half a point of it."""
    program = lower(graph(), "base")
    config = get_config("base")
    peak = config.rows * config.columns * program.estimated_cycles
    assert program.useful_macs / peak >= least


def test_lowering_is_fast():
    """Six layers at 128 tokens, about 10,000 commands: a third of a second of processor time."""
    graph = workloads.encoder(384, 12, 1536, 128, layers=6)
    start = time.process_time()
    program = lower(graph, "base")
    assert time.process_time() - start < 2
    assert 5_000 < program.command_count < 20_000


def test_pool_reuses_late():
    pool = Pool("memory", 10)
    first = pool.take(4)
    pool.give_back(first)
    second = pool.take(4)
    assert (first, second) == (0, 4)
    pool.give_back(second)
    assert pool.take(4) == 0  # only two words are left behind the second
    high = pool.take_high(3)
    assert high == 7 and pool.largest_gap == 3 and pool.free_words == 3
    with pytest.raises(DoesNotFit, match="memory: no room for 4 words"):
        pool.take(4)


def test_pool_takes_what_was_given_back_first():
    pool = Pool("memory", 12)
    buffers = [pool.take(4) for _ in range(3)]
    assert buffers == [0, 4, 8]
    for address in (4, 0, 8):
        pool.give_back(address)
    assert pool.take(2) == 4
    assert pool.take(4) == 0  # the words behind the two are as old, but only two
    assert pool.take(6) == 6  # joined with what came back later
    with pytest.raises(AssertionError, match="nothing lives at 8"):
        pool.give_back(8)


@pytest.mark.parametrize(
    ("rows", "wide", "tile"), [(1, 0, 16), (1, 1, 16), (9, 1, 18), (20, 0, 20), (20, 1, 40)]
)
def test_a_wide_row_enters_the_array_twice(rows, wide, tile):
    """A tile takes its rows or its 16 words, whichever are more."""
    emitter = Emitter(get_config("base"))
    emitter.emit(isa.Opcode.GEMM, rows=rows, k_tiles=3, n_tiles=2, wide=wide)
    assert merge(emitter.stream()).estimate.matrix_busy == 6 * tile


def test_norm_rows_take_what_the_model_says():
    """A row of NORM begins two cycles after the one before has ended (`hw.vector.rows`)."""
    assert NORM_ROW_CYCLES == NormRow.latency + 2
