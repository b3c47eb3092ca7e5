"""Load writer: the one way of loaded words into the on-chip memories."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.buffer import StreamBuffer
from hw.config import AcceleratorConfig
from hw.dma.transfer import pitch
from hw.interfaces import ADDRESS_BITS, WritePort
from hw.isa import Memory
from hw.memory.banks import BANK_BITS

__all__ = ["TARGETS", "LoadWriter", "loaded_word"]

TARGETS = (
    Memory.ACTIVATION,
    Memory.WEIGHT,
    Memory.RESIDUAL,
    Memory.PARAM0,
    Memory.PARAM1,
    Memory.MASK,
)
"""Memories that LOAD fills, in the order of the bits of `target`."""

TABLES = (Memory.PARAM0, Memory.PARAM1, Memory.MASK)
"""Those that nothing else writes."""


def loaded_word(config: AcceleratorConfig) -> data.StructLayout:
    """A word on its way into a memory.

    target: a bit for each of `TARGETS`. moves: the word before was for another one.
    addr, bank: in that memory (`hw.memory.banks`). last: of its command.
    data: of the widest memory, narrower words in the low bytes.
    """
    widest = max(pitch(config, memory) for memory in TARGETS)
    return data.StructLayout(
        {
            "target": len(TARGETS),
            "moves": 1,
            "addr": ADDRESS_BITS,
            "bank": BANK_BITS,
            "last": 1,
            "data": unsigned(8 * widest),
        }
    )


class LoadWriter(wiring.Component):
    """Takes the words of all load units, one a cycle, and writes them to the memories.

    The load units share one read channel, so together they have at most a word a cycle, and one
    way does for them. In front of each memory are registers: whether a memory accepts, which is
    decided late in a cycle, goes no further. (Not in front of tables, that is parameters and masks:
    nobody else writes there.) The words of a load unit are written in the order in
    which they came: one for another memory waits until those before it are written.

    Latency: 2 cycles from a word to its write port. Throughput: a word a cycle, as long as the
    memories accept; two cycles more where a load unit changes memories. Flow control: streams and
    `WritePort`; the first load unit goes before the second.

    Members
    -------
    i: `loaded_word`, one stream for each load unit. activation_write, .., mask_write: the memories.
    written: the last word of a command of that load unit is accepted by its memory in this cycle.
    waiting: words of that load unit have not been written. i_halt: write nothing
    and forget what comes (until reset).
    """

    def __init__(self, config: AcceleratorConfig, loads: int):
        self._config = config
        self._loads = loads
        self._word = loaded_word(config)
        super().__init__(
            {
                "i": In(stream.Signature(self._word)).array(loads),
                "activation_write": Out(
                    WritePort(8 * config.rows, granules=config.groups_per_row_panel)
                ),
                "weight_write": Out(
                    WritePort(8 * config.weight_bytes, granules=config.weight_bytes // config.lanes)
                ),
                "residual_write": Out(WritePort(8 * config.residual_pitch)),
                "param0_write": Out(WritePort(8 * config.param_pitch)),
                "param1_write": Out(WritePort(8 * config.param_pitch)),
                "mask_write": Out(WritePort(config.columns)),
                "written": Out(loads),
                "waiting": Out(loads),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # First in registers of their own: the load units are far from here, and from one another.
        entry = data.StructLayout({"word": self._word, "source": self._loads})
        m.submodules.first = first = StreamBuffer(entry)
        for n in reversed(range(self._loads)):  # the first one counts most
            before = Cat(other.valid for other in self.i[:n]).any()
            m.d.comb += self.i[n].ready.eq(first.i.ready & ~before)
            with m.If(self.i[n].valid):
                m.d.comb += [
                    first.i.payload.word.eq(self.i[n].payload),
                    first.i.payload.source.eq(1 << n),
                    first.i.valid.eq(1),
                ]

        # Of each load unit: words on their way from here, all to one memory.
        under_way = [Signal(range(3), name=f"under_way_{n}") for n in range(self._loads)]
        word, source = first.o.payload.word, first.o.payload.source
        some = Cat(count != 0 for count in under_way)
        may_go = Signal()
        m.d.comb += may_go.eq(first.o.valid & ~(word.moves & (source & some).any()))

        offered, ready = Signal(len(TARGETS)), Signal(len(TARGETS))
        m.d.comb += offered.eq(Mux(may_go, word.target, 0))
        accepted = []  # (happens, source, last) for each memory
        for i, memory in enumerate(TARGETS):
            port = getattr(self, f"{memory.name.lower()}_write")
            if memory in TABLES:
                valid, head = offered[i], word
                by, value, taken = source, self._data(memory, word.data), ready[i]
            else:
                layout = data.StructLayout(
                    {
                        "addr": ADDRESS_BITS,
                        "bank": BANK_BITS,
                        "last": 1,
                        "source": self._loads,
                        "data": len(port.data),
                    }
                )
                m.submodules[memory.name.lower()] = wait = StreamBuffer(layout)
                valid, head = wait.o.valid, wait.o.payload
                by, value, taken = head.source, head.data, wait.o.ready
                m.d.comb += [
                    wait.i.valid.eq(offered[i]),
                    ready[i].eq(wait.i.ready),
                    wait.i.payload.addr.eq(word.addr),
                    wait.i.payload.bank.eq(word.bank),
                    wait.i.payload.last.eq(word.last),
                    wait.i.payload.source.eq(source),
                    wait.i.payload.data.eq(word.data),
                ]
            m.d.comb += [
                port.valid.eq(valid & ~self.i_halt),
                port.addr.eq(head.addr),
                port.bank.eq(head.bank),
                port.data.eq(value),
                port.mask.eq(~0),
                taken.eq(port.ready),
            ]
            accepted.append((valid & taken, by, head.last))
        goes = Signal()
        m.d.comb += [goes.eq((offered & ready).any()), first.o.ready.eq(goes)]
        buffered = Cat(memory not in TABLES for memory in TARGETS)
        for n in range(self._loads):
            gone = Cat(happens & by[n] for happens, by, _ in accepted)
            last = Cat(happens & by[n] & is_last for happens, by, is_last in accepted)
            stays = goes & source[n] & (word.target & buffered).any()
            taken_over = self.i[n].valid & self.i[n].ready
            unwritten = Signal(range(5), name=f"unwritten_{n}")
            m.d.sync += [
                under_way[n].eq(under_way[n] + stays - (gone & buffered).any()),
                unwritten.eq(unwritten + taken_over - gone.any()),
            ]
            m.d.comb += [
                self.written[n].eq(last.any() & ~self.i_halt),
                self.waiting[n].eq(unwritten != 0),
            ]
        return m

    def _data(self, memory: Memory, value):
        """What a memory takes of a word: all, or of each byte whether it is not zero."""
        if memory == Memory.MASK:
            return Cat(value[8 * i : 8 * i + 8].any() for i in range(self._config.columns))
        return value
