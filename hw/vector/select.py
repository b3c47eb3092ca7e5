"""The largest values of rows and where they stand, over any number of commands."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import Shape
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import ADDRESS_BITS, RegisterWrite, WritePort, advance
from hw.isa import MASKED_SCORE, REGISTER_BITS, SELECTED, SUM_BITS, Memory
from hw.memory.banks import bank_of, memory_banks, memory_words
from hw.softmax.exp2 import OCTAVE_BITS
from hw.vector.command import work_layout

__all__ = ["Selector", "select_group"]

PLACE_BITS = (SELECTED - 1).bit_length()
NUMBERS = 2 * SELECTED + 4
"""32-bit numbers written of a row: values and indices, octave, two of the sum, one of zeros."""

Entry = data.StructLayout({"value": signed(32), "index": REGISTER_BITS})


def select_group(config: AcceleratorConfig) -> data.StructLayout:
    """What the selector must know of a group; its command says the rest."""
    return data.StructLayout(
        {
            "row": PLACE_BITS + 1,  # of the softmax state; two of them share a selection
            "keys": Shape.cast(range(config.lanes + 1)).width,  # values below the limit
            "first_of_row": 1,
            "last_of_row": 1,
            "last": 1,  # of the command
            "address": ADDRESS_BITS,  # residual word of the row
        }
    )


class Selector(wiring.Component):
    """Executes the groups of `SELECT`, one after another: see its loop nest in `hw/isa.py`.

    ```
    for v in range(keys):
        value = round(acc[v], score_shift)
        if value > SELECTED[row % 8][7].value:
            insert (value, index) behind all that are not smaller; the last one falls out
        index = (index + 1) % 2**20
    ```
    SELECTED is a memory of 8 rows of 8 entries, by falling value, and `worst` the value of a row's
    last one. An insertion walks through the row: what stands where the new entry belongs takes its
    place in the walk, and so on to the end.

    Latency: a group of n values, of which k are kept, takes at most n + 9*k + 5 cycles from `start`
    to `next`; 8 more if its row begins anew, and 3 and one for each number if its row is written:
    `NUMBERS`, up to whole words.
    Throughput: a group at a time. Flow control: `start`, then none until `next`; the residual
    memory must be ready.

    Members
    -------
    command, group, acc: the group, from `start` to `next`. i_halt: write nothing from the next
        cycle on.
    next: done with the group. done: and with its command, whose writes are visible as those of
        other commands. error: a residual word lies beyond the memory.
    selected: with `done`, the best index of the last row, if a register is to have it.
    row, octave, total: the softmax state of a row, which comes a cycle later.
    residual_write: the selection, V INT16 a word.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "command": In(work_layout(config)),
                "group": In(select_group(config)),
                "acc": In(32 * config.lanes),
                "start": In(1),
                "i_halt": In(1),
                "next": Out(1),
                "done": Out(1),
                "error": Out(1),
                "selected": Out(RegisterWrite),
                "row": Out(PLACE_BITS + 1),
                "octave": In(signed(OCTAVE_BITS)),
                "total": In(SUM_BITS),
                "residual_write": Out(WritePort(16 * config.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, command, group = self.config, self.command, self.group
        m.submodules.memory = entries = memory.Memory(shape=Entry, depth=SELECTED**2, init=[])
        read, write = entries.read_port(), entries.write_port()
        place = Signal(PLACE_BITS)  # of the row, in this cycle
        wanted = Signal(PLACE_BITS)  # in the next one
        worst = Signal(signed(32), reset_less=True)
        last_place = place == SELECTED - 1
        m.d.comb += [
            read.en.eq(1),
            read.addr.eq(Cat(wanted, group.row[:PLACE_BITS])),
            write.addr.eq(Cat(place, group.row[:PLACE_BITS])),
            self.row.eq(group.row),
        ]

        # Values one by one: picked, rounded, compared; all wait while one is inserted.
        lane = Signal.like(group.keys, name="lane")
        picked = Signal(signed(32), reset_less=True)
        entry = Signal(Entry, reset_less=True)  # a value; the one that is inserted
        index = Signal(REGISTER_BITS, reset_less=True)
        is_picked, is_value = Signal(), Signal()
        guarded = Cat(Const(0, 1), picked).as_signed() >> command.score_shift
        moving = Signal()

        # What is written of a row: a number a cycle, from the address of an entry to its word.
        per_word = config.lanes // 2
        numbers = -(-NUMBERS // per_word) * per_word
        number = Signal(range(numbers + 1))
        sends, sent = Signal(), Signal()  # a number, and the one of the cycle before
        port = self.residual_write

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += wanted.eq(SELECTED - 1)
                m.d.sync += [lane.eq(0), worst.eq(read.data.value)]
                with m.If(self.start):
                    m.next = "SCAN"
                with m.If(self.start & group.first_of_row):
                    m.d.sync += index.eq(command.base)
                    with m.If(command.first):
                        m.next = "CLEAR"

            with m.State("CLEAR"):
                m.d.comb += [
                    write.en.eq(1),
                    write.data.value.eq(MASKED_SCORE),
                    write.data.index.eq(-1),
                ]
                m.d.sync += [place.eq(place + 1), worst.eq(MASKED_SCORE)]
                with m.If(last_place):
                    m.next = "SCAN"

            with m.State("SCAN"):
                with m.If(is_value & (entry.value > worst)):
                    m.d.sync += entry.index.eq(index)
                    m.next = "INSERT"
                with m.Else():
                    left = lane != group.keys
                    m.d.sync += [
                        lane.eq(lane + left),
                        is_picked.eq(left),
                        picked.eq(self.acc.word_select(lane, 32)),
                        is_value.eq(is_picked),
                        entry.value.eq(guarded[1:].as_signed() + guarded[0]),
                        index.eq(index + is_value),
                    ]
                    with m.If(~(left | is_picked | is_value)):
                        m.next = "END"

            with m.State("INSERT"):
                moves = moving | (entry.value > read.data.value)
                m.d.comb += [wanted.eq(place + 1), write.en.eq(moves), write.data.eq(entry)]
                m.d.sync += [place.eq(place + 1), moving.eq(moves)]
                with m.If(moves):
                    m.d.sync += entry.eq(read.data)
                with m.If(last_place):
                    m.d.sync += [
                        worst.eq(entry.value),
                        moving.eq(0),
                        is_value.eq(0),
                        index.eq(index + 1),
                    ]
                    m.next = "SCAN"

            with m.State("END"):
                m.next = "FINISH"
                with m.If(group.last_of_row & command.write_selection):
                    m.next = "WRITE"

            with m.State("WRITE"):
                m.d.comb += [sends.eq(1), wanted.eq(number[1:])]
                m.d.sync += number.eq(number + 1)
                with m.If(number == numbers - 1):
                    m.next = "DRAIN"

            with m.State("DRAIN"):
                with m.If(~(sent | port.valid)):
                    m.next = "FINISH"

            with m.State("FINISH"):
                m.d.comb += self.next.eq(~self.i_halt)
                m.d.sync += number.eq(0)
                m.next = "IDLE"

        self._write(m, number, sends, sent, read.data, per_word)
        m.d.comb += [
            self.done.eq(self.next & group.last),
            self.selected.valid.eq(self.done & (command.period != 0)),
            self.selected.register.eq(command.period),
            self.selected.value.eq(read.data.index),
        ]
        return m

    def _write(self, m: Module, number, sends, sent, entry, per_word: int) -> None:
        """Numbers, whose entries come a cycle after they are sent, to words of residual memory."""
        config, group, port = self.config, self.group, self.residual_write
        now = Signal.like(number, name="number_1", reset_less=True)
        value = Signal(32)
        with m.If(now < 2 * SELECTED):
            m.d.comb += value.eq(Mux(now[0], entry.index, entry.value))
        with m.Elif(now == 2 * SELECTED):
            m.d.comb += value.eq(self.octave)
        with m.Elif(now == 2 * SELECTED + 1):
            m.d.comb += value.eq(self.total)
        with m.Elif(now == 2 * SELECTED + 2):
            m.d.comb += value.eq(self.total[32:])

        word = Signal(16 * config.lanes, reset_less=True)
        address = Signal(ADDRESS_BITS, reset_less=True)  # of the next word
        beyond = Signal(reset_less=True)
        full = sent & (now % per_word == per_word - 1)
        m.d.sync += [
            sent.eq(sends),
            now.eq(number),
            port.valid.eq(full & ~self.i_halt & ~self.error),
        ]
        with m.If(~(sends | sent)):
            m.d.sync += address.eq(group.address)
        with m.If(sent):
            m.d.sync += word.eq(Cat(word, value)[32:])
        with m.If(full):
            m.d.sync += [
                port.addr.eq(address),
                port.bank.eq(bank_of(address, memory_banks(config, Memory.RESIDUAL))),
                beyond.eq(address >= memory_words(config, Memory.RESIDUAL)),
                address.eq(advance(address, 1)),
            ]
        m.d.comb += [
            port.data.eq(word),
            port.mask.eq(1),
            self.error.eq(port.valid & beyond),
        ]
