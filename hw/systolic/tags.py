"""What travels with a row of activations from the streamer to the accumulator."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data

from hw.config import AcceleratorConfig

__all__ = ["delayed_tag", "request_tag", "row_tag"]


def _bits(largest: int) -> int:
    return max(largest.bit_length(), 1)


def row_tag(config: AcceleratorConfig) -> data.StructLayout:
    """Tag of one row in the array.

    write: the sums go to the accumulator (0 where an address was refused, and for high bytes).
    read: they are added to what it holds, which is first shifted by SHIFT[slot] if `rescale`.
    by_byte: with `rescale`, shifted by 8 instead (with `decoder`).
    row_max: last reduction tile of a command with row maxima; `first_panel`: of output tile 0.
    valid_keys: columns below it count for the row maximum. keep: columns that no mask removes.
    last: last row of its command.
    """
    option = {"by_byte": 1} if config.decoder else {}
    return data.StructLayout(
        {
            "valid": 1,
            "write": 1,
            "read": 1,
            "rescale": 1,
            **option,
            "row_max": 1,
            "first_panel": 1,
            "last": 1,
            "address": unsigned(_bits(config.accumulator_words - 1)),
            "slot": unsigned(_bits(config.row_slots - 1)),
            "valid_keys": unsigned(_bits(config.columns)),
            "keep": unsigned(config.columns),
        }
    )


def request_tag(config: AcceleratorConfig) -> data.StructLayout:
    """Tag of one row in the streamer's FIFO: a row tag without `valid` and `keep`, and

    is_unsigned: how to read the activations. first, last_of_tile: place of the row in its tile.
    masked: takes a word of the key mask. is_sparse: it is two words, for sparse weights.
    is_scaled: its sums get scales and offsets.
    is_int4: for INT4 weights (with `sleep`, which counts them).
    is_high, is_low: it has high bytes, or the low ones that follow them (with `decoder`).
    rounds: its sums are those of low bytes of weights (with `prune`).
    """
    members = {
        name: field.shape for name, field in row_tag(config) if name not in ("valid", "keep")
    }
    members |= dict.fromkeys(("is_unsigned", "first", "last_of_tile", "masked", "is_sparse"), 1)
    if config.scales:
        members |= {"is_scaled": 1}
    if config.sleep:
        members |= {"is_int4": 1}
    if config.decoder:
        members |= {"is_high": 1, "is_low": 1}
    if config.prune:
        members |= {"rounds": 1}
    return data.StructLayout(members)


def delayed_tag(m: Module, tag, name: str):
    """A row tag one cycle later. Only its `valid` has a reset: that net is long enough as it is."""
    layout = tag.shape()
    register, valid = Signal(layout, name=name, reset_less=True), Signal(name=f"{name}_valid")
    m.d.sync += [register.eq(tag), valid.eq(tag.valid)]
    result = Signal(layout, name=f"{name}_tag")
    m.d.comb += [result.eq(register), result.valid.eq(valid)]
    return result
