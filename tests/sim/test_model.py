"""The C++ harness on a small design: data, time, stalls, errors, events, waveforms."""

import numpy as np
import pytest

from sim.export import component_verilog
from sim.model import Model, ModelError
from sim.verilator import build_model
from tests.sim.copier import Copier

SOURCE, TARGET, BEATS, BURSTS, START, STATUS = range(0, 24, 4)
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-w")  # short builds


@pytest.fixture(scope="module", params=[4, 16])
def built(request):
    return build_model(component_verilog(Copier(request.param)), cxx_flags=FLAGS)


def copy(model, memory, bursts, beats=4, source=0, target=4096):
    model.set_memory(memory)
    for register, value in ((SOURCE, source), (TARGET, target), (BEATS, beats), (BURSTS, bursts)):
        model.write_register(register, value)
    model.write_register(START, 1)
    cycles, done = model.run(100_000)
    assert done
    return cycles


def make_memory(size=8192):
    return np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("stall_seed", [None, 1, 2])
@pytest.mark.parametrize(("latency", "width"), [(1, 16), (64, 16), (7, 3), (1, 64)])
def test_copies_every_byte(built, latency, width, stall_seed):
    model = Model(built, memory_latency=latency, memory_width=width, stall_seed=stall_seed)
    memory = make_memory()
    before = memory.copy()
    size = 6 * 8 * built.bus_bytes
    copy(model, memory, bursts=6, beats=8)
    assert (memory[4096 : 4096 + size] == before[:size]).all()
    assert (memory[:4096] == before[:4096]).all()
    assert (memory[4096 + size :] == before[4096 + size :]).all()
    assert model.read_register(STATUS) == 0
    model.close()


def test_time(built):
    def cycles(**options):
        return copy(Model(built, **options), make_memory(), bursts=5, beats=8)

    base = cycles(memory_latency=10, memory_width=16)
    # A burst waits once for its data and once for its response.
    assert cycles(memory_latency=74, memory_width=16) - base == 2 * 64 * 5
    # Half the bus width: a beat every second cycle, 7 more cycles in each direction.
    narrow = cycles(memory_latency=10, memory_width=built.bus_bytes // 2)
    assert 5 * 14 <= narrow - base <= 5 * 16
    assert cycles(memory_latency=10, stall_seed=3) > base


def test_same_seed_same_cycles(built):
    runs = [copy(Model(built, stall_seed=s), make_memory(), 10) for s in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]


def test_errors(built):
    model = Model(built)
    memory = make_memory(8000)
    copy(model, memory, bursts=1, beats=2, source=8000 - built.bus_bytes)
    assert model.read_register(STATUS) >> 1 == 1  # the second beat is beyond the memory
    before = memory[4096:].copy()
    model.set_fault(4096 + built.bus_bytes, 4096 + built.bus_bytes + 1, reads=False)
    copy(model, memory, bursts=1, beats=2, source=512)
    assert model.read_register(STATUS) >> 1 == 1
    assert (memory[4096 : 4096 + built.bus_bytes] == memory[512 : 512 + built.bus_bytes]).all()
    assert (memory[4096 + built.bus_bytes :] == before[built.bus_bytes :]).all()


def test_protocol_violation_is_reported(built):
    model = Model(built)
    with pytest.raises(ModelError, match="4096-byte"):
        copy(model, make_memory(), bursts=1, beats=4, source=4096 - built.bus_bytes)


def test_bursts_stay_within_the_windows(built):
    size = 4 * built.bus_bytes
    good = [(0, size, False), (4096, 4096 + size, True)]
    model = Model(built)
    model.set_windows(good)
    copy(model, make_memory(), bursts=1)
    for windows, text in (
        ([(0, size, True)], "write burst outside every writable window"),
        ([(0, size, False), (4096, 4096 + size, False)], "write burst outside"),
        ([(0, size - 1, False), good[1]], "read burst outside every window"),
        ([(1, size, False), good[1]], "read burst outside"),
    ):
        model = Model(built)
        model.set_windows(windows)
        with pytest.raises(ModelError, match=text):
            copy(model, make_memory(), bursts=1)
    model = Model(built)
    model.set_windows(good)
    model.set_windows([])
    copy(model, make_memory(), bursts=1, source=512)


def test_events(built):
    names = [(t.port, t.index) for t in built.traces]
    expected = [("trace_done", 0), ("trace_errors", 0), ("trace_errors", 1), ("trace_started", 0)]
    assert names == expected
    model = Model(built, record=True)
    for _ in range(2):
        copy(model, make_memory(), bursts=1)
    events = model.events()
    assert list(events["mask"]) == [8, 1, 8, 1]
    assert (np.diff(events["cycle"].astype(np.int64)) > 0).all()
    model.clear_events()
    assert len(model.events()) == 0


def test_limit(built):
    model = Model(built)
    model.set_memory(make_memory())
    assert model.run(1000) == (1000, False)
    assert model.khz > 0


def test_closed(built):
    model = Model(built)
    model.close()
    model.close()
    for call in (lambda: model.run(1), lambda: model.read_register(0), lambda: model.interrupt):
        with pytest.raises(ModelError, match="the model is closed"):
            call()


def test_second_build_comes_from_the_cache(built):
    again = build_model(component_verilog(Copier(built.bus_bytes)), cxx_flags=FLAGS)
    assert again.library == built.library and again.build_seconds == 0


def test_waveforms(tmp_path):
    built = build_model(component_verilog(Copier(4)), cxx_flags=FLAGS, vcd=True)
    model = Model(built)
    model.open_vcd(tmp_path / "copy.vcd")
    copy(model, make_memory(), bursts=1)
    model.close_vcd()
    text = (tmp_path / "copy.vcd").read_text()
    assert "$var wire" in text and "m_axi_araddr" in text
    with pytest.raises(ModelError, match="waveforms"):
        plain = Model(build_model(component_verilog(Copier(4)), cxx_flags=FLAGS))
        plain.open_vcd(tmp_path / "no.vcd")
