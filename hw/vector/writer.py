"""The INT8 results of groups become destination words."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.delay import DelayLine
from hw.interfaces import ADDRESS_BITS, WritePort, advance
from hw.isa import Memory
from hw.memory.banks import bank_of, memory_banks, memory_words

__all__ = ["WordWriter", "granule_bits"]


def granule_bits(config: AcceleratorConfig) -> int:
    """Bits of the place that a group has in its destination word."""
    granules = max(config.weight_bytes, config.rows) // config.lanes
    return max((granules - 1).bit_length(), 1)


class WordWriter(wiring.Component):
    """Collects the groups of a destination word, and writes it with the last of them.

    The groups of a word come one after another, from granule 0 on. Written together, they leave
    the memory to the loads meanwhile.

    Wide results (option `decoder`) make two words. That of the low bytes is written with the last
    group, at the address behind that of the high ones; these take another addition and follow in
    the next cycle, in which the sequencer sees to it that no word is complete.

    Latency: none, or a cycle for high bytes. Throughput: a group a cycle. Flow control: none; the
    memories must be ready.

    Members, each at the stage where it is used (see `Stage`)
    -------
    dst_address, wide: at WRITE - 2. granule: place of the group in its word, at WRITE - 1.
    full: the word is to be written to dst_memory, at WRITE - 1.
    valid, low, high: bytes of the group, at WRITE; high comes with the bit below it.
    i_stop: at WRITE; write nothing from the next cycle on.
    activation_write, weight_write: memories. beyond: at WRITE, the word lies beyond its memory.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        lanes = config.lanes
        members = {
            "dst_address": In(ADDRESS_BITS),
            "granule": In(granule_bits(config)),
            "full": In(1),
            "dst_memory": In(2),
            "valid": In(1),
            "low": In(8).array(lanes),
            "activation_write": Out(WritePort(8 * config.rows, config.groups_per_row_panel)),
            "weight_write": Out(WritePort(8 * config.weight_bytes, config.weight_bytes // lanes)),
            "beyond": Out(1),
        }
        if config.decoder:
            members |= {"wide": In(1), "high": In(9).array(lanes), "i_stop": In(1)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        config = self.config
        ports = {Memory.ACTIVATION: self.activation_write, Memory.WEIGHT: self.weight_write}
        parts = max(len(port.mask) for port in ports.values())
        layout = data.ArrayLayout(8 * config.lanes, parts)
        granule = DelayLine(m, self.granule, "granule")
        address = DelayLine(m, self.dst_address, "dst_address")

        def register(value, name: str) -> Signal:
            signal = Signal.like(Value.cast(value), name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # What groups bring: the last one of a word goes to the memory with those before it.
        group, earlier = Cat(*self.low), Signal(layout, reset_less=True)
        word = Signal(layout)
        m.d.comb += word.eq(earlier)
        for part in range(parts):
            with m.If(self.valid & (granule[1] == part)):
                m.d.comb += word[part].eq(group)
                m.d.sync += earlier[part].eq(group)

        # Stage WRITE - 1: the next word, if there is one.
        next_address, next_granule = address[1], granule[0]
        follows = Const(0, 1)  # its high bytes come next
        late = Const(0, 1)  # these are high bytes
        if config.decoder:
            high = Signal(layout, reset_less=True)
            for part in range(parts):
                with m.If(self.valid & (granule[1] == part)):
                    m.d.sync += high[part].eq(Cat((x[1:] + x[0])[:8] for x in self.high))
            wide = DelayLine(m, self.wide, "wide")
            follows = Signal()
            late = register(follows, "late")
            m.d.comb += follows.eq(wide[2] & ~late & Cat(p.valid for p in ports.values()).any())
            low_address = register(advance(self.dst_address, self.wide), "low_address")
            next_address = Mux(follows, address[2], low_address)
            next_granule = Mux(follows, granule[1], next_granule)
            word = Mux(late, high, word)

        # Stage WRITE.
        write_address = register(next_address, "write_address")
        write_granule = register(next_granule, "write_granule")
        beyond = []
        for memory, port in ports.items():
            name = memory.name.lower()
            full = self.full & (self.dst_memory == memory)
            if config.decoder:
                full |= port.valid & follows & ~self.i_stop
            m.d.sync += port.valid.eq(full)
            outside = register(next_address >= memory_words(config, memory), f"beyond_{name}")
            beyond.append(port.valid & outside)
            m.d.comb += [
                port.addr.eq(write_address),
                port.bank.eq(
                    register(bank_of(next_address, memory_banks(config, memory)), f"bank_{name}")
                ),
                port.data.eq(Value.cast(word)[: len(port.data)]),
                port.mask.eq((2 << write_granule) - 1),
            ]
        m.d.comb += self.beyond.eq(Cat(beyond).any())
        return m
