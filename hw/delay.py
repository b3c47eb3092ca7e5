"""A signal and its delayed copies, by pipeline stage."""

from __future__ import annotations

from amaranth import Module, Signal

__all__ = ["DelayLine"]


class DelayLine:
    """`line[k]` is the signal as it was `k - first` cycles ago: the copy that stands at stage k.

    Registers are made when they are asked for, so a control bit travels exactly as far as it is
    used. To be used outside of `m.If`: the registers would inherit the condition.

    Parameters
    ----------
    m: module that gets the registers. source: signal at stage `first`. name: prefix of registers.
    reset: 1 for bits that must be 0 after reset (valid bits); data needs none.
    """

    def __init__(self, m: Module, source, name: str, *, first: int = 0, reset: bool = False):
        self._m = m
        self._name = name
        self._first = first
        self._reset = reset
        self._taps = [source]

    def __getitem__(self, stage: int):
        while len(self._taps) <= stage - self._first:
            number = self._first + len(self._taps)
            tap = Signal.like(
                self._taps[-1], name=f"{self._name}_{number}", reset_less=not self._reset
            )
            self._m.d.sync += tap.eq(self._taps[-1])
            self._taps.append(tap)
        return self._taps[stage - self._first]
