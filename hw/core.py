"""Core: everything that executes a program, wired together; reset between programs."""

from __future__ import annotations

from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.clock_gate import GATED, gated
from hw.config import AcceleratorConfig
from hw.control.activity import accesses, activity_layout
from hw.control.front_end import FrontEnd
from hw.control.scoreboard import UNITS
from hw.control.stalls import MATRIX_COUNTERS, Stalls
from hw.dma.axi import Axi4Signature, connect_read, connect_write
from hw.dma.load import LoadUnit
from hw.dma.load_writer import LoadWriter
from hw.dma.reader import Client, Reader
from hw.dma.store import StoreUnit
from hw.dma.transfer import regions_layout
from hw.interfaces import RegisterPort, UnitError
from hw.isa import Memory, Region, Unit
from hw.memory.banks import memory_banks
from hw.memory.scratchpad import Scratchpad
from hw.registers import ACTIVITY
from hw.systolic.matrix import MatrixUnit
from hw.vector.unit import VectorUnit

__all__ = ["ERROR_SOURCES", "Core", "CoreEvents", "TraceSignature"]

ERROR_SOURCES = len(UNITS) + 1
"""The units, then dispatch."""

SETTLING = 8
"""Cycles after which a unit without work stands still; an error, the slowest, is known in four."""


class TraceSignature(wiring.Signature):
    """Pulses for traces: `<unit>_started` and `<unit>_done` of every unit."""

    def __init__(self):
        super().__init__(
            {
                f"{unit.name.lower()}_{event}": Out(1)
                for unit in UNITS
                for event in ("started", "done")
            }
        )


class CoreEvents(wiring.Signature):
    """Events for the counters of `hw.registers`; `matrix` by `MATRIX_COUNTERS`, a cycle late."""

    def __init__(self):
        super().__init__(
            {
                "matrix": Out(len(MATRIX_COUNTERS)),
                "vector_busy": Out(1),
                "load_weights_busy": Out(1),
                "load_activations_busy": Out(1),
                "store_busy": Out(1),
                "commands": Out(1),
                "read_beats": Out(1),
                "write_beats": Out(1),
                "dispatch_stalled": Out(1),
            }
        )


class Core(wiring.Component):
    """Front end, units, memories and the bus master.

    ```
    m_axi -> Reader -> LoadUnit x 2 -> LoadWriter -> memories
    m_axi -> Reader -> FrontEnd -> commands -> units
    memories -> StoreUnit -> m_axi
    ACTIVATION  read: matrix, store     write: vector, loads     (sparse: matrix twice, 4 banks)
    WEIGHT      read: matrix, store     write: vector, loads
    RESIDUAL    read: vector, store     write: vector, loads
    PARAM0/1    read: vector            write: loads
    MASK        read: matrix            write: loads
    ```
    Ports of a memory are given in the order of their priority: whoever cannot wait comes first.

    Flow control: runs a program from the fall of `i_halt` after a reset until `o_done` or an
    error; the owner then raises `i_halt` and resets when the bus is quiet. Every unit has a
    register of its own for both, so they arrive a cycle later: a signal that goes to everything
    would be the slowest of the chip. Memories need no reset.

    Parameters
    ----------
    config: sizes. poison_collisions: see `Scratchpad`; shows missing waits in simulation.

    Members
    -------
    m_axi: bus master. regions: DMA windows. i_commands: program length. i_reset, i_halt: above.
    o_done, error: end of the program; errors by `UNITS`, then dispatch. o_bus_busy: a transaction
    is under way. events: see `CoreEvents`. trace: see `TraceSignature`. registers: the driver's
    access to the registers that commands name, with `decoder`. activity: events for the counters
    of `sleep`, a cycle late, with that option.
    """

    def __init__(self, config: AcceleratorConfig, *, poison_collisions: bool = False):
        self.config = config
        self._poison = poison_collisions
        members = {
            "m_axi": Out(Axi4Signature(config.address_bits, config.bus_bytes)),
            "regions": In(regions_layout(config)),
            "i_commands": In(32),
            "i_reset": In(1),
            "i_halt": In(1),
            "o_done": Out(1),
            "error": Out(UnitError).array(ERROR_SOURCES),
            "o_bus_busy": Out(1),
            "events": Out(CoreEvents()),
            "trace": Out(TraceSignature()),
        }
        if config.decoder:
            members["registers"] = In(RegisterPort())
        if config.sleep:
            members["activity"] = Out(activity_layout())
        super().__init__(members)

    def _scratchpad(self, memory: Memory, width: int, depth: int, *, granules: int = 1):
        """Memories that units write have two readers and two writers, tables one of each.

        Each has a bank for every reader, so that none waits for another one of another bank.
        """
        banks = memory_banks(self.config, memory)
        table = memory in (Memory.PARAM0, Memory.PARAM1, Memory.MASK)
        # The first reader of activations has two ports for the words of sparse rows.
        paired = memory == Memory.ACTIVATION and self.config.sparse
        return Scratchpad(
            width,
            depth,
            granules=granules,
            readers=1 if table else 2 + paired,
            writers=1 if table else 2,
            banks=banks,
            poison_collisions=self._poison,
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        front_end, reader, stalls = FrontEnd(c), Reader(c), Stalls()
        load_weights, load_activations, store = LoadUnit(c), LoadUnit(c), StoreUnit(c)
        matrix, vector = MatrixUnit(c), VectorUnit(c)
        units = (load_weights, load_activations, matrix, vector, store)
        loads = (load_weights, load_activations)
        load_writer = LoadWriter(c, len(loads))
        parts = {
            "front_end": front_end,
            "reader": reader,
            "load_weights": load_weights,
            "load_activations": load_activations,
            "load_writer": load_writer,
            "matrix": matrix,
            "vector": vector,
            "store": store,
            "stalls": stalls,
        }
        # Of units that rest most of the time: whether they have something to do, and how long
        # what they do may go on behind that.
        works = {
            name: (unit.i_command.valid | unit.status.busy | unit.status.error.valid, SETTLING)
            for name, unit in (
                ("load_weights", load_weights),
                ("load_activations", load_activations),
                ("store", store),
            )
        }
        arriving = Cat(i.valid for i in load_writer.i).any()
        works["load_writer"] = (arriving | load_writer.waiting.any(), SETTLING)
        works["front_end"] = (front_end.moves, 2 * SETTLING)
        asleep: dict[str, Signal | None] = dict.fromkeys(works)
        if c.sleep:
            asleep = {name: Signal(name=f"asleep_{name}") for name in works}
        for name, part in parts.items():
            # `keep`: else synthesis would merge the registers again.
            reset = Signal(name=f"reset_{name}", attrs={"keep": 1})
            halt = Signal(name=f"halt_{name}", attrs={"keep": 1}, init=1)
            m.d.sync += [reset.eq(self.i_reset), halt.eq(self.i_halt)]
            unit = part
            if name in works:
                busy, linger = works[name]
                watched = self.registers.number if name == "front_end" and c.decoder else None
                busy = busy | reset | halt
                unit = gated(
                    m,
                    platform,
                    part,
                    name,
                    busy=busy,
                    linger=linger,
                    watched=watched,
                    asleep=asleep[name],
                )
            # Outside of the gate: a reset that needs an enable takes a LUT for each register.
            m.submodules[name] = ResetInserter(dict.fromkeys(("sync", name, *GATED), reset))(unit)
            if part is not stalls:
                m.d.comb += part.i_halt.eq(halt)

        pad = self._scratchpad
        m.submodules.activation = activation = pad(
            Memory.ACTIVATION, 8 * c.rows, c.activation_words, granules=c.groups_per_row_panel
        )
        m.submodules.weight = weight = pad(
            Memory.WEIGHT, 8 * c.weight_bytes, c.weight_words, granules=c.weight_bytes // c.lanes
        )
        m.submodules.residual = residual = pad(Memory.RESIDUAL, 16 * c.lanes, c.residual_words)
        m.submodules.param0 = param0 = pad(Memory.PARAM0, 64 * c.lanes, c.param_words)
        m.submodules.param1 = param1 = pad(Memory.PARAM1, 64 * c.lanes, c.param_words)
        m.submodules.mask = mask = pad(Memory.MASK, c.columns, c.mask_words)

        connect = wiring.connect
        panels = len(matrix.activation)
        for i, port in enumerate(matrix.activation):
            connect(m, port, getattr(activation, f"read_{i}"))
        connect(m, store.activation_read, getattr(activation, f"read_{panels}"))
        connect(m, vector.activation_write, activation.write_0)
        connect(m, matrix.weight, weight.read_0)
        connect(m, store.weight_read, weight.read_1)
        connect(m, vector.weight_write, weight.write_0)
        connect(m, vector.residual_read, residual.read_0)
        connect(m, store.residual_read, residual.read_1)
        connect(m, vector.residual_write, residual.write_0)
        connect(m, vector.param0, param0.read_0)
        connect(m, vector.param1, param1.read_0)
        connect(m, matrix.mask, mask.read_0)
        connect(m, load_writer.activation_write, activation.write_1)
        connect(m, load_writer.weight_write, weight.write_1)
        connect(m, load_writer.residual_write, residual.write_1)
        connect(m, load_writer.param0_write, param0.write_0)
        connect(m, load_writer.param1_write, param1.write_0)
        connect(m, load_writer.mask_write, mask.write_0)
        for i, load in enumerate(loads):
            connect(m, load.o, load_writer.i[i])
            m.d.comb += [
                load.written.eq(load_writer.written[i]),
                load.waiting.eq(load_writer.waiting[i]),
            ]
        connect(m, vector.acc_read, matrix.acc_read)
        connect(m, vector.row_max, matrix.row_max)
        connect(m, matrix.shift, vector.shift)

        # --- bus ----------------------------------------------------------------------------------
        clients = {
            Client.FETCH: front_end,
            Client.LOAD_WEIGHTS: load_weights,
            Client.LOAD_ACTIVATIONS: load_activations,
        }
        for client, user in clients.items():
            connect(m, user.request, reader.request[client])
            connect(m, reader.data[client], user.data)
        connect_read(m, self.m_axi, reader.axi)
        connect_write(m, self.m_axi, store.axi)
        m.d.comb += [
            self.o_bus_busy.eq(~reader.quiet | ~store.quiet),
            front_end.i_base.eq(self.regions[Region.PROGRAM].base),
            front_end.i_size.eq(self.regions[Region.PROGRAM].size),
            front_end.i_commands.eq(self.i_commands),
            self.o_done.eq(front_end.o_done),
        ]
        for unit in (*loads, store):
            m.d.comb += unit.regions.eq(self.regions)
        if c.decoder:
            connect(m, wiring.flipped(self.registers), front_end.registers)
            m.d.comb += front_end.i_select.eq(vector.selected)

        # --- commands and status ------------------------------------------------------------------
        for i, (name, unit) in enumerate(zip(UNITS, units, strict=True)):
            stream = unit.i_stream if unit is matrix else unit.i_command
            done, error = unit.status.done, unit.status.error
            if unit in (*loads, store):  # found late in the cycle; nothing waits that closely
                done = Signal(name=f"{name.name.lower()}_done")
                m.d.sync += done.eq(unit.status.done)
            else:
                error = Signal(UnitError, name=f"{name.name.lower()}_error")
                m.d.sync += error.eq(unit.status.error)
            connect(m, front_end.o[i], stream)
            m.d.comb += [
                front_end.i_done[i].eq(done),
                self.error[i].eq(error),
                getattr(self.trace, f"{name.name.lower()}_started").eq(unit.status.started),
                getattr(self.trace, f"{name.name.lower()}_done").eq(unit.status.done),
            ]
        connect(m, front_end.o_matrix_weights, matrix.i_weights)
        # A cycle late it is still the first error: dispatch reports it when all units are done.
        m.d.sync += self.error[-1].eq(front_end.o_error)

        gemms, weights = front_end.o[UNITS.index(Unit.MATRIX)], front_end.o_matrix_weights
        # All of it is decided late in a cycle, and the cause may as well be named in the next.
        m.d.sync += [
            stalls.i_state.eq(matrix.state),
            stalls.i_waiting_for.eq(front_end.o_waiting_for[UNITS.index(Unit.MATRIX)]),
            stalls.i_weights_waiting_for.eq(front_end.o_matrix_weights_waiting_for),
            stalls.i_taken.eq(gemms.valid & gemms.ready),
            stalls.i_weights_taken.eq(weights.valid & weights.ready),
        ]
        m.d.comb += [
            self.events.matrix.eq(stalls.o),
            self.events.vector_busy.eq(vector.issued),
            self.events.load_weights_busy.eq(load_weights.status.busy),
            self.events.load_activations_busy.eq(load_activations.status.busy),
            self.events.store_busy.eq(store.status.busy),
            self.events.commands.eq(front_end.o_taken),
            self.events.read_beats.eq(self.m_axi.rvalid & self.m_axi.rready),
            self.events.write_beats.eq(self.m_axi.wvalid & self.m_axi.wready),
            self.events.dispatch_stalled.eq(front_end.o_stalled),
        ]
        if c.sleep:
            m.d.sync += matrix.i_reading.eq(~vector.activity.asleep_vector)
            happens = {f"asleep_{name}": signal for name, signal in asleep.items()}
            for unit in (matrix, vector):
                happens |= {name: unit.activity[name] for name, _ in unit.activity.shape()}
            happens |= accesses(self._ports(matrix, vector, load_writer, store))
            m.d.sync += [self.activity[name].eq(happens.get(name, 0)) for name in ACTIVITY]
        return m

    @staticmethod
    def _ports(matrix: MatrixUnit, vector: VectorUnit, loads: LoadWriter, store: StoreUnit):
        """(name in `hw.registers.ACTIVITY`, port) of all that reach a memory."""
        for name, port in zip(("matrix", "pair"), matrix.activation, strict=False):
            yield f"activation_read_{name}", port
        yield "weight_read_matrix", matrix.weight
        yield "mask_read", matrix.mask
        yield "accumulator_read_vector", vector.acc_read
        yield "residual_read_vector", vector.residual_read
        for memory in ("activation", "weight", "residual"):
            yield f"{memory}_read_store", getattr(store, f"{memory}_read")
            yield f"{memory}_write_vector", getattr(vector, f"{memory}_write")
            yield f"{memory}_write_load", getattr(loads, f"{memory}_write")
        for memory in ("param0", "param1"):
            yield f"{memory}_read", getattr(vector, memory)
        for memory in ("param0", "param1", "mask"):
            yield f"{memory}_write", getattr(loads, f"{memory}_write")
