"""Which tensors are resident: on chip, whole, from their producer to their last reader."""

from __future__ import annotations

from hw.config import AcceleratorConfig
from sw.compiler.graph.operations import QuantAttention, QuantElementwise, QuantLinear
from sw.compiler.lower.context import Context
from sw.compiler.lower.linear import columns_of
from sw.compiler.lower.steps import NormedLinear, Step
from sw.compiler.lower.tile_attention import QUERY_ROWS
from sw.compiler.lower.tile_linear import plan_linear
from sw.compiler.stream.allocate import DoesNotFit
from sw.compiler.stream.layout import Form, align

__all__ = ["choose_resident"]

KEYS_SHARE = 3 / 8  # of the weight memory, for all K and V of one attention
STREAM_SHARE = 1 / 4  # of the residual memory, for one INT16 tensor

Resident = set[tuple[str, Form]]


def _need(context: Context, step: Step, resident: Resident) -> int:
    """Activation words that a step wants for its own buffers."""
    c: AcceleratorConfig = context.config
    op, wide = step.ops[0], context.widest_row(step)

    def staged(name: str | None) -> bool:
        return name is not None and Form.A in context.forms(name) and (name, Form.A) not in resident

    if isinstance(op, QuantLinear):
        x = context.layout(op.x)
        x_resident = (op.x, Form.A) in resident
        ops = [o for o in step.ops if isinstance(o, QuantLinear)]
        outs = tuple(columns_of(context, o) for o in ops)
        plan = plan_linear(
            c,
            context.rows(op.x),
            x,
            outs,
            context.weight_forms(ops),
            x_resident=x_resident,
            norm=step.norm is not None,
            whole_rows=step.norm is not None,
            share=False,
            last=False,
            activation_free=c.activation_words // wide,
            weight_free=c.weight_words,
            caution=0,
        )
        panels = max(plan.panels) * c.columns // c.rows + 1
        results = [name for o in ops for name in (o.out8, o.low8)]
        if step.norm is not None:
            panels = max(panels, outs[0].panels // 2)
            results = [step.norm.out8]
        passing = any(map(staged, results)) or any(isinstance(o, NormedLinear) for o in ops)
        words = 3 * plan.rows * panels if passing else 0
        return wide * (words if x_resident else words + plan.rows * (x.panels + plan.k_panels))
    if isinstance(op, QuantAttention):
        panels = context.layout(op.out8).head_panels
        passing = 4 * ((op.q, Form.A) not in resident) + 4 * staged(op.out8)
        return QUERY_ROWS * (2 * align(op.key_block, c.rows) // c.rows + panels * passing)
    return 0


def _activations(context: Context) -> Resident:
    """Greedy, in order: a tensor stays if every step meanwhile keeps enough room."""
    steps = context.steps.steps
    resident: Resident = set()
    until: list[tuple[int, int, int]] = []  # first step, last step, words
    for index, step in enumerate(steps):
        for name in sorted(step.writes):
            last = min(context.steps.last_use.get(name, -1), len(steps) - 1)
            if last <= index or Form.A not in context.forms(name):
                continue
            size = context.chip_words(name, Form.A)
            try:
                fits = all(
                    size
                    + _need(context, steps[i], resident | {(name, Form.A)})
                    + sum(w for a, b, w in until if a <= i <= b)
                    <= context.config.activation_words
                    for i in range(index, last + 1)
                )
            except DoesNotFit:
                fits = False
            if fits:
                resident.add((name, Form.A))
                until.append((index, last, size))
    return resident


def _keys(context: Context) -> Resident:
    """K and V of short sequences."""
    resident: Resident = set()
    limit = KEYS_SHARE * context.config.weight_words
    written = {name for step in context.steps.steps for name in step.writes}
    for step in context.steps.steps:
        op = step.ops[0]
        if isinstance(op, QuantAttention) and {op.k, op.v} <= written:
            pair = ((op.k, Form.K), (op.v, Form.V))
            if sum(context.chip_words(n, f) for n, f in pair) <= limit:
                resident.update(pair)
    return resident


def _stream(context: Context) -> Resident:
    """INT16 tensors of few rows, if all who touch them work on whole rows."""
    steps = context.steps.steps
    allowed: dict[str, bool] = {}
    for step in steps:
        for op in step.ops:
            if isinstance(op, QuantLinear):
                whole = step.norm is not None
                for name in (op.residual, op.out16):
                    if name is not None:
                        allowed[name] = allowed.get(name, True) and whole
            elif isinstance(op, QuantElementwise):
                allowed |= {name: False for name in (op.x, op.out16) if name is not None}
    limit = STREAM_SHARE * context.config.residual_words
    return {
        (name, Form.S)
        for step in steps
        for name in step.writes
        if Form.S in context.forms(name)
        and allowed.get(name, True)
        and context.steps.last_use[name] < len(steps)
        and context.chip_words(name, Form.S) <= limit
    }


def choose_resident(context: Context) -> Resident:
    """Tensors and forms to keep on chip."""
    return _activations(context) | _keys(context) | _stream(context)
