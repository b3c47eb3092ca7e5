"""Decoders that lie in a device's memory together, and the workspaces of their sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hw.isa import Region
from sw.driver.errors import DeviceError, MemorySizeError
from sw.driver.machine import Machine

__all__ = ["DecoderMemory"]

_ALIGNMENT = 4096


class Model(Protocol):
    """What the memory holds of a `LoadedDecoder`."""

    @property
    def program(self) -> Any: ...

    @property
    def commands(self) -> NDArray[np.uint8]: ...

    @property
    def io_bytes(self) -> int: ...

    @property
    def sessions(self) -> Sequence[Workspace]: ...


class Workspace(Protocol):
    """What it holds of a `Session`."""

    slot: int | None
    image: NDArray[np.uint8] | None

    @property
    def model(self) -> Model: ...

    def keep(self) -> None: ...


class DecoderMemory:
    """One behind the other: commands and constants of all programs, workspaces of all sessions.

    A pass sees those of its own program through the windows.

    Attributes
    ----------
    ready: session, begin of the commands, position and token for which the machine's windows and
    registers stand, if for any.
    """

    def __init__(self, device: Machine):
        self.device = device
        self.models: list[Model] = []
        self.ready: tuple[Workspace, int, int, int] | None = None
        self._slots: list[int] = []  # of each model, while it is loaded
        self._begins: dict[Region, list[int]] = {}  # of each model's part of a region
        self._shown: Model | None = None  # whose constants the machine sees

    def displaced(self) -> None:
        """Something else takes the device's memory: keep what the sessions have there."""
        for model in self.models:
            for session in model.sessions:
                session.keep()
        self._slots, self.ready, self._shown = [], None, None

    def place(self, session: Workspace) -> None:
        """Put everything that is not there into the device's memory: weights, this session."""
        if self.device.loaded is not self or session.slot is None:
            free = self._free(session.model)
            if self.device.loaded is not self or not free:
                self._load()
                free = self._free(session.model)
            session.slot = min(free)
        if session.image is not None:
            self.device.write(Region.WORKSPACE, self.offset(session), session.image)
            session.image = None

    def show(self, session: Workspace, begin: int, size: int) -> None:
        """Let the machine see a session, its program's constants, and `size` bytes of commands
        from `begin` on."""
        model = session.model
        index = self.models.index(model)
        self.device.set_window(Region.PROGRAM, self._begins[Region.PROGRAM][index] + begin, size)
        if self._shown is not model:
            where = self._begins[Region.CONSTANT][index]
            self.device.set_window(Region.CONSTANT, where, len(model.program.constants))
            self._shown = model
        workspace = model.program.workspace_bytes
        self.device.set_window(Region.WORKSPACE, self.offset(session), workspace)

    def offset(self, session: Workspace) -> int:
        """Of a session's workspace in its region."""
        assert session.slot is not None
        begin = self._begins[Region.WORKSPACE][self.models.index(session.model)]
        return begin + session.slot * session.model.program.workspace_bytes

    def _free(self, model: Model) -> set[int]:
        slots = self._slots[self.models.index(model)] if self._slots else 0
        return set(range(slots)) - {session.slot for session in model.sessions}

    def _load(self) -> None:
        """All programs and constants, with room for all sessions."""
        if self.device.loaded is self:
            self.displaced()
            self.device.loaded = None
        slots = [_slots(len(model.sessions)) for model in self.models]
        commands, self._begins[Region.PROGRAM] = _joined([m.commands for m in self.models])
        programs = [model.program for model in self.models]
        constants, self._begins[Region.CONSTANT] = _joined([p.constants for p in programs])
        sizes = [n * p.workspace_bytes for n, p in zip(slots, programs, strict=True)]
        self._begins[Region.WORKSPACE], workspace = _places(sizes)
        try:
            self.device.load_commands(
                commands,
                constants,
                workspace_bytes=workspace,
                io_bytes=max(model.io_bytes for model in self.models),
            )
        except MemorySizeError as error:
            if len(self.models) == 1:
                raise
            raise DeviceError(
                f"{len(self.models)} programs together need {error.needed:,} bytes of memory, the "
                f"board has {error.available:,}: take smaller models, or one alone"
            ) from None
        self._slots, self.device.loaded = slots, self


def _slots(sessions: int) -> int:
    """Room for so many sessions: a power of two, so that it is seldom too small."""
    slots = 1
    while slots < sessions:
        slots *= 2
    return slots


def _places(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where parts of these sizes begin, and where the last one ends."""
    begins, end = [], 0
    for size in sizes:
        begins.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = begins[-1] + size
    return begins, end


def _joined(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """The parts as one, and where each begins."""
    if len(parts) == 1:
        return parts[0], [0]
    begins, end = _places([len(part) for part in parts])
    whole = np.zeros(end, np.uint8)
    for begin, part in zip(begins, parts, strict=True):
        whole[begin : begin + len(part)] = part
    return whole, begins
