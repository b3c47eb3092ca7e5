"""The rows and sweeps of `weft bench all`, each a line, and what each row has to reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hw.config import PRESETS, AcceleratorConfig
from hw.sparse.formats import WeightFormat
from sw.bench.cases import Attention, Case, Encoder, Gemm, MiniLM, Workload

__all__ = [
    "BANDWIDTH",
    "COMMAND_SHARE",
    "MODEL_ERROR",
    "ROWS",
    "SAVINGS",
    "SPARSE_UTILIZATION",
    "SWEEPS",
    "UTILIZATION",
    "Point",
    "Row",
    "Saving",
    "Sweep",
    "cases",
]

UTILIZATION, BANDWIDTH = "utilization", "bandwidth_utilization"
MODEL_ERROR = 0.03
"""Of the predicted cycles of a row, at most."""
COMMAND_SHARE = 0.01
"""Of the bus in an encoder row, at most."""


@dataclass(frozen=True)
class Row:
    """A workload on `base`. target: the least value of `metric`. field: names in `FIELD`."""

    workload: Workload
    target: float
    field: tuple[str, ...]
    metric: str = UTILIZATION

    @property
    def case(self) -> Case:
        return Case(self.workload)

    @property
    def most_commands(self) -> float:
        """Largest share of the bus's bandwidth that commands may take."""
        return COMMAND_SHARE if isinstance(self.workload, Encoder | MiniLM) else 1.0


MINILM, BERT, VIT = (384, 12, 1536), (768, 12, 3072), (192, 3, 768)

_GEMM = ("Voyager",)
_ATTENTION = ("FSA", "FlashAttention-3", "FlashAttention-4", "FuseMax")

ROWS = (
    Row(Gemm(512, 768, 768), 0.995, _GEMM),
    Row(Gemm(128, 384, 1536), 0.985, _GEMM),
    Row(Gemm(16, 384, 384), 0.84, ("CHARM",)),
    Row(Gemm(1, 768, 768), 0.97, ("Hummingbird",), BANDWIDTH),
    Row(Attention(1, 512, 64), 0.98, _ATTENTION),
    Row(Attention(1, 4096, 64), 0.995, _ATTENTION),
    Row(Attention(12, 128, 32), 0.96, ("ITA",)),
    Row(Attention(1, 1024, 64, causal=True), 0.95, _ATTENTION),
    Row(Encoder(*MINILM, 16), 0.93, ("ITA", "CHARM")),
    Row(Encoder(*MINILM, 64), 0.98, ("ITA", "CHARM")),
    Row(Encoder(*MINILM, 128), 0.985, ("ITA", "CHARM")),
    Row(Encoder(*MINILM, 512), 0.98, ("ITA", "CHARM")),
    Row(Encoder(*BERT, 128), 0.985, ("CHARM",)),
    Row(Encoder(*BERT, 384), 0.985, ("CHARM",)),
    Row(Encoder(*VIT, 197), 0.94, ("ITA",)),
    Row(MiniLM(128), 0.985, ("ITA", "CHARM")),
    Row(Attention(1, 32768, 64, queries=64), 0.98, ("FuseMax",)),
)


@dataclass(frozen=True)
class Saving:
    """A weight format against dense INT8 weights in the same product or layers.

    target: least quotient of the cycles. bound: largest that is possible, where the array is the
    limit (attention is dense); 0 where the bus is. field: names in `FIELD`.
    """

    dense: Gemm | Encoder
    format: WeightFormat
    target: float
    bound: float = 0.0
    field: tuple[str, ...] = ()

    @property
    def workload(self) -> Gemm | Encoder:
        return replace(self.dense, format=self.format)

    @property
    def cases(self) -> tuple[Case, Case]:
        """Dense, and in the format."""
        return Case(self.dense), Case(self.workload)


SPARSE, INT4, GROUPS, BOTH = map(WeightFormat.parse, ("2:4 int8", "int4", "int4/32", "2:4 int4/32"))
SPARSE_UTILIZATION = 0.94
"""Of the peak of the sparse array, where the array is the limit."""

SAVINGS = (
    Saving(Gemm(512, 768, 768), SPARSE, 1.97, 2.0, ("VEGETA",)),
    Saving(Encoder(*BERT, 128, 2), SPARSE, 1.90, 1.947, ("A100",)),
    Saving(Encoder(*MINILM, 128, 2), SPARSE, 1.86, 1.900),
    Saving(Encoder(*MINILM, 64, 2), SPARSE, 1.90, 1.947),
    Saving(Encoder(*MINILM, 16, 2), SPARSE, 1.50),
    Saving(Encoder(*MINILM, 16, 2), BOTH, 1.90),
    Saving(Gemm(1, 768, 768), INT4, 1.85),
    Saving(Gemm(1, 768, 768), GROUPS, 1.80),
    Saving(Gemm(1, 768, 768), SPARSE, 1.50),
    Saving(Gemm(1, 768, 768), BOTH, 2.25),
)


def _shape(c: AcceleratorConfig) -> str:
    return f"{c.rows}x{c.columns}"


def _array(name: str, rows: int, columns: int, lanes: int, bus: int, scale: float):
    """`base` with another array: as many bytes of memory, `scale` times as many words."""
    base = PRESETS["base"]
    return replace(
        base,
        name=name,
        rows=rows,
        columns=columns,
        lanes=lanes,
        bus_bytes=bus,
        activation_words=base.activation_words * base.rows // rows,
        weight_words=base.weight_words * 16 // max(rows, columns),
        residual_words=base.residual_words * base.lanes // lanes,
        accumulator_words=round(base.accumulator_words * scale),
    )


# A wider array needs more weights a cycle, so the bus is as wide as an activation word.
ARRAYS: tuple[AcceleratorConfig, ...] = (
    _array("8x8", 8, 8, 4, 8, 2),
    _array("8x16", 8, 16, 4, 8, 1),
    PRESETS["base"],
    _array("32x32", 32, 32, 16, 32, 1),
)


@dataclass(frozen=True)
class Point:
    """A measurement of a sweep: its line in the picture, its place on the x axis and its name
    there."""

    line: str
    x: int
    case: Case
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or f"{self.x:,}"


@dataclass(frozen=True)
class Sweep:
    """name: for `--only`. title, axis: of the picture. text: what it shows, for the page."""

    name: str
    title: str
    axis: str
    text: str
    points: tuple[Point, ...]


_LAYER = Encoder(*MINILM, 128)
_SENSITIVE: tuple[tuple[str, Workload], ...] = (
    ("encoder layer, seq 128", _LAYER),
    ("attention 1x512x64", Attention(1, 512, 64)),
    ("gemm 128x384x1536", Gemm(128, 384, 1536)),
    ("encoder layer, seq 16", Encoder(*MINILM, 16)),
)


def _points(values: tuple, case) -> tuple[Point, ...]:
    return tuple(Point(line, x, case(w, x)) for line, w in _SENSITIVE for x in values)


SWEEPS = (
    Sweep(
        "latency",
        "Memory latency",
        "cycles from request to data",
        "Every load is asked for long before it is needed, so latency costs the fill at the "
        "start and little else.",
        _points((20, 40, 64, 100, 150, 200), lambda w, x: Case(w, memory_latency=x)),
    ),
    Sweep(
        "bandwidth",
        "Memory bandwidth",
        "bytes a cycle",
        "A layer of 128 tokens reads each weight for 128 rows and has bandwidth to spare; with 16 "
        "rows the bus is the limit. Programs are compiled for the memory that they meet.",
        _points((4, 8, 16), lambda w, x: Case(w, memory_width=x)),
    ),
    Sweep(
        "arrays",
        "Array size",
        "rows x columns",
        "About as much on-chip memory, and a bus of one activation word a cycle: 8 bytes with "
        "8 rows, 16 with 16, 32 with 32.",
        tuple(
            Point(line, c.rows * c.columns, Case(w, c, memory_width=c.bus_bytes), _shape(c))
            for line, w in _SENSITIVE
            for c in ARRAYS
        ),
    ),
    Sweep(
        "sequence",
        "Sequence length",
        "tokens",
        "From 32 tokens on the array is the limit of a layer, with 16 the bus. One head by itself "
        "needs some hundred tokens to make its start and its end small.",
        tuple(
            Point("encoder layer 384/12/1536", n, Case(Encoder(*MINILM, n)))
            for n in (16, 32, 64, 128, 256, 512)
        )
        + tuple(
            Point("attention, 1 head of 64", n, Case(Attention(1, n, 64)))
            for n in (64, 128, 256, 512, 1024, 2048, 4096)
        ),
    ),
    Sweep(
        "keys",
        "Attention of 64 queries over N keys",
        "keys",
        "Cycles grow with N. On-chip memory does not, beyond the buffers for a few blocks of keys: "
        "no N x N matrix exists anywhere.",
        tuple(
            Point("64 queries, d=64", n, Case(Attention(1, n, 64, queries=64)))
            for n in (128, 512, 2048, 8192, 32768)
        ),
    ),
)


def cases(pattern: str = "", quick: bool = False) -> Iterator[Case]:
    """Cases in order, each once: of the rows and savings, and of the sweeps unless `quick`.

    pattern: only cases with this in their name (capitals do not matter), and sweeps whose name
    it is.
    """
    known: set[str] = set()
    found = [(row.case, "") for row in ROWS]
    found += [(case, "") for saving in SAVINGS for case in saving.cases]
    if not quick:
        found += [(point.case, sweep.name) for sweep in SWEEPS for point in sweep.points]
    for case, sweep in found:
        wanted = pattern.lower() in case.name.lower() or pattern == sweep
        if wanted and case.name not in known:
            known.add(case.name)
            yield case
