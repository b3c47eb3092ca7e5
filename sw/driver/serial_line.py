"""A serial port as a line of bytes, through pyserial."""

from __future__ import annotations

import contextlib
import errno

import serial

from sw.driver.errors import LinkError, PortError

__all__ = ["SerialLine"]

WRITE_SECONDS, PIECE_BYTES = 10.0, 256
"""Longest wait until a line takes so many bytes: simulated boards are slow, stopped ones take
none."""


class SerialLine:
    """The port `name` ("/dev/ttyUSB0", "COM3", a pseudo-terminal), for this process alone.

    Raises `PortError` if it cannot be opened, `LinkError` once it has gone away.
    """

    def __init__(self, name: str, baud: int):
        self.name = name
        try:
            self._port = serial.Serial(
                name, baud, timeout=0, write_timeout=WRITE_SECONDS, exclusive=True
            )
        except (serial.SerialException, OSError, ValueError) as error:
            raise PortError(_why(name, error)) from None
        # Otherwise USB adapters wait up to 16 ms for more bytes. Without it transfers are slower,
        # not wrong: pseudo-terminals refuse (ValueError), other systems have no such mode.
        with contextlib.suppress(AttributeError, NotImplementedError, ValueError):
            self._port.set_low_latency_mode(True)
        self._port.reset_input_buffer()

    def write(self, data: bytes) -> None:
        try:
            for begin in range(0, len(data), PIECE_BYTES):
                self._port.write(data[begin : begin + PIECE_BYTES])
        except serial.SerialTimeoutException:
            raise LinkError(
                f"{self.name}: the line takes no more bytes: is what is behind it still running?"
            ) from None
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from None

    def read(self, timeout: float) -> bytes:
        try:
            if self._port.timeout != timeout:
                self._port.timeout = timeout
            data = self._port.read(1)
            return data + self._port.read(self._port.in_waiting) if data else b""
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from None

    def close(self) -> None:
        self._port.close()

    def _gone(self, error: Exception) -> LinkError:
        return LinkError(f"{self.name}: the port is gone, was the board unplugged? ({error})")


def _why(name: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return f"there is no port {name}: is the board plugged in?"
    if number in (errno.EACCES, errno.EPERM):
        return f"no permission to open {name}: join the group that owns it (often dialout)"
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "lock port" in str(error):
        return f"port {name} is in use by another program"
    return f"cannot open port {name}: {error}"
