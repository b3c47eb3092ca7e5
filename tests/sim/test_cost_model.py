"""The compiler's prediction of cycles against the RTL, and the speed of small rows of the bench."""

from dataclasses import replace

import pytest

from hw.config import get_config
from sw.bench.cases import Attention, Case, Encoder, Gemm, random_inputs
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.measure import measure, measure_program
from sw.bench.measure_decoder import measure_pass
from sw.compiler.graph.retarget import with_lengths
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.quantise.decoder.options import decoder_weights

TOLERANCE = 0.03
DECODER_TOLERANCE = 0.02

ROWS = (
    # The bus is the limit.
    (Gemm(16, 384, 384), 0.84),
    (Gemm(1, 768, 768), 0.059),
    (Encoder(384, 12, 1536, 16), 0.93),
    # The array is.
    (Gemm(128, 384, 512), 0.98),
    (Attention(12, 128, 32), 0.98),
    (Attention(1, 512, 64, causal=True), 0.92),
    (Attention(1, 4096, 64, queries=64), 0.99),
    (Encoder(192, 3, 768, 32), 0.92),
)
"""Workload, and the least useful share of the array's cycles."""


@pytest.mark.parametrize(("workload", "least"), ROWS, ids=[row.title for row, _ in ROWS])
def test_predicted_cycles(workload, least):
    result = measure(Case(workload))
    error = result["estimated_cycles"] / result["cycles"] - 1
    print(f"{result['cycles']} cycles, predicted {error:+.2%}, used {result['utilization']:.2%}")
    assert result["bit_exact"]
    assert abs(error) <= TOLERANCE
    assert result["utilization"] >= least


@pytest.mark.parametrize("lengths", [(43, 1, 17), (9, 9, 8, 8, 7, 7, 7, 5)])
def test_predicted_cycles_of_several_lengths(lengths):
    graph = with_lengths(Encoder(192, 3, 768, max(lengths)).graph(), lengths)
    program = lower(graph, "base")
    result = measure_program(program, random_inputs(program.graph))
    error = result["estimated_cycles"] / result["cycles"] - 1
    print(f"{result['cycles']} cycles, predicted {error:+.2%}, used {result['utilization']:.2%}")
    assert result["bit_exact"]
    assert abs(error) <= TOLERANCE
    assert result["utilization"] >= 0.9


SHAPE = DecoderShape(
    hidden=576, heads=9, kv_heads=3, ffn=1536, layers=1, vocabulary=512, context=600
)
PASSES = ((1, 40, False), (1, 599, False), (8, 300, False), (32, 1, True))
"""Tokens, position, whether the pass only reads."""


@pytest.fixture(scope="module")
def decoder_program() -> DecoderProgram:
    return lower_decoder(decoder(SHAPE), "base", [tokens for tokens, *_ in PASSES])


@pytest.mark.parametrize(("tokens", "position", "reading"), PASSES)
def test_predicted_cycles_of_a_decoder(decoder_program, tokens, position, reading):
    """At any position: what is dropped costs its fetching alone."""
    result = measure_pass(decoder_program, tokens, position, reading=reading)
    error = result["estimated_cycles"] / result["cycles"] - 1
    print(f"{result['cycles']} cycles, predicted {error:+.2%}")
    assert result["bit_exact"]
    assert abs(error) <= DECODER_TOLERANCE


def test_five_and_six_tokens_at_once_pay_with_4_bits():
    """A tile takes 9 cycles to arrive, 5 tokens of 16 bits take 10 to pass it and 6 take 12."""
    shape = replace(SHAPE, weights=decoder_weights(4, get_config("base")))
    program = lower_decoder(decoder(shape), "base", (4, 5, 6))
    four, five, six = (measure_pass(program, tokens, 300) for tokens in (4, 5, 6))
    for found in (four, five, six):
        error = found["estimated_cycles"] / found["cycles"] - 1
        print(f"{found['cycles']} cycles, predicted {error:+.2%}")
        assert found["bit_exact"]
        assert abs(error) <= DECODER_TOLERANCE
    assert 1.03 < five["cycles"] / four["cycles"] < 1.1
    assert 1.2 < six["cycles"] / four["cycles"] < 1.33  # 12 / 9
