"""Which INT8 tensors stay in the activation memory from their producer to their last reader."""

from __future__ import annotations

from hw.config import AcceleratorConfig
from sw.compiler.allocate import DoesNotFit
from sw.compiler.context import Context
from sw.compiler.graph import QuantAttention, QuantLinear
from sw.compiler.layout import Form, align
from sw.compiler.steps import Step
from sw.compiler.tile import QUERY_ROWS, plan_linear

__all__ = ["choose_resident"]


def _need(context: Context, step: Step, resident: set[str]) -> int:
    """Activation words that a step wants for its own buffers."""
    c: AcceleratorConfig = context.config
    op = step.ops[0]
    if isinstance(op, QuantLinear):
        x = context.layout(op.x)
        ops = [o for o in step.ops if isinstance(o, QuantLinear)]
        outs = tuple(context.layout(o.out8 or o.out16 or "") for o in ops)
        plan = plan_linear(
            c,
            context.rows,
            x,
            outs,
            x_resident=op.x in resident,
            norm=step.norm is not None,
            whole_rows=step.norm is not None,
            activation_free=c.activation_words,
            weight_free=c.weight_words,
            caution=0,
        )
        panels = max(plan.panels) * c.columns // c.rows + 1
        results = [o.out8 for o in ops]
        if step.norm is not None:
            panels = max(panels, outs[0].panels // 2)
            results = [step.norm.out8]
        staged = any(
            name not in resident and Form.A in context.forms(name) for name in results if name
        )
        words = 3 * plan.rows * panels if staged else 0
        if op.x not in resident:
            words += plan.rows * (x.panels + plan.k_tiles)
        return words
    if isinstance(op, QuantAttention):
        panels = context.layout(op.out8).head_panels
        rows = QUERY_ROWS * (2 * align(op.key_block, c.rows) // c.rows)
        rows += QUERY_ROWS * panels * (4 * (op.q not in resident) + 4 * (op.out8 not in resident))
        return rows
    return 0


def choose_resident(context: Context) -> set[str]:
    """Greedy, in order: a tensor stays if every step meanwhile keeps enough room."""
    steps = context.steps.steps
    resident: set[str] = set()
    until: dict[str, tuple[int, int, int]] = {}  # name: first step, last step, words
    if context.caution:
        return resident
    for index, step in enumerate(steps):
        for name in sorted(step.writes):
            tensor = context.steps.tensors[name]
            last = min(context.steps.last_use.get(name, -1), len(steps) - 1)
            if tensor.bits != 8 or last <= index or Form.A not in context.forms(name):
                continue
            size = context.layout(name).panels * context.rows
            try:
                fits = all(
                    size
                    + _need(context, steps[i], resident | {name})
                    + sum(w for a, b, w in until.values() if a <= i <= b)
                    <= context.config.activation_words
                    for i in range(index, last + 1)
                )
            except DoesNotFit:
                fits = False
            if fits:
                resident.add(name)
                until[name] = (index, last, size)
    return resident
