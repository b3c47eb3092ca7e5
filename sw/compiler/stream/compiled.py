"""`find_waits` and `find_starts` in C++, where there is a compiler.

They walk through all commands one by one, which takes Python most of a lowering.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.isa import WAIT_SLOTS, Unit
from sim.library import shared_library
from sw.compiler.stream import starts, waits
from sw.compiler.stream.access import ACCESS_COLUMNS, Space
from sw.compiler.stream.starts import Queued, Starts
from sw.compiler.stream.waits import Found, Touching

__all__ = ["find_starts", "find_waits"]

SOURCES = ("stream.cpp", "waits.h", "starts.h")


def _layout_header() -> str:
    """Numbers that Python has, and rows of its arrays."""
    numbers = {
        "UNITS": len(Unit),
        "SPACES": max(Space) + 1,
        "WAIT_SLOTS": WAIT_SLOTS,
        "START": starts.START,
        "MATRIX_LATENCY": starts.MATRIX_LATENCY,
        "VECTOR_LATENCY": starts.VECTOR_LATENCY,
        "COMMAND_OVERHEAD": starts.COMMAND_OVERHEAD,
        **{f"UNIT_{unit.name}": int(unit) for unit in Unit},
    }
    return "\n".join(
        [
            "#pragma once",
            "#include <cstdint>",
            *(f"static constexpr int {name} = {number};" for name, number in numbers.items()),
            f"struct Run {{ std::int32_t {', '.join(ACCESS_COLUMNS)}; }};",
            "struct Wait { std::int32_t unit, count; };\n",
        ]
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    sources = {name: Path(__file__).with_name(name).read_text() for name in SOURCES}
    sources["layout.h"] = _layout_header()
    library = shared_library("stream", sources, "stream.cpp", "Python finds the waits, slowly")
    if library is not None:
        library.weft_waits_find.restype = ctypes.c_void_p
        library.weft_starts_find.restype = ctypes.c_int64
    return library


def _address(array: np.ndarray, kind: type) -> ctypes.c_void_p:
    assert array.flags.c_contiguous and array.dtype == kind
    return ctypes.c_void_p(array.ctypes.data)


def find_waits(touching: Touching) -> Found:
    """As `waits.find_waits`."""
    library = _library()
    if library is None:
        return waits.find_waits(touching)
    search = ctypes.c_void_p(
        library.weft_waits_find(
            ctypes.c_int64(len(touching.unit)),
            _address(touching.unit, np.int8),
            _address(touching.certain, np.bool_),
            _address(touching.answer, np.int32),
            _address(touching.table, np.int32),
            _address(touching.begin, np.int64),
            _address(touching.words, np.int64),
        )
    )
    sizes = np.zeros(3, np.int64)
    library.weft_waits_sizes(search, _address(sizes, np.int64))
    before, commands, loads = sizes.tolist()
    found = Found(
        np.empty(before, np.int64),
        np.empty((commands, WAIT_SLOTS, 2), np.int32),
        np.empty((loads, 2), np.int32),
    )
    library.weft_waits_take(
        search,
        _address(found.before, np.int64),
        _address(found.waits, np.int32),
        _address(found.first_use, np.int32),
    )
    return found


def find_starts(queued: Queued) -> Starts:
    """As `starts.find_starts`."""
    library = _library()
    if library is None:
        return starts.find_starts(queued)
    order: NDArray[np.int64] = np.empty(len(queued.unit), np.int64)
    start, end = np.empty(len(queued.unit)), np.empty(1)
    count = library.weft_starts_find(
        ctypes.c_int64(len(queued.unit)),
        _address(queued.unit, np.int8),
        _address(queued.waits, np.int32),
        _address(queued.behind, np.int32),
        ctypes.c_int64(len(queued.behind)),
        _address(queued.work, np.int64),
        _address(queued.not_before, np.float64),
        ctypes.c_int64(len(queued.not_before)),
        ctypes.c_int64(queued.latency),
        _address(order, np.int64),
        _address(start, np.float64),
        _address(end, np.float64),
    )
    assert count == len(order), "the waits form a cycle"
    return Starts(order, start, float(end[0]))
