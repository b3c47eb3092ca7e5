"""From module to program in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from torch.export import ExportedProgram

from hw.config import AcceleratorConfig, get_config
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.retarget import check_lengths, with_lengths
from sw.compiler.lower.decoder import PASSES, lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.program.program import Program
from sw.compiler.quantise import Progress, QuantOptions, given_formats, quantise
from sw.compiler.quantise.decoder import DecoderOptions, quantise_decoder

__all__ = ["compile_decoder", "compile_module", "quantise_module"]


def compile_module(
    module: nn.Module | ExportedProgram,
    example_inputs: object = (),
    config: str | AcceleratorConfig = "base",
    calibration: Iterable[object] | None = None,
    quantization: QuantOptions | None = None,
    *,
    example_kwargs: Mapping[str, object] | None = None,
    outputs: Sequence[int | str] | None = None,
    lengths: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Program:
    """Compile an ordinary `nn.Module` for inputs of exactly these shapes, or of these lengths.

    Parameters
    ----------
    module: made of linear, layer norm, GELU, ReLU, scaled dot-product attention, embeddings,
        residual adds and views; weights in float. Or what `torch.export` made of one.
    example_inputs: tuple of tensors or one tensor, [batch, tokens, ...]; token numbers, float
        activations, and attention masks (0 = ignored key).
    config: preset name or configuration.
    calibration: batches of module inputs from which activation ranges are taken. A few hundred
        rows of real data; random data gives a program that runs, not one that is accurate.
        By default the example inputs themselves.
    quantization: options of the quantiser. By default weights that are 2:4 sparse or INT4 already
        are stored so, if the configuration can.
    outputs: which outputs to compile, by position or name; all by default.
    lengths: of several sequences that one run takes, each at most as long as those of the example.
        Their rows lie one behind the other; attention is of each by itself, so each gives what it
        gives alone. An input is then a list of sequences [tokens, ...], or all rows [rows, ...]; so
        are results.
    progress: called with a text and the part done.

    Raises `CompileError` (`UnsupportedOperation` names operation and place) before anything
    runs, and `ConfigError` for an impossible configuration.
    """
    chosen = get_config(config)
    graph = quantise_module(
        module,
        example_inputs,
        calibration,
        quantization,
        sparse=chosen.sparse,
        int4=chosen.int4,
        example_kwargs=example_kwargs,
        outputs=outputs,
        lengths=lengths,
        progress=progress,
    )
    return lower(graph, chosen)


def quantise_module(
    module: nn.Module | ExportedProgram,
    example_inputs: object = (),
    calibration: Iterable[object] | None = None,
    quantization: QuantOptions | None = None,
    *,
    sparse: bool = True,
    int4: bool = True,
    example_kwargs: Mapping[str, object] | None = None,
    outputs: Sequence[int | str] | None = None,
    lengths: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> QuantGraph:
    """The integers of a module, for any machine; parameters as of `compile_module`.

    sparse, int4: whether weights that are so already are to be stored so.
    """
    batches = None if calibration is None else list(calibration)
    if batches == []:
        raise CompileError("calibration is empty: give at least one batch of module inputs")
    graph = import_module(module, example_inputs, example_kwargs, outputs=outputs)
    if lengths is not None:
        check_lengths(graph, lengths)
    if batches is None:
        batches = [_example_batch(module, graph, example_inputs, example_kwargs)]
    if quantization is None:
        quantization = QuantOptions(formats=given_formats(graph, sparse=sparse, int4=int4))
    quantised = quantise(graph, batches, quantization, progress)
    return quantised if lengths is None else with_lengths(quantised, lengths)


def compile_decoder(
    module: nn.Module,
    config: str | AcceleratorConfig = "base",
    *,
    context: int,
    calibration: Iterable[Sequence[int]],
    prefix: Sequence[int] = (),
    passes: Sequence[int] = PASSES,
    options: DecoderOptions | None = None,
    progress: Progress | None = None,
) -> DecoderProgram:
    """Compile a causal language model for sequences that grow to `context` tokens.

    Parameters
    ----------
    module: from token numbers [1, tokens] to logits: a `LlamaForCausalLM`, say, or a decoder of
        one's own with attention over all earlier positions.
    calibration: token numbers of sequences, some thousand in all, from which ranges are taken and
        weights are rounded. Each begins with `prefix`.
    prefix: tokens with which every sequence begins; their keys and values are computed in float.
        Of many models the first position has activations that no other has: give them their first
        token.
    passes: numbers of tokens of a pass for which there are programs, 1 among them.
    progress: called with a text and the part done.

    Raises `CompileError` (`UnsupportedOperation` names operation and place) before anything runs.
    """
    chosen = get_config(config)
    if not chosen.decoder:
        raise CompileError(f"configuration {chosen.name!r} needs decoder=True for language models")
    sequences = [list(map(int, sequence)) for sequence in calibration]
    if not sequences:
        raise CompileError("calibration is empty: give at least one sequence of token numbers")
    graph = capture_decoder(module, context=context)
    quantised = quantise_decoder(
        graph, sequences, context=context, prefix=prefix, options=options, progress=progress
    )
    return lower_decoder(quantised, chosen, passes)


def _example_batch(
    module: nn.Module | ExportedProgram,
    graph: FloatGraph,
    inputs: object,
    kwargs: Mapping[str, object] | None,
) -> dict[str, object]:
    """The example inputs by the graph's names."""
    named = dict(kwargs or {})
    if inputs == () and not named and isinstance(module, ExportedProgram):
        inputs, named = module.example_inputs or ((), {})
    if isinstance(inputs, Mapping):
        named, inputs = {**named, **inputs}, ()
    given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    placed = [item for item in given if item is not None]
    names = [item.name for item in graph.inputs]
    return {**dict(zip(names, placed, strict=False)), **named}
