"""Sequences of several lengths in one program: each gives what it gives by itself."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch

from hw.config import PRESETS
from sw.compiler.compile import compile_module
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_lengths, with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.driver import open_device
from tests.sim.rtl import CONFIGS as RTL_CONFIGS
from tests.sim.rtl import open_pair
from tests.sw.compiler.examples import Block, example
from tests.sw.compiler.execution import CONFIGS, run_golden
from tests.sw.compiler.random_graphs import (
    Builder,
    formats_of,
    random_encoder,
    random_inputs,
    random_mixture,
)

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
MOST = 37


def random_graph(random: np.random.Generator, config, hidden: int = 40) -> QuantGraph:
    """An encoder of one sequence: causal, masked, biased or not, with key blocks of any size."""
    causal, masked, biased = (bool(random.integers(2)) for _ in range(3))
    return random_encoder(
        int(random.integers(1 << 16)), batch=1, tokens=MOST, hidden=hidden, heads=2, ffn=56,
        causal=causal, masked=masked, biased=biased, key_block=int(random.choice([8, 16, 64])),
        formats=formats_of(config),
    )  # fmt: skip


def random_lengths(random: np.random.Generator) -> list[int]:
    """A few, always one of a single token and one of all."""
    lengths = [1, MOST, *random.integers(1, MOST + 1, random.integers(0, 4)).tolist()]
    return random.permutation(lengths).tolist()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(2))
def test_each_sequence_gives_what_it_gives_alone(name, seed):
    random = np.random.default_rng([SEED, seed, list(CONFIGS).index(name)])
    config = CONFIGS[name]
    graph, lengths = random_graph(random, config), random_lengths(random)
    print(f"seed {SEED}, {seed}: lengths {lengths} on {name}")
    together = with_lengths(graph, lengths)
    inputs = random_inputs(together, seed)
    program = lower(together, config)
    found = program.read_outputs(run_golden(program, inputs))
    parts = [together.rows.split(rows) for rows in found]
    assert program.useful_macs == sum(with_shape(graph, 1, n).useful_macs for n in lengths)
    for number, length in enumerate(lengths):
        alone = lower(with_shape(graph, 1, length), config)
        own = [together.rows.split(rows)[number][None] for rows in inputs]
        want = alone.read_outputs(run_golden(alone, own))
        for part, rows in zip(parts, want, strict=True):
            np.testing.assert_array_equal(part[number], rows[0], err_msg=f"{length} tokens")


def test_neighbours_in_other_places_would_be_noticed():
    """The check above has teeth: keys of the sequence behind change every row."""
    config = CONFIGS["4x4"]
    graph = random_graph(np.random.default_rng(SEED), config)
    lengths = [5, 11, 3]
    inputs = random_inputs(with_lengths(graph, lengths), SEED)
    moved = run_reference(with_lengths(graph, [6, 10, 3]), inputs)
    for rows, other in zip(run_reference(with_lengths(graph, lengths), inputs), moved, strict=True):
        differ = (rows != other).any(axis=1)
        assert differ[:16].any() and not differ[16:].any()


@pytest.mark.parametrize("lengths", [[9], [11, 11, 11]])
def test_equal_lengths_are_todays_program(lengths):
    """The same commands and constants, from the first byte to the last."""
    for name in ("4x4", "8x16"):
        graph = random_graph(np.random.default_rng(SEED), CONFIGS[name])
        one = lower(with_lengths(graph, lengths), CONFIGS[name])
        other = lower(with_shape(graph, len(lengths), lengths[0]), CONFIGS[name])
        for field in dataclasses.fields(Program):
            if field.name != "graph":
                found, want = (getattr(program, field.name) for program in (one, other))
                assert np.array_equal(found, want), field.name


@pytest.mark.parametrize("name", ["4x4", "8x4", "12x8"])
def test_on_the_rtl(name):
    """Every byte of memory, with stalls."""
    config = RTL_CONFIGS[name]
    random = np.random.default_rng([SEED, len(name)])
    graph, lengths = random_graph(random, config, hidden=16), random_lengths(random)
    print(f"seed {SEED}: lengths {lengths} on {name}")
    program = lower(with_lengths(graph, lengths), config)
    inputs = random_inputs(program.graph, SEED)
    with open_pair(config, stall_seed=SEED) as pair:
        for device in pair.devices:
            device.load(program)(*inputs)
        pair.assert_same_memory(f"lengths {lengths}")


def test_a_module_takes_and_gives_sequences(tmp_path):
    """Lists in, lists out, or all rows; a program file keeps the lengths."""
    torch.manual_seed(SEED)
    module, lengths = Block(hidden=16, heads=2, ffn=24).eval(), [3, 12, 1, 7]
    example_rows = torch.randn(2, 12, 16)
    compile_module(module, example_rows, "tiny", lengths=lengths).save(tmp_path / "p")
    program = Program.load(tmp_path / "p")
    given = [torch.randn(length, 16) for length in lengths]
    with open_device("golden", config="tiny") as device:
        run = device.load(program)
        found, rows = run(given), run(torch.cat(given))
        integers = run([each.numpy() for each in given])
    assert [tuple(each.shape) for each in found] == [(length, 16) for length in lengths]
    assert torch.equal(torch.cat(found), rows)
    assert all(np.array_equal(a, b) for a, b in zip(found, integers, strict=True))
    with torch.no_grad():
        exact = torch.cat([module(each[None])[0] for each in given])
    assert torch.nn.functional.cosine_similarity(exact, rows).min() > 0.99


def test_a_module_without_a_batch():
    """Inputs and outputs [tokens, features] are rows already."""
    torch.manual_seed(SEED)
    module = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.LayerNorm(12)).eval()
    rows = torch.randn(9, 8)
    alone, parts = (
        compile_module(module, rows, "tiny", lengths=lengths) for lengths in (None, [4, 5])
    )
    assert alone.graph.inputs[0].shape == parts.graph.inputs[0].shape == (9, 8)
    with open_device("golden", config="tiny") as device:
        found = device.load(parts)(list(rows.split([4, 5])))
        assert torch.equal(torch.cat(found), device.load(alone)(rows))


def test_what_is_refused():
    module = Block(hidden=16, heads=2, ffn=24).eval()
    for lengths, text in (
        ([3, 13], "a sequence of 13 tokens: the graph is for 1 to 12 tokens"),
        ([0], "a sequence of 0 tokens"),
        ([], "no lengths given"),
    ):
        with pytest.raises(CompileError, match=text):
            compile_module(module, torch.randn(1, 12, 16), "tiny", lengths=lengths)
    with pytest.raises(CompileError, match="two lengths"):
        with_lengths(random_mixture(0), [3])
    b = Builder(0, 2, 3)
    b.output(b.linear(b.float_input("a", 8, 8), 8, "linear")[1])
    b.graph.outputs[0] = dataclasses.replace(b.graph.outputs[0], shape=(6, 8))
    with pytest.raises(CompileError, match=r"'linear.8' is \[6, 8\], not \[batch, tokens, ...\]"):
        with_lengths(b.graph, [3])
    program = lower(with_lengths(example("post")[2], [4, 2]), PRESETS["tiny"])
    rows = np.zeros((6, 100), np.float32)
    with pytest.raises(InputError, match="has sequences of 2, 4 rows, the program is for 4, 2"):
        program.prepare_inputs([rows[:2], rows[2:]])
    with pytest.raises(InputError, match="differ in more than their lengths"):
        program.prepare_inputs([rows[:4], rows[4:, :5]])
    with pytest.raises(InputError, match="shape"):
        program.prepare_inputs(rows[:5])
