"""Encoder and decoder of a random Whisper in one program: one stores what the other reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hw.isa import Function, Region
from sw.compiler.errors import CompileError, ProgramError
from sw.compiler.graph.decoder import memory_integers
from sw.compiler.graph.operations import QuantLinear
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.lower import lower
from sw.compiler.memories import DECODER, ENCODER, in_units_of, lower_with_memory
from sw.compiler.program.joint import JointProgram
from sw.driver import DeviceError, open_device
from sw.driver.session import SessionError
from sw.models.whisper_parts import windows
from tests.sw.speech.random_whisper import SEED, random_spectrogram
from tests.sw.speech.test_random_whisper import ROWS, quantised

TEXT = [1, 2, 5, 9, 11, 3, 30]


def _rows(number: int) -> np.ndarray:
    rng = np.random.default_rng([SEED, number])
    return windows(random_spectrogram(rng, ROWS))[None]


def _given(program: JointProgram, rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Memories as a host writes them that has the same integers from the reference."""
    decoder = program.decoder(DECODER)
    found = run_reference(in_units_of(quantised().encoder, decoder.state), (rows,))
    pairs = zip(found[::2], found[1::2], strict=True)
    return {n: (k[0], v[0]) for n, (k, v) in zip(decoder.memories, pairs, strict=True)}


@pytest.mark.parametrize("config", ["tiny", "base"])
def test_the_encoder_stores_what_a_host_would_write(config):
    """Byte for byte, for several sequences, wherever they lie; and texts go on the same."""
    program = lower_with_memory(quantised().encoder, quantised().decoder, config, (1, 4))
    decoder, heard = program.decoder(DECODER), [_rows(n) for n in range(3)]
    with open_device("golden", program.config) as device:
        alone = device.load_decoder(decoder)
        expected = [alone.session(_given(program, rows)).prefill(TEXT) for rows in heard]
        entries = device.load_entries(program)
        model, encoder = entries.decoder(DECODER), entries.module(ENCODER)
        sessions = [model.session() for _ in heard]
        for session, rows in zip(sessions, heard, strict=True):
            encoder.fill(session, rows)
        for session, rows, wanted in zip(sessions, heard, expected, strict=True):
            caches = model.read_back(session)
            for offset, data in decoder.memory_image(_given(program, rows)):
                np.testing.assert_array_equal(caches[offset : offset + len(data)], data)
            found = session.prefill(TEXT)
            np.testing.assert_array_equal(found.tokens, wanted.tokens)
            np.testing.assert_array_equal(found.log_probabilities, wanted.log_probabilities)


def test_integers_in_other_units_are_the_same_numbers():
    """But for the rounding to the units that they had before, and that of the multipliers."""
    q = quantised()
    assert q.decoder.decoder is not None
    (memory,) = q.decoder.decoder.memories.values()
    changed = in_units_of(q.encoder, q.decoder.decoder)
    ours, theirs = (
        memory_integers(memory, *(x[0] for x in run_reference(graph, (_rows(0),))))
        for graph in (changed, q.encoder)
    )
    for found, wanted, output, unit in zip(
        ours, theirs, changed.outputs, (memory.key_unit, memory.value_unit), strict=True
    ):
        before = q.encoder.tensors[output.name].scale / unit / 2
        difference = np.abs(found.astype(int) - wanted)
        assert (difference <= before + 1.5 + 2.0**-14 * np.abs(wanted)).all()
        assert np.mean(difference > 0) < 0.6 and found.std() > 10


def test_rtl_equals_golden():
    """An encoder and passes behind it: every byte that both may write, scratch included."""
    program = lower_with_memory(quantised().encoder, quantised().decoder, "tiny", (1, 4))
    written, predictions = [], []
    for name, options in (("golden", {}), ("verilator", {"optimise": False})):
        with open_device(name, "tiny", **options) as device:
            entries = device.load_entries(program)
            model = entries.decoder(DECODER)
            session = model.session()
            entries.module(ENCODER).fill(session, _rows(0))
            stored = device.read(Region.WORKSPACE, 0, model.workspace_bytes)
            predictions.append([session.prefill(TEXT), session.step(11)])
            after = device.read(Region.WORKSPACE, 0, model.workspace_bytes)
            written.append(np.concatenate([stored, after]))
    np.testing.assert_array_equal(*written)
    for ours, theirs in zip(*predictions, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.log_probabilities, theirs.log_probabilities)


def test_a_memory_survives_other_programs():
    q = quantised()
    program = lower_with_memory(q.encoder, q.decoder, "tiny", (1, 4))
    with open_device("golden", "tiny") as device:
        entries = device.load_entries(program)
        session = entries.decoder(DECODER).session()
        entries.module(ENCODER).fill(session, _rows(0))
        fork = session.fork()
        expected = session.prefill(TEXT)
        device.load(lower(q.encoder, "tiny"))(_rows(1))
        found = fork.prefill(TEXT)
    np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)


def test_what_goes_wrong_is_one_line():
    q = quantised()
    plain, program = (
        lower(q.encoder, "tiny"),
        lower_with_memory(q.encoder, q.decoder, "tiny", (1,)),
    )
    with open_device("golden", "tiny") as device:
        entries = device.load_entries(JointProgram({**program.entries, "plain": plain}))
        model, encoder = entries.decoder(DECODER), entries.module(ENCODER)
        session = model.session()
        with pytest.raises(SessionError, match="remembers nothing yet: fill it by entry 'encoder'"):
            session.step(1)
        with pytest.raises(SessionError, match="remembers nothing yet"):
            session.fork().step(1)
        with pytest.raises(DeviceError, match="use `fill`"):
            encoder(_rows(0))
        with pytest.raises(DeviceError, match="an entry of its own program"):
            device.load(plain).fill(session, _rows(0))
        with pytest.raises(DeviceError, match="gives its results back: call it"):
            entries.module("plain").fill(session, _rows(0))
        encoder.fill(session, _rows(0))
        session.step(1)
        session.close()
        with pytest.raises(SessionError, match="closed"):
            encoder.fill(session, _rows(0))


def test_what_is_no_encoder_for_a_decoder():
    q = quantised()
    assert q.decoder.decoder is not None
    state = q.decoder.decoder
    one = dataclasses.replace(q.encoder, outputs=q.encoder.outputs[:1])
    with pytest.raises(CompileError, match="has 1 results, the decoder 1 memories"):
        in_units_of(one, state)
    name = q.encoder.outputs[0].name
    place = next(o for o in q.encoder.ops if isinstance(o, QuantLinear) and o.out16 == name).place
    for fields in ({"function": Function.RELU}, {"out8": "more"}):
        ops = [
            dataclasses.replace(op, **fields)
            if isinstance(op, QuantLinear) and op.out16 == name
            else op
            for op in q.encoder.ops
        ]
        with pytest.raises(CompileError, match="are what a linear gives") as error:
            in_units_of(dataclasses.replace(q.encoder, ops=ops), state)
        assert str(error.value).startswith(place)
    memories = {n: dataclasses.replace(m, rows=m.rows + 1) for n, m in state.memories.items()}
    caches = {n: dataclasses.replace(c, memory=memories.get(n)) for n, c in state.caches.items()}
    with pytest.raises(CompileError, match=rf"the memory is \[{ROWS + 1}, .* are \[{ROWS}, "):
        in_units_of(q.encoder, dataclasses.replace(state, caches=caches))


def test_an_encoder_for_another_decoder_is_refused():
    q = quantised()
    program = lower_with_memory(q.encoder, q.decoder, "tiny", (1,))
    encoder, decoder = program.module(ENCODER), program.decoder(DECODER)
    with pytest.raises(ProgramError, match="'encoder' stores the memories of a decoder, and none"):
        JointProgram({"encoder": encoder})
    with pytest.raises(ProgramError, match="none or several"):
        JointProgram({"encoder": encoder, "one": decoder, "two": decoder})
    other = lower(q.encoder, "base")
    with pytest.raises(ProgramError, match="'other' is for configuration 'base', the first one"):
        JointProgram({"decoder": decoder, "other": other})
