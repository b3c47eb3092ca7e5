"""A board behind a serial port: `open_device("board:/dev/ttyUSB0", config="ulx3s")`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import Region
from hw.registers import Register, State, counter_address
from sw.driver.device import Device
from sw.driver.errors import DeviceError, LinkError, MemorySizeError
from sw.driver.link import ByteLine, Link
from sw.driver.machine import Progress
from sw.driver.regions import RegionMap
from sw.driver.serial_line import SerialLine

__all__ = ["BAUD", "BoardDevice"]

BAUD = 3_000_000

ZERO_BLOCK_BYTES = 4096
"""Blocks of zeros in what is written are filled on the board instead of sent."""

LONG_BYTES = 1 << 17
"""Transfers of less take less than half a second and are not reported."""

FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.02
STANDSTILL_SECONDS = 5.0
CARRY_NEAR = 0xFFFF_0000


class BoardDevice(Device):
    """The accelerator on a board, or the simulated one of `weft simulate-board`.

    After a `LinkError` the next call begins anew: it checks that the board is the same, stops
    what runs, and programs are put into its memory again.

    Parameters
    ----------
    config: of the bitstream. port: serial port, as the operating system names it; or a line.
    baud: rate that the bitstream was built for.
    timeout: seconds without an answer until requests are repeated.
    progress: called with (text, bytes done, bytes) in long transfers.
    """

    name = "board"
    argument = "PORT"

    def __init__(
        self,
        config: AcceleratorConfig,
        port: str | ByteLine,
        *,
        baud: int = BAUD,
        timeout: float = 1.0,
        progress: Callable[[str, int, int], None] | None = None,
    ):
        super().__init__(config)
        line = SerialLine(port, baud) if isinstance(port, str) else port
        try:
            self.link = Link(line, timeout=timeout)
        except BaseException:
            line.close()
            raise
        self.regions = RegionMap(alignment=config.burst_bytes)
        self._report = progress
        self._lost = False

    def check(self) -> None:
        super().check()
        self.reset()  # an earlier program may have been left running

    def allocate(self, sizes: Mapping[Region, int]) -> Mapping[Region, int]:
        available = self.link.identity.memory_bytes
        needed = self.regions.place(sizes)
        if needed > available:
            self.regions.close()
            raise MemorySizeError(sizes, needed, available)
        with self._session() as link:
            link.fill(0, needed, self._progress("Clearing the board's memory", needed))
        return self.regions.bases

    def write(self, region: Region, offset: int, data: NDArray[np.uint8]) -> None:
        address = self.regions.locate(region, offset, len(data))
        progress = self._progress(f"Writing {region.name.lower()}", len(data))
        with self._session() as link:
            for begin, end, zero in _parts(data):
                report = _shifted(progress, begin, len(data))
                if zero:
                    link.fill(address + begin, end - begin, report)
                else:
                    link.write(address + begin, data[begin:end].tobytes(), report)

    def read(self, region: Region, offset: int, size: int) -> NDArray[np.uint8]:
        address = self.regions.locate(region, offset, size)
        with self._session() as link:
            progress = self._progress(f"Reading {region.name.lower()}", size)
            data = link.read(address, size, progress)
        return np.frombuffer(data, np.uint8).copy()

    def read_registers(self, address: int, count: int) -> list[int]:
        with self._session() as link:
            return link.read_registers(address, count)

    def read_register(self, address: int) -> int:
        return self.read_registers(address, 1)[0]

    def write_register(self, address: int, value: int) -> None:
        with self._session() as link:
            link.write_registers(address, [value])

    def wait(self, limit: int | None, progress: Progress | None = None) -> bool:
        pause, before, changed = FIRST_PAUSE, -1, time.monotonic()
        while True:
            # The answer to any request has the interrupt as well.
            cycles = self._cycles()
            if self.link.interrupt:
                return True
            if limit is not None and cycles >= limit:
                return False
            if progress is not None:
                progress(cycles)
            if cycles != before:
                before, changed = cycles, time.monotonic()
            elif time.monotonic() - changed > STANDSTILL_SECONDS:
                state = State(self.read_register(Register.STATUS) & 3).name
                raise DeviceError(
                    f"the accelerator is {state} and counts no cycles: its clock stands still, "
                    f"or the program was never started"
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        self.link.close()

    def _cycles(self) -> int:
        """The running cycle counter. Its words are read one after the other, low before high:
        again where there may have been a carry in between."""
        while True:
            low, high = self.read_registers(counter_address("cycles"), 2)
            if low < CARRY_NEAR:
                return low | high << 32

    @contextlib.contextmanager
    def _session(self) -> Iterator[Link]:
        if self._lost:
            self._lost = False
            self.check()
        try:
            yield self.link
        except LinkError:
            self._lost = True
            self.loaded = None
            raise

    def _progress(self, text: str, size: int) -> Callable[[int, int], None] | None:
        report = self._report
        if report is None or size < LONG_BYTES:
            return None
        return lambda done, total: report(text, done, total)


def _parts(data: NDArray[np.uint8]) -> Iterator[tuple[int, int, bool]]:
    """Begin, end and whether it is zero, of parts of `data` that are or are not."""
    blocks = len(data) // ZERO_BLOCK_BYTES
    whole = data[: blocks * ZERO_BLOCK_BYTES].reshape(blocks, ZERO_BLOCK_BYTES)
    zero = [not block.any() for block in whole] + [False]
    begin = 0
    for index in range(1, len(zero) + 1):
        if index == len(zero) or zero[index] != zero[index - 1]:
            end = len(data) if index == len(zero) else index * ZERO_BLOCK_BYTES
            if end > begin:
                yield begin, end, zero[index - 1]
            begin = end


def _shifted(
    progress: Callable[[int, int], None] | None, begin: int, total: int
) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, _: progress(begin + done, total)
