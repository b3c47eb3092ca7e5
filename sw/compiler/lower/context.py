"""What the lowering of every step shares: emitter, allocators, and where the tensors are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hw.config import AcceleratorConfig
from hw.isa import Memory, Opcode, Region
from hw.sparse.formats import WeightFormatError
from hw.sparse.packing import TileFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph, QuantLinear, Tensor
from sw.compiler.graph.rows import Rows
from sw.compiler.lower.caution import Caution
from sw.compiler.lower.steps import Step, Steps
from sw.compiler.lower.switches import ALL_ON, Switches
from sw.compiler.stream import layout as words
from sw.compiler.stream.allocate import Constants, DoesNotFit, Pool, RegionSpace
from sw.compiler.stream.emit import Emitter
from sw.compiler.stream.layout import Form, Layout

__all__ = ["CachePlace", "Context", "Value"]

MEMORY_OF = {
    Form.A: Memory.ACTIVATION,
    Form.K: Memory.WEIGHT,
    Form.V: Memory.WEIGHT,
    Form.S: Memory.RESIDUAL,
}
WEIGHTS_QUEUE, ACTIVATIONS_QUEUE = 0, 1


@dataclass(frozen=True)
class CachePlace:
    """Planes of one head's keys (high and low bytes) or values in the workspace, and how many
    positions they have."""

    planes: tuple[int, ...]
    positions: int

    @property
    def form(self) -> Form:
        """Of the words in the planes."""
        return Form.K if len(self.planes) == 2 else Form.V


@dataclass
class Value:
    """Where a tensor is.

    rows: of all sequences. dram: (region, offset) for each form it has in DRAM. chip: first word
    of each form that is whole on chip: panels `stride` words apart (form A) or `rows` (K and V),
    form S row by row. cache: of keys and values that are appended to a cache.
    """

    tensor: Tensor
    layout: Layout
    rows: int
    stride: int
    dram: dict[Form, tuple[Region, int]] = field(default_factory=dict)
    chip: dict[Form, int] = field(default_factory=dict)
    cache: CachePlace | None = None

    def words(self, form: Form) -> int:
        """Words of a row and panel: two where 16 bits lie in two bytes."""
        return 2 if self.tensor.bits == 16 and form in (Form.A, Form.K) else 1


@dataclass
class Angles:
    """Cosines and sines by position, in the constants: word (group, position) at `offset`.

    groups: words of a row. resident: on chip for the whole pass, row by row, once loaded.
    """

    offset: int
    groups: int
    positions: int
    resident: bool
    address: int | None = None


class Context:
    """See the module.

    Members
    -------
    step: the one that is being lowered, None in front of the first. puts_off: whether the steps
    `catch_up` with what others `put_off`.
    """

    def __init__(
        self,
        graph: QuantGraph,
        config: AcceleratorConfig,
        steps: Steps,
        cautions: Caution,
        switches: Switches = ALL_ON,
    ):
        c = config
        self.switches = switches
        self.graph, self.config, self.steps, self.cautions = graph, config, steps, cautions
        self.step: Step | None = None
        self.emitter = Emitter(config, take_turns=not switches.prefetch)
        self.activation = Pool("activation memory", c.activation_words)
        self.weight = Pool("weight memory", c.weight_words)
        self.residual = Pool("residual memory", c.residual_words)
        self.accumulator = Pool("accumulator memory", c.accumulator_words)
        self.params = {m: Pool(m.name, c.param_words) for m in (Memory.PARAM0, Memory.PARAM1)}
        self.mask = Pool("mask memory", c.mask_words)
        self.statistics = Pool("row statistics", c.row_slots)
        self.softmax = Pool("softmax row state", c.row_slots)
        line = max(c.bus_bytes, 64)
        self.workspace = self.workspace_of(config)
        self.io = RegionSpace(Region.IO, line)
        self.constants = Constants(line)
        self.values: dict[str, Value] = {}
        self.masks: dict[tuple[str, int], int] = {}
        self.caches: dict[str, CachePlace] = {}  # of the keys and values of a pass
        self.angles: dict[str, Angles] = {}
        self.resident: set[tuple[str, Form]] = set()
        self.staging: Pool | None = None
        self.puts_off = False
        self._put_off: list[Callable[[], None]] = []

    @staticmethod
    def workspace_of(config: AcceleratorConfig) -> RegionSpace:
        """A workspace without anything in it."""
        return RegionSpace(Region.WORKSPACE, max(config.bus_bytes, 64))

    @property
    def caution(self) -> int:
        """Level of the step that is being lowered."""
        return self.cautions.of(self.step) if self.step else 0

    # --- work that can wait ---------------------------------------------------------------------

    def put_off(self, work: Callable[[], None]) -> None:
        """Emit something behind what the next step begins with: see `catch_up`."""
        self._put_off.append(work)

    def catch_up(self) -> None:
        """Emit what was put off, in its order."""
        waiting, self._put_off = self._put_off, []
        for work in waiting:
            work()

    # --- tensors ------------------------------------------------------------------------------

    def layout(self, name: str) -> Layout:
        tensor = self.steps.tensors[name]
        return words.layout_of(self.config, tensor.features, self.steps.heads.get(name, 0))

    def weight_forms(self, ops: Sequence[QuantLinear]) -> list[TileFormat]:
        """Weight tiles of each layer. Raises `CompileError` if the machine has not that format."""
        found = []
        for op in ops:
            try:
                found.append(words.weight_form(self.config, op.format))
            except WeightFormatError as error:
                raise CompileError(f"{op.place or op.x}: {error}") from None
        return found

    def forms(self, name: str | None) -> list[Form]:
        """Forms in which later steps or the host need a result."""
        found = self.steps.forms.get(name, set()) if name else set()
        return sorted(found, key=lambda form: form.value)

    def is_output(self, name: str) -> bool:
        return self.steps.last_use.get(name) == len(self.steps.steps)

    def sequences(self, name: str) -> Rows:
        """Of a tensor, also of one that rewriting added."""
        tokens = self.steps.tensors[name].tokens
        return Rows.uniform(self.graph.batch, tokens) if tokens else self.graph.rows

    def rows(self, name: str) -> int:
        """Rows of a tensor, over all sequences."""
        return self.sequences(name).total

    def row_words(self, name: str, form: Form = Form.A) -> int:
        """As `Value.words`."""
        wide = self.steps.tensors[name].bits == 16 and form in (Form.A, Form.K)
        return 2 if wide else 1

    def widest_row(self, step: Step) -> int:
        """The most words of a row and panel that a step reads or writes."""
        names = [n for n in step.reads | step.writes if Form.A in self.steps.forms.get(n, ())]
        return max(map(self.row_words, names), default=1)

    def _bytes(self, name: str, form: Form) -> int:
        pitch, _ = words.pitch_and_bytes(self.config, form)
        per_row = words.words_per_row(self.layout(name), form) * self.row_words(name, form)
        return self.rows(name) * per_row * pitch

    def pool(self, form: Form) -> Pool:
        """The memory that holds a form."""
        pools = {Form.A: self.activation, Form.S: self.residual}
        return pools.get(form, self.weight)

    def staging_pool(self, form: Form) -> Pool:
        """Where results wait for their store."""
        return self.staging if form == Form.A and self.staging else self.pool(form)

    def chip_words(self, name: str, form: Form) -> int:
        """Words of a whole tensor on chip. Whole tiles of K and V are read, so the last panel
        is followed by words that nobody else changes meanwhile."""
        panels = words.words_per_row(self.layout(name), form)
        if form == Form.A:
            rows = self.rows(name) * self.row_words(name)
            return self.panel_stride(name, rows) * self.read_panels(name, panels)
        size = self.rows(name) * panels
        return size + (self.config.rows + self.config.columns) * (form in (Form.K, Form.V))

    def panel_stride(self, name: str, rows: int) -> int:
        """Words between panels of so many rows in activation memory: odd where sparse weights
        meet them, which reads the two words of a row from different banks."""
        return rows | 1 if name in self.steps.sparse_inputs else rows

    def read_panels(self, name: str, panels: int) -> int:
        """Panels that are read of so many: sparse weights read them in pairs."""
        return panels + panels % 2 if name in self.steps.sparse_inputs else panels

    def _value(self, name: str) -> Value:
        rows = self.rows(name)
        stride = self.panel_stride(name, rows * self.row_words(name))
        value = Value(self.steps.tensors[name], self.layout(name), rows, stride)
        self.values[name] = value
        return value

    def define_input(self, name: str) -> Value:
        """An input has every form in which it is read, written by the host."""
        value = self._value(name)
        for form in self.forms(name):
            value.dram[form] = (Region.IO, self.io.take(self._bytes(name, form)))
        return value

    def define(self, name: str) -> Value:
        """Give a result its place: on chip if placement chose so, in DRAM where it is read."""
        value = self._value(name)
        value.cache = self.caches.get(name)
        for form in self.forms(name):
            if value.cache is not None:
                continue
            if (name, form) in self.resident:
                size = self.chip_words(name, form)
                with contextlib.suppress(DoesNotFit):  # fragmented after all: go through DRAM
                    value.chip[form] = self.pool(form).take_high(size)
            if form in (Form.A, Form.S) and self.is_output(name):
                space = self.io
            elif form in value.chip:
                continue
            else:
                space = self.workspace
            value.dram[form] = (space.region, space.take(self._bytes(name, form)))
        return value

    def release_after(self, index: int) -> None:
        """Free what step `index` was the last to read."""
        for name, last in self.steps.last_use.items():
            value = self.values.get(name)
            if value is None or last != index:
                continue
            for form, address in value.chip.items():
                self.pool(form).give_back(address)
            for form, (region, offset) in value.dram.items():
                if region == Region.WORKSPACE:
                    self.workspace.give_back(offset, self._bytes(name, form))

    # --- data movement ------------------------------------------------------------------------

    def move_panels(
        self,
        opcode: Opcode,
        value: Value,
        form: Form,
        panels: tuple[int, int],
        rows: tuple[int, int],
        address: int,
        stride: int,
        queue: int | None = None,
        step: int = 1,
    ) -> None:
        """LOAD or STORE words (panel, row) of forms A, K and V, on chip at
        `address + p * stride + r`. panels, rows: (first, count). queue: of a LOAD; by default
        that of the form. step: of the panels."""
        region, offset = value.dram[form]
        pitch, _ = words.pitch_and_bytes(self.config, form)
        per_row = value.words(form)
        total, first, count = (per_row * n for n in (value.rows, *rows))
        whole = step == 1 and count == total and stride == count and panels[1] * count < 1 << 16
        if queue is None:
            activations = opcode == Opcode.LOAD and form == Form.A
            queue = ACTIVATIONS_QUEUE if activations else WEIGHTS_QUEUE
        self.emitter.emit(
            opcode,
            region=region,
            queue=queue,
            memory=MEMORY_OF[form],
            offset=offset + (panels[0] * total + first) * pitch,
            words=count * panels[1] if whole else count,
            runs=1 if whole else panels[1],
            dram_stride=step * total * pitch,
            address=address,
            word_stride=1,
            run_stride=stride,
        )

    def move_rows(
        self,
        opcode: Opcode,
        value: Value,
        rows: tuple[int, int],
        groups: tuple[int, int],
        address: int,
        stride: int | None = None,
        queue: int = ACTIVATIONS_QUEUE,
    ) -> None:
        """LOAD or STORE words (row, group) of form S, on chip at `address + r * stride + g`
        (by default without gaps). queue: of a LOAD."""
        region, offset = value.dram[Form.S]
        pitch, total = self.config.residual_pitch, value.layout.groups
        self.emitter.emit(
            opcode,
            region=region,
            queue=queue if opcode == Opcode.LOAD else 0,
            memory=Memory.RESIDUAL,
            offset=offset + (rows[0] * total + groups[0]) * pitch,
            words=groups[1],
            runs=rows[1],
            dram_stride=total * pitch,
            address=address,
            word_stride=1,
            run_stride=groups[1] if stride is None else stride,
        )

    def load_params(self, memory: Memory, offset: int, count: int) -> int:
        """Load parameter words from the constant region; returns their address."""
        address = self.params[memory].take(count)
        self.emitter.emit(
            Opcode.LOAD,
            region=Region.CONSTANT,
            queue=WEIGHTS_QUEUE,
            memory=memory,
            offset=offset,
            words=count,
            runs=1,
            address=address,
            word_stride=1,
        )
        return address
