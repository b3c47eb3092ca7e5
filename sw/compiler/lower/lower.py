"""From a quantised graph to a program for one configuration.

Lowering walks the steps in order and emits commands (emit.py) that would be correct one after
another; `order.merge` then lets the units run ahead of each other as far as the data allows.
Tensors live in the DRAM workspace, INT8 activations stay on chip while there is room.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

import numpy as np

from hw.config import AcceleratorConfig, get_config
from hw.isa import Function
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    QuantAttention,
    QuantElementwise,
    QuantGraph,
    QuantInput,
    QuantLinear,
    QuantNorm,
)
from sw.compiler.lower.attention import lower_attention
from sw.compiler.lower.caution import Caution
from sw.compiler.lower.collector import without_collector
from sw.compiler.lower.context import Context
from sw.compiler.lower.linear import lower_linear
from sw.compiler.lower.norm import RowSource, lower_elementwise, lower_norm
from sw.compiler.lower.remember import Remembering, split_heads
from sw.compiler.lower.resident import choose_resident
from sw.compiler.lower.steps import Step, make_steps
from sw.compiler.lower.switches import ALL_ON, Switches
from sw.compiler.program.program import InputPlace, OutputPlace, Program, mask_starts
from sw.compiler.stream.allocate import DoesNotFit
from sw.compiler.stream.layout import Form
from sw.compiler.stream.order import finish, merge

__all__ = ["lower"]


@without_collector
def lower(
    graph: QuantGraph,
    config: str | AcceleratorConfig,
    remembering: Remembering | None = None,
    switches: Switches = ALL_ON,
) -> Program:
    """Compile a quantised graph. Raises `CompileError` if the machine is too small for it.

    remembering: a memory that the results are stored in, instead of being given back. switches:
    what to do without, for measurements; results are the same.
    Starts again, with more caution, when a step does not fit.
    """
    config = get_config(config)
    if graph.decoder is not None:
        raise CompileError("the graph is a decoder's: use lower_decoder")
    _check(graph, config)
    macs, places = graph.useful_macs, {}
    if remembering is not None:
        graph, places = split_heads(graph, remembering, config)
    stored = {name: place.form for name, place in places.items()}
    steps = make_steps(graph, stored, switches.fuse)
    cautions = Caution(steps)
    while True:
        context = Context(graph, config, steps, cautions, switches)
        context.caches |= places
        if remembering is not None:
            context.workspace.take(remembering.reserved)
        try:
            program = replace(_attempt(context), useful_macs=macs)
            if remembering is None:
                return program
            return replace(program, memories=dict(remembering.memories))
        except DoesNotFit:
            if context.step is None or not cautions.grow(context.step):
                raise


def _check(graph: QuantGraph, config: AcceleratorConfig) -> None:
    for tensor in graph.tensors.values():
        if -(-tensor.features // config.lanes) > 4095 - config.rows:
            raise CompileError(
                f"tensor {tensor.name!r}: {tensor.features} features are more than commands "
                f"can address with {config.lanes} lanes"
            )
    for op in graph.ops:
        function = getattr(op, "function", Function.NONE)
        if function == Function.SILU and not config.decoder:
            place = getattr(op, "place", "") or "graph"
            raise CompileError(
                f"{place}: configuration {config.name!r} has no SiLU: it needs decoder=True"
            )
        if isinstance(op, QuantLinear | QuantElementwise) and op.low8 is not None:
            residual = isinstance(op, QuantLinear) and op.residual is not None
            if residual or op.out8 is None or op.second is None:
                raise CompileError(
                    f"{op.place or op.low8}: low bytes need high ones with a second stage, and no "
                    "residual"
                )
    _check_tokens(graph)


def _check_tokens(graph: QuantGraph) -> None:
    """Only the keys of attention may have other rows than what they meet."""
    for op in graph.ops:
        if isinstance(op, QuantAttention):
            together = {"queries and results": [op.q, op.out8], "keys": [op.k, op.v, op.mask]}
            if op.causal:
                together["causal queries and keys"] = [op.q, op.k]
        elif isinstance(op, QuantLinear | QuantElementwise | QuantNorm):
            residual = op.residual if isinstance(op, QuantLinear) else None
            low = None if isinstance(op, QuantNorm) else op.low8
            together = {"operands and results": [op.x, residual, op.out16, op.out8, low]}
        else:
            continue
        for what, names in together.items():
            rows = {name: graph.rows_of(name).lengths for name in names if name is not None}
            if len(set(rows.values())) > 1:
                found = ", ".join(f"{name!r} has {max(each)}" for name, each in rows.items())
                raise CompileError(
                    f"{op.place or 'graph'}: {what} need the same number of tokens: {found}"
                )


def _feeds(context: Context, step: Step, following: Step | None) -> bool:
    """Whether a step is a norm that can be lowered row by row with the next one, which needs the
    memories that a norm uses for nothing else."""
    op, cautions = step.ops[0], context.cautions
    if not context.switches.fuse or not isinstance(op, QuantNorm) or following is None:
        return False
    if cautions.of(step) or cautions.of(following):
        return False
    return (op.out8 or "", Form.A) in context.resident and all(
        isinstance(o, QuantLinear) and o.x == op.out8 and o.residual is None and o.out16 is None
        for o in following.ops
    )


def _lower_step(context: Context, step: Step, source: RowSource | None) -> None:
    op = step.ops[0]
    only_bytes = step.norm is None and all(
        isinstance(o, QuantLinear) and o.residual is None and o.out16 is None for o in step.ops
    )
    if not only_bytes or source is not None:  # it needs the residual memory
        context.catch_up()
    context.emitter.place(step.place)
    if isinstance(op, QuantLinear):
        lower_linear(context, step, source)
    elif isinstance(op, QuantAttention):
        lower_attention(context, step)
    elif isinstance(op, QuantElementwise):
        lower_elementwise(context, step)
    else:
        lower_norm(context, step)


def _place_input(context: Context, op: QuantInput) -> InputPlace:
    name = op.out
    if op.kind != "mask":
        value = context.define_input(name)
        places = {form: offset for form, (_, offset) in value.dram.items()}
        return InputPlace(name, context.steps.heads.get(name, 0), places)
    c = context.config
    readers = (op for step in context.steps.steps for op in step.ops)
    blocks = {o.key_block for o in readers if isinstance(o, QuantAttention) and o.mask == name}
    masks = {}
    for block in sorted(blocks):
        words = mask_starts(c, context.graph.rows_of(name).lengths, block)[-1]
        masks[block] = context.io.take(words * c.mask_pitch)
        context.masks[name, block] = masks[block]
    return InputPlace(name, masks=masks)


def _attempt(context: Context) -> Program:
    graph, config, steps = context.graph, context.config, context.steps
    inputs = tuple(_place_input(context, op) for op in steps.inputs)
    context.puts_off = True
    if context.switches.fuse and context.cautions.residents:
        context.resident = choose_resident(context)
    source = None
    for index, (step, following) in enumerate(zip_longest(steps.steps, steps.steps[1:])):
        context.step = step
        if _feeds(context, step, following):
            source = RowSource(context, step)
            continue
        _lower_step(context, step, source)
        if source is not None:
            source.finish()
            context.release_after(index - 1)
            source = None
        context.release_after(index)
    context.catch_up()
    stream = context.emitter.stream()
    schedule = merge(stream)
    cycles, places = schedule.estimate.cycles, stream.commands.place[schedule.order]
    outputs = []
    for output in graph.outputs:
        form = Form.A if steps.tensors[output.name].bits == 8 else Form.S
        _, offset = context.values[output.name].dram[form]
        outputs.append(OutputPlace(output.name, steps.heads.get(output.name, 0), form, offset))
    names = {op.out for op in graph.ops if isinstance(op, QuantInput)}
    names |= {output.name for output in graph.outputs}
    return Program(
        config=config,
        commands=finish(stream, schedule.order),
        constants=context.constants.image(),
        workspace_bytes=context.workspace.size,
        io_bytes=context.io.size,
        graph=QuantGraph(
            batch=graph.batch,
            tokens=graph.tokens,
            inputs=list(graph.inputs),
            tensors={n: t for n, t in graph.tensors.items() if n in names},
            ops=[op for op in graph.ops if isinstance(op, QuantInput)],
            outputs=list(graph.outputs),
            host=graph.host,
            lengths=graph.lengths,
        ),
        inputs=inputs,
        outputs=tuple(outputs),
        useful_macs=graph.useful_macs,
        places=tuple(context.emitter.places),
        command_place=np.append(places, np.uint16(0)),
        command_start=np.append(schedule.start, cycles).astype(np.uint32),
        command_work=np.append(schedule.work, 0).astype(np.uint32),
        estimated_cycles=cycles,
    )
