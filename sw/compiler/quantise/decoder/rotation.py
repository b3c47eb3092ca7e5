"""Turn the residual stream, so that no feature of it is much larger than the others.

With an orthogonal Q, all that writes the stream writes `x Q`, and what reads its root mean square
norms multiplies by `Q^T` first: an RMS norm without gain commutes with Q, and gains go to the
weights behind. The module's results stay. The few large features of language models are spread over
all, so norms lose less in 8 bits. After QuaRot (Ashkboos et al., arXiv 2404.00456), what it folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    FloatEmbedding,
    FloatGraph,
    FloatLayerNorm,
    FloatLinear,
    FloatOp,
)
from sw.compiler.quantise.decoder.plan import (
    AddStage,
    EmbeddingStage,
    NormStage,
    Stage,
    plan_decoder,
)

__all__ = ["orthogonal", "rotated_graph"]

SEED = 0


def orthogonal(features: int, seed: int = SEED) -> np.ndarray:
    """A randomised Hadamard matrix [features, features], float64.

    Of a width that is no power of two, its odd part is a random orthogonal matrix.
    """
    rng = np.random.default_rng(seed)
    odd = features
    while odd % 2 == 0:
        odd //= 2
    matrix, triangle = np.linalg.qr(rng.standard_normal((odd, odd)))
    matrix = matrix * np.sign(np.diag(triangle))
    while len(matrix) < features:
        matrix = np.kron([[1, 1], [1, -1]], matrix) / np.sqrt(2)
    return rng.choice([-1.0, 1.0], (features, 1)) * matrix


def rotated_graph(graph: FloatGraph, context: int) -> FloatGraph:
    """The same decoder with another residual stream. Raises `CompileError` where it has norms that
    a rotation changes, or weights that are quantised already."""
    stages = plan_decoder(graph, context)
    norms = [stage.op for stage in stages if isinstance(stage, NormStage)]
    for norm in norms:
        if not norm.rms or norm.bias.any():
            raise CompileError(
                f"the norm at {norm.place} takes a mean or adds a bias: only streams with root "
                "mean square norms can be rotated"
            )
    turn = _Turn(graph, stages, norms)
    return replace(graph, ops=[turn.op(op) for op in graph.ops])


class _Turn:
    """Operations of the rotated graph.

    Members
    -------
    gains: by the norm's name. writers: linears that add to the stream.
    """

    def __init__(self, graph: FloatGraph, stages: Sequence[Stage], norms: Sequence[FloatLayerNorm]):
        self.gains = {norm.name: norm.gain.astype(np.float64) for norm in norms}
        self.writers = {stage.linear.name for stage in stages if isinstance(stage, AddStage)}
        tables = [stage.op.tables[0] for stage in stages if isinstance(stage, EmbeddingStage)]
        self.matrix = orthogonal(tables[0].shape[1])

    def op(self, op: FloatOp) -> FloatOp:
        if isinstance(op, FloatEmbedding):
            constant = None if op.constant is None else self._rows(op.constant)
            return replace(op, tables=tuple(map(self._rows, op.tables)), constant=constant)
        if isinstance(op, FloatLayerNorm) and op.name in self.gains:
            return replace(op, gain=np.ones_like(op.gain))
        if isinstance(op, FloatLinear):
            return self._linear(op)
        return op

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        return (rows.astype(np.float64) @ self.matrix).astype(np.float32)

    def _linear(self, op: FloatLinear) -> FloatLinear:
        reads, writes = op.x in self.gains, op.name in self.writers
        if not (reads or writes):
            return op
        if op.steps is not None:
            raise CompileError(
                f"the linear at {op.place} has weights that are quantised already: a rotation "
                "would change them"
            )
        weight, bias = op.weight.astype(np.float64), op.bias
        if reads:
            weight = (weight * self.gains[op.x]) @ self.matrix
        if writes:
            weight = self.matrix.T @ weight
            bias = None if bias is None else self._rows(bias)
        return replace(op, weight=weight.astype(np.float32), bias=bias)
