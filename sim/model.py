"""The compiled model from Python: registers, a memory buffer, and running for many cycles.

Nothing here happens once per cycle: `run` stays in C++ until the interrupt or its limit.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.verilator import BuiltModel

__all__ = ["Model", "ModelError", "check_memory"]

_CHUNK_CYCLES = 100_000
"""Cycles between returns to Python, so that Ctrl-C and progress work (below a second)."""

_EVENT = np.dtype([("cycle", "<u8"), ("mask", "<u8")])


class ModelError(RuntimeError):
    """The model did something that a correct design never does; the text says what."""


def check_memory(memory_latency: int, memory_width: int, outstanding: int = 64) -> None:
    """Raises `ValueError` for options of `Model` that are none, before a library is built."""
    for name, value in (("memory_width", memory_width), ("outstanding", outstanding)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if memory_latency < 1:
        raise ValueError(f"memory_latency must be at least 1 cycle, got {memory_latency}")


class Model:
    """One simulated accelerator with its memory.

    Parameters
    ----------
    built: the library.
    memory_latency: cycles from an accepted burst to its first beat, and from the last write
        beat to its response.
    memory_width: bytes a cycle, reads and writes together.
    outstanding: bursts in flight that the memory accepts, for reads and for writes.
    stall_seed: None for no random stalls.
    record: record the events of the trace ports.
    """

    def __init__(
        self,
        built: BuiltModel,
        *,
        memory_latency: int = 64,
        memory_width: int = 16,
        outstanding: int = 64,
        stall_seed: int | None = None,
        record: bool = False,
    ):
        check_memory(memory_latency, memory_width, outstanding)
        self.built = built
        self.run_seconds = 0.0
        self.run_cycles = 0
        self._memory: NDArray[np.uint8] | None = None
        self._lib = _load(built.library)
        built.prepare(self._lib)
        # xorshift must not start at zero, which here means "no stalls".
        seed = 0 if stall_seed is None else (stall_seed * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64
        self._open = self._lib.weft_create(memory_latency, memory_width, outstanding, seed)
        self._lib.weft_record(self._handle, int(record))

    def close(self) -> None:
        """Free the model. May be called more than once; anything else raises `ModelError` then."""
        if self._open:
            self._lib.weft_destroy(self._open)
            self._open = None

    @property
    def _handle(self) -> int:
        if self._open is None:
            raise ModelError("the model is closed")
        return self._open

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self.close()

    def set_memory(self, data: NDArray[np.uint8]) -> None:
        """Put a buffer at bus address 0; it is used in place."""
        if data.dtype != np.uint8 or not data.flags.c_contiguous or not data.flags.writeable:
            raise ValueError("the memory must be a contiguous, writeable uint8 array")
        self._memory = data  # keep it alive
        self._lib.weft_memory(self._handle, data.ctypes.data, data.size)

    def set_fault(self, low: int, high: int, *, reads: bool = True, writes: bool = True) -> None:
        """Answer accesses that touch bytes low..high-1 with SLVERR."""
        self._lib.weft_fault(self._handle, low, high, int(reads), int(writes))

    def set_windows(self, windows: Iterable[tuple[int, int, bool]]) -> None:
        """Bursts must stay within one of (first byte, byte behind it, writable), else `ModelError`.

        Without any, a burst may go anywhere.
        """
        self._lib.weft_clear_windows(self._handle)
        for low, high, writable in windows:
            self._lib.weft_add_window(self._handle, low, high, int(writable))

    def write_register(self, address: int, value: int) -> None:
        """One AXI4-Lite write."""
        if not self._lib.weft_write_register(self._handle, address, value):
            raise ModelError(f"register write to {address:#x}: no answer, or an error response")
        self._check()

    def read_register(self, address: int) -> int:
        """One AXI4-Lite read."""
        value = ctypes.c_uint32()
        if not self._lib.weft_read_register(self._handle, address, ctypes.byref(value)):
            raise ModelError(f"register read of {address:#x}: no answer, or an error response")
        self._check()
        return value.value

    def run(
        self, limit: int | None = None, progress: Callable[[int], None] | None = None
    ) -> tuple[int, bool]:
        """Run until the interrupt or for `limit` cycles: the cycles run, and whether it came."""
        begin = time.perf_counter()
        cycles = 0
        while limit is None or cycles < limit:
            chunk = _CHUNK_CYCLES if limit is None else min(_CHUNK_CYCLES, limit - cycles)
            cycles += self._lib.weft_run(self._handle, chunk)
            self._check()
            if self.interrupt:
                break
            if progress is not None:
                progress(cycles)
        self.run_seconds += time.perf_counter() - begin
        self.run_cycles += cycles
        return cycles, self.interrupt

    @property
    def interrupt(self) -> bool:
        return bool(self._lib.weft_interrupt(self._handle))

    @property
    def cycle(self) -> int:
        """Cycles since reset."""
        return int(self._lib.weft_cycle(self._handle))

    @property
    def khz(self) -> float:
        """Simulated cycles per millisecond of `run`, so far."""
        return self.run_cycles / self.run_seconds / 1e3 if self.run_seconds else 0.0

    def events(self) -> NDArray[np.void]:
        """Recorded trace events, fields `cycle` and `mask` (bit order: `built.traces`)."""
        count = self._lib.weft_event_count(self._handle)
        if not count:
            return np.zeros(0, _EVENT)
        raw = ctypes.string_at(self._lib.weft_events(self._handle), count * _EVENT.itemsize)
        return np.frombuffer(raw, _EVENT)

    def clear_events(self) -> None:
        self._lib.weft_clear_events(self._handle)

    def open_vcd(self, path: str | Path) -> None:
        """Write waveforms from now on (a model built with `vcd=True`)."""
        if not self._lib.weft_open_vcd(self._handle, str(path).encode()):
            raise ModelError(f"cannot write waveforms to {path}: built without vcd, or no access")

    def close_vcd(self) -> None:
        self._lib.weft_close_vcd(self._handle)

    def _check(self) -> None:
        text = self._lib.weft_violation(self._handle)
        if text:
            raise ModelError(f"AXI protocol: {text.decode()}")


_u32, _u64, _int, _pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "weft_create": (_pointer, [_u32, _u32, _u32, _u64]),
    "weft_destroy": (None, [_pointer]),
    "weft_memory": (None, [_pointer, _pointer, _u64]),
    "weft_fault": (None, [_pointer, _u64, _u64, _int, _int]),
    "weft_clear_windows": (None, [_pointer]),
    "weft_add_window": (None, [_pointer, _u64, _u64, _int]),
    "weft_write_register": (_int, [_pointer, _u32, _u32]),
    "weft_read_register": (_int, [_pointer, _u32, _pointer]),
    "weft_run": (_u64, [_pointer, _u64]),
    "weft_interrupt": (_int, [_pointer]),
    "weft_cycle": (_u64, [_pointer]),
    "weft_violation": (ctypes.c_char_p, [_pointer]),
    "weft_record": (None, [_pointer, _int]),
    "weft_event_count": (_u64, [_pointer]),
    "weft_events": (_pointer, [_pointer]),
    "weft_clear_events": (None, [_pointer]),
    "weft_open_vcd": (_int, [_pointer, ctypes.c_char_p]),
    "weft_close_vcd": (None, [_pointer]),
}


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
