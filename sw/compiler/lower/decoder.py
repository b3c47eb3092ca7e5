"""From a decoder's quantised graph to a program with an entry for each size of a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hw.config import AcceleratorConfig, get_config
from hw.isa import SELECTED, Opcode
from hw.sparse.formats import WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.decoder import head_order
from sw.compiler.graph.operations import (
    QuantCachedAttention,
    QuantElementwise,
    QuantGraph,
    QuantHead,
    QuantInput,
    QuantLinear,
)
from sw.compiler.lower.attention_sums import AttentionSums, find_sums, has_room
from sw.compiler.lower.cached_attention import lower_cached_attention
from sw.compiler.lower.caches import capacity, place_caches
from sw.compiler.lower.caution import Caution
from sw.compiler.lower.collector import without_collector
from sw.compiler.lower.context import Angles, CachePlace, Context
from sw.compiler.lower.decoder_graph import AngleTable, head_steps
from sw.compiler.lower.embedding import Embedding, add_embedding, take_embedding
from sw.compiler.lower.head import lower_head
from sw.compiler.lower.linear import lower_linear
from sw.compiler.lower.norm import lower_elementwise, lower_norm
from sw.compiler.lower.pruned_attention import ANSWERS, lower_pruned_attention
from sw.compiler.lower.resident import choose_resident
from sw.compiler.lower.steps import HeadsAttention, Step, Steps
from sw.compiler.lower.switches import ALL_ON, Switches
from sw.compiler.program.decoder_program import (
    DecoderProgram,
    Entry,
    Register,
    Sums,
    graph_of_host,
    of_caches,
    work_of,
)
from sw.compiler.program.planes import plane_images
from sw.compiler.stream.allocate import Constants, DoesNotFit, Pool
from sw.compiler.stream.layout import Form, layout_of, pack_tensor
from sw.compiler.stream.order import finish, merge
from sw.compiler.stream.timing import Costs

__all__ = ["PASSES", "lower_decoder", "passes_for"]

PASSES = (1, 4, 8, 32, 128)
"""Tokens of a pass: of decoding, verification and reading a prompt."""

SCALED_PASSES = (1, 4, 5, 6, 8, 32, 128)
"""The same for scaled 4-bit weights, whose tiles arrive while 4 tokens pass, not 8: on `base` 5
take 1.05 times as long as 4, 6 take 1.2 times and 8 take 1.5 times."""

ESTIMATES = 4
"""Positions for which a pass' cycles are estimated; between them they grow evenly."""

RESIDENT_ANGLES = 1 / 8
"""Share of the residual memory for angles that stay on chip for a pass."""


def passes_for(weights: WeightFormat) -> tuple[int, ...]:
    """Numbers of tokens of a pass that pay for linears with weights in this format."""
    return SCALED_PASSES if weights.scaled else PASSES


@without_collector
def lower_decoder(
    graph: QuantGraph,
    config: str | AcceleratorConfig,
    passes: Sequence[int] = PASSES,
    switches: Switches = ALL_ON,
) -> DecoderProgram:
    """Compile a decoder for passes of these numbers of tokens, 1 among them.

    switches: what to do without, for measurements; results are the same.
    Raises `CompileError` if the machine is too small for it, or without `decoder`.
    """
    config = get_config(config)
    head = _check(graph, config)
    assert graph.decoder is not None
    if graph.decoder.octaves and not switches.one_pass:
        raise CompileError(
            "pruned keys are chosen in one pass of softmax: two have no use for them"
        )
    attentions = [op for op in graph.ops if isinstance(op, QuantCachedAttention)]
    room = {op.cache: capacity(graph.decoder, op) for op in attentions}
    constants = Constants(max(config.bus_bytes, 64))
    order, sums = head_order(head), find_sums(graph, config)
    embedding = add_embedding(constants, graph, config, order)
    entries: dict[int, Entry] = {}
    workspace = io = 0
    for tokens in sorted({1, *passes}):
        if tokens > graph.decoder.context - len(graph.decoder.prefix):
            continue
        entry, context = _entry(graph, config, tokens, room, constants, embedding, sums, switches)
        entries[tokens] = entry
        workspace, io = max(workspace, context.workspace.size), max(io, context.io.size)
    caches = Context.workspace_of(config)
    planes = place_caches(config, caches, graph.decoder.caches, room)
    image = [
        part
        for name, cache in graph.decoder.caches.items()
        for part in plane_images(config, planes[name], cache.keys, cache.values)
    ]
    return DecoderProgram(
        config=config,
        constants=constants.image(),
        workspace_bytes=workspace,
        cache_bytes=caches.size,
        io_bytes=io,
        entries=entries,
        graph=graph_of_host(graph, tables=embedding is None),
        order=order,
        embedding=None if embedding is None else embedding.offset,
        prefix_image=tuple(image),
        memories={name: tuple(planes[name]) for name in graph.decoder.memories},
        work=work_of(graph),
        sums=sums,
    )


def _check(graph: QuantGraph, config: AcceleratorConfig) -> QuantHead:
    """The graph's head. Raises `CompileError`."""
    if not config.decoder:
        raise CompileError(
            f"configuration {config.name!r} has no language models: it needs decoder=True"
        )
    if graph.decoder is None:
        raise CompileError("the graph is no decoder: it has no caches")
    if graph.decoder.octaves and not config.prune:
        raise CompileError(
            f"configuration {config.name!r} prunes no keys: it needs prune=True, as 'base+prune'"
        )
    if graph.decoder.octaves and graph.decoder.tile != config.rows:
        raise CompileError(
            f"keys pruned for an array of {graph.decoder.tile} rows, not of {config.rows}"
        )
    heads = [op for op in graph.ops if isinstance(op, QuantHead)]
    if len(heads) != 1 or graph.ops[-1] is not heads[0]:
        raise CompileError("a decoder ends with one head over its vocabulary")
    for op in graph.ops:
        if not isinstance(op, QuantCachedAttention):
            continue
        if op.key_block % config.columns or op.key_block % config.rows:
            raise CompileError(
                f"{op.place or op.out8}: blocks of {op.key_block} keys are no multiple of "
                f"{config.rows} rows and {config.columns} columns"
            )
        if op.lead > max(1, len(graph.decoder.prefix)):
            raise CompileError(f"{op.place or op.out8}: the first block holds more than the prefix")
        if op.second.shift.size != 1:
            raise CompileError(f"{op.place or op.out8}: the result needs one scale")
        shifts = np.array(op.score_shift).reshape(op.kv_heads, -1)
        if (shifts != shifts[:, :1]).any():
            raise CompileError(f"{op.place or op.out8}: heads that share keys need one score shift")
    return heads[0]


def _entry(
    graph: QuantGraph,
    config: AcceleratorConfig,
    tokens: int,
    room: Mapping[str, int],
    constants: Constants,
    embedding: Embedding | None,
    sums: Sums | None,
    switches: Switches,
) -> tuple[Entry, Context]:
    """The program of one number of tokens; starts again, with more caution, if it does not fit."""
    graph = replace(graph, batch=1, tokens=tokens)
    steps, tables = head_steps(graph, config, switches.fuse)
    cautions = Caution(steps)
    if sums is not None and (tokens > SELECTED or not has_room(sums, config, tokens)):
        sums = None
    while True:
        context = Context(graph, config, steps, cautions, switches)
        context.constants = constants
        try:
            return _attempt(context, tables, room, embedding, sums), context
        except DoesNotFit:
            if context.step is None or not cautions.grow(context.step):
                raise


def _place_state(context: Context, tables: dict[str, AngleTable], room: Mapping[str, int]) -> None:
    """Caches, angles, and the row state that the head needs for itself."""
    c, decoder = context.config, context.graph.decoder
    assert decoder is not None
    planes = place_caches(c, context.workspace, decoder.caches, room)
    for step in context.steps.steps:
        for op in step.ops:
            if isinstance(op, HeadsAttention):
                for head, place in enumerate(planes[op.op.cache]):
                    keys = CachePlace((place.high, place.low), place.positions)
                    context.caches[op.k[head]] = keys
                    context.caches[op.v[head]] = CachePlace((place.values,), place.positions)
    for_angles = int(RESIDENT_ANGLES * c.residual_words)
    for name, table in tables.items():
        angles = decoder.angles[table.table]
        rows = np.where(table.order >= 0, angles[:, np.maximum(table.order, 0)], 0)
        layout = layout_of(c, rows.shape[1])
        words = pack_tensor(c, rows.astype(np.int64), layout, Form.S)
        by_group = words.reshape(len(rows), layout.groups, -1).swapaxes(0, 1)
        stays = layout.groups * context.graph.tokens <= for_angles
        context.angles[name] = Angles(
            context.constants.add(by_group.tobytes()), layout.groups, len(rows), stays
        )
    own = 2 * SELECTED
    context.softmax = Pool("softmax row state", c.row_slots - own, own)


def _attempt(
    context: Context,
    tables: dict[str, AngleTable],
    room: Mapping[str, int],
    embedding: Embedding | None,
    sums: Sums | None,
) -> Entry:
    steps: Steps = context.steps
    _place_state(context, tables, room)
    value = context.define_input(steps.inputs[0].out)
    by_token = embedding is not None and context.graph.tokens <= SELECTED
    if embedding is not None and by_token:
        take_embedding(context, value, embedding)
    counting = None
    if sums is not None:
        context.emitter.place("attention sums")
        counting = AttentionSums(context, sums)
    if context.switches.fuse and context.cautions.residents:
        context.resident = choose_resident(context)
    selected = min(context.graph.tokens, SELECTED)
    if context.graph.tokens > SELECTED:
        selected = 1
    output, attention = 0, None
    last = max((index for index, step in enumerate(steps.steps) if _counts(step)), default=-1)
    for index, step in enumerate(steps.steps):
        context.step = step
        context.emitter.place(step.place)
        op = step.ops[0]
        if isinstance(op, QuantHead):
            output = lower_head(context, step, selected)
        else:
            _lower(context, step, counting)
        context.release_after(index)
        if counting is not None and index == last:
            context.emitter.place("attention sums")
            attention = counting.store()
    for register in dict.fromkeys((Register.POSITION, *of_caches(context.graph.decoder))):
        context.emitter.emit(Opcode.ADD, register=register, value=context.graph.tokens)
    stream = context.emitter.stream()
    order = merge(stream).order
    return Entry(
        tokens=context.graph.tokens,
        selected=selected,
        commands=finish(stream, order),
        input=value.dram[Form.S][1],
        by_token=by_token,
        output=output,
        **_estimates(context, Costs(stream, order)),
        places=tuple(context.emitter.places),
        command_place=np.append(stream.commands.place[order], np.uint16(0)),
        attention=attention,
    )


def _estimates(context: Context, costs: Costs) -> dict[str, np.ndarray]:
    """Cycles from the first position of a sequence to the last, with the head and without."""
    decoder = context.graph.decoder
    assert decoder is not None
    last = decoder.slots - context.graph.tokens  # with a window, behind it all is the same
    positions = np.linspace(min(len(decoder.prefix), last), last, ESTIMATES).astype(np.int64)
    # As if all key blocks stayed: which do not depends on what they hold.
    prunes = decoder.octaves and context.graph.tokens == 1
    cycles = [
        [
            costs.cycles(
                {
                    Register.POSITION: int(p),
                    of_caches(decoder)[1]: int(p),
                    Register.READING: reading,
                    **(dict.fromkeys(ANSWERS, int(p)) if prunes else {}),
                }
            )
            for p in positions
        ]
        for reading in (0, 1)
    ]
    return {"positions": positions, "estimates": np.array(cycles)}


def _counts(step: Step) -> bool:
    """Whether it is attention to the keys of the text."""
    return any(isinstance(op, HeadsAttention) and op.op.k is not None for op in step.ops)


def _lower(context: Context, step: Step, sums: AttentionSums | None) -> None:
    op = step.ops[0]
    if isinstance(op, QuantLinear):
        lower_linear(context, step)
    elif isinstance(op, HeadsAttention):
        decoder = context.graph.decoder
        assert decoder is not None
        of_text = decoder.caches[op.op.cache].memory is None
        if decoder.octaves and context.graph.tokens == 1 and of_text:
            lower_pruned_attention(context, step)
        else:
            lower_cached_attention(context, step, sums)
    elif isinstance(op, QuantElementwise):
        lower_elementwise(context, step)
    else:
        assert not isinstance(op, QuantInput)
        lower_norm(context, step)
