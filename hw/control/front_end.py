"""Front end: from the program in memory to gated command streams, one for each unit."""

from __future__ import annotations

from amaranth import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.control.dispatch import Dispatch
from hw.control.fetch import Fetch
from hw.control.queue import CommandQueue
from hw.control.scoreboard import UNITS, Scoreboard
from hw.interfaces import RegisterPort, RegisterWrite, UnitError, command_stream
from hw.isa import COUNT_BITS, Unit

__all__ = ["FrontEnd"]

MATRIX = UNITS.index(Unit.MATRIX)
QUEUES = (*(unit.name.lower() for unit in UNITS), "matrix_weights")


class FrontEnd(wiring.Component):
    """Fetch, dispatch, scoreboard and a queue in front of every unit.

    ```
    reader -> Fetch -> Dispatch -> CommandQueue (one a unit, MATRIX has two) -> units
                          ^  Scoreboard <- done of the units
    ```
    A GEMM goes to two queues: the weight side is held back by wait slot 0, the stream side by
    slots 1 and 2. So weights of the next command load while its activations are still awaited.

    Latency: 6 cycles from a fetched command to its unit. Throughput and flow control: see the
    parts. It runs from the fall of `i_halt` after a reset until `o_done` or an error.

    Members
    -------
    request, data, i_base, i_size, i_commands: see `Fetch`.
    i_halt: dispatch and request nothing.
    o: gated commands, in the order of `UNITS`; for MATRIX those of the stream side.
    o_matrix_weights: gated commands of the weight side.
    i_done: completion pulses, one bit for each of `UNITS`.
    o_waiting_for: what the head of each queue waits for, in the order of `UNITS`.
    o_matrix_weights_waiting_for: the same for the weight side.
    o_taken, o_stalled, o_done, o_error, registers, i_select: see `Dispatch`.
    """

    def __init__(self, config: AcceleratorConfig):
        self.fetch = Fetch(config)
        self.dispatch = Dispatch(config)
        self.scoreboard = Scoreboard()
        self.queues = [
            CommandQueue(config.queue_depth, slots=(1, 2) if unit == Unit.MATRIX else (0, 1, 2))
            for unit in UNITS
        ]
        self.queues.append(CommandQueue(config.queue_depth, slots=(0,)))
        reader = self.fetch.signature.members
        members = {
            "request": reader["request"],
            "data": reader["data"],
            "i_base": In(config.address_bits),
            "i_size": In(32),
            "i_commands": In(32),
            "i_halt": In(1),
            "o": Out(command_stream()).array(len(UNITS)),
            "o_matrix_weights": Out(command_stream()),
            "i_done": In(len(UNITS)),
            "o_waiting_for": Out(Unit).array(len(UNITS)),
            "o_matrix_weights_waiting_for": Out(Unit),
            "o_taken": Out(1),
            "o_stalled": Out(1),
            "o_done": Out(1),
            "o_error": Out(UnitError),
        }
        if config.decoder:
            members |= {"registers": In(RegisterPort()), "i_select": In(RegisterWrite)}
        super().__init__(members)
        self._decoder, self._prune = config.decoder, config.prune

    @property
    def moves(self) -> Value:
        """A command, a part of one or a completion goes from one place to another. What else
        happens follows within as many cycles as a command takes through fetch and dispatch."""
        streams = (self.fetch.o, *self.o, self.o_matrix_weights)
        gone = Cat(item.valid & item.ready for item in streams)
        events = [self.request.valid, self.data.valid, self.i_done.any(), gone.any()]
        if self._decoder:
            events += [self.registers.write.valid, self.i_select.valid]
        return Cat(events).any()

    def elaborate(self, platform):
        m = Module()
        fetch, dispatch, scoreboard = self.fetch, self.dispatch, self.scoreboard
        m.submodules.fetch = fetch
        m.submodules.dispatch = dispatch
        m.submodules.scoreboard = scoreboard
        for name, queue in zip(QUEUES, self.queues, strict=True):
            m.submodules[f"{name}_queue"] = queue

        wiring.connect(m, fetch.request, wiring.flipped(self.request))
        wiring.connect(m, fetch.data, wiring.flipped(self.data))
        wiring.connect(m, fetch.o, dispatch.i)
        m.d.comb += [
            fetch.i_base.eq(self.i_base),
            fetch.i_size.eq(self.i_size),
            fetch.i_commands.eq(self.i_commands),
            fetch.i_halt.eq(self.i_halt),
            dispatch.i_halt.eq(self.i_halt),
            dispatch.i_idle.eq(scoreboard.o_idle),
            scoreboard.i_dispatched.eq(dispatch.o_dispatched),
            scoreboard.i_done.eq(self.i_done),
            self.o_taken.eq(dispatch.o_taken),
            self.o_stalled.eq(dispatch.o_stalled),
            self.o_done.eq(dispatch.o_done),
            self.o_error.eq(dispatch.o_error),
        ]
        if self._decoder:
            wiring.connect(m, wiring.flipped(self.registers), dispatch.registers)
            m.d.comb += dispatch.i_select.eq(self.i_select)
        # A cycle late, of hundreds of commands that it may be late.
        m.d.sync += dispatch.i_stale.eq(Cat(queue.o_stale for queue in self.queues).any())
        for i in range(len(UNITS)):
            m.d.comb += dispatch.dispatched[i].eq(scoreboard.o_dispatched[i])
            if self._prune:
                m.d.comb += dispatch.completed[i].eq(scoreboard.o_completed[i])
            for queue in self.queues:
                m.d.comb += queue.completed[i].eq(scoreboard.o_completed[i])
        for queue in self.queues:
            m.d.comb += queue.i_index.eq(dispatch.o_index[:COUNT_BITS])

        weights = self.queues[-1]
        for i, queue in enumerate(self.queues[: len(UNITS)]):
            if i == MATRIX:
                # Both or none: each side is offered the command when the other has room.
                m.d.comb += [
                    queue.i.payload.eq(dispatch.o[i].payload),
                    weights.i.payload.eq(dispatch.o[i].payload),
                    queue.i.valid.eq(dispatch.o[i].valid & weights.i.ready),
                    weights.i.valid.eq(dispatch.o[i].valid & queue.i.ready),
                    dispatch.o[i].ready.eq(queue.i.ready & weights.i.ready),
                ]
            else:
                wiring.connect(m, dispatch.o[i], queue.i)
            wiring.connect(m, queue.o, wiring.flipped(self.o[i]))
            m.d.comb += self.o_waiting_for[i].eq(queue.o_waiting_for)
        wiring.connect(m, weights.o, wiring.flipped(self.o_matrix_weights))
        m.d.comb += self.o_matrix_weights_waiting_for.eq(weights.o_waiting_for)
        return m
