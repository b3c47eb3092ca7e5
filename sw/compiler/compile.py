"""From module to program in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from hw.config import AcceleratorConfig, get_config
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.retarget import check_lengths, with_lengths
from sw.compiler.lower.decoder import lower_decoder, passes_for
from sw.compiler.lower.lower import lower
from sw.compiler.memories import lower_with_memory, with_keys_and_values
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.program.joint import JointProgram
from sw.compiler.program.program import Program
from sw.compiler.quantise import Progress, QuantOptions, given_formats, quantise
from sw.compiler.quantise.decoder import DecoderOptions, quantise_decoder

__all__ = ["compile_decoder", "compile_encoder_decoder", "compile_module", "quantise_module"]


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
    passes: Sequence[int] | None = None,
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
    passes: numbers of tokens of a pass for which there are programs, 1 among them; None: those
        that pay for the weights' format.
    progress: called with a text and the part done.

    Raises `CompileError` (`UnsupportedOperation` names operation and place) before anything runs.
    """
    chosen, options = get_config(config), options or DecoderOptions()
    if not chosen.decoder:
        raise CompileError(f"configuration {chosen.name!r} needs decoder=True for language models")
    sequences = [list(map(int, sequence)) for sequence in calibration]
    if not sequences:
        raise CompileError("calibration is empty: give at least one sequence of token numbers")
    graph = capture_decoder(module, context=context)
    quantised = quantise_decoder(
        graph, sequences, context=context, prefix=prefix, options=options, progress=progress
    )
    return lower_decoder(quantised, chosen, passes or passes_for(options.weights))


def compile_encoder_decoder(
    module: nn.Module | tuple[nn.Module, nn.Module],
    config: str | AcceleratorConfig = "base",
    *,
    context: int,
    calibration: Iterable[tuple[Tensor, Sequence[int]]],
    passes: Sequence[int] | None = None,
    quantization: QuantOptions | None = None,
    options: DecoderOptions | None = None,
    progress: Progress | None = None,
) -> JointProgram:
    """Compile a module that writes about what it has read: entries `encoder` and `decoder`, of
    which the first one fills the memories of the second one's sequences.

    Parameters
    ----------
    module: of `transformers`, with an encoder (`WhisperForConditionalGeneration`); or a pair, of an
        encoder from its input to rows [1, rows, features], and a decoder from token numbers
        [1, tokens] and these rows to logits.
    context: tokens that a text may have.
    calibration: inputs of the encoder, all of one shape, which is the program's, with the token
        numbers of a text about each.
    passes: as of `compile_decoder`. quantization: of the encoder. options: of the decoder.

    Raises `CompileError` (`UnsupportedOperation` names operation and place) before anything runs.
    """
    chosen, options = get_config(config), options or DecoderOptions()
    if not chosen.decoder:
        raise CompileError(f"configuration {chosen.name!r} needs decoder=True for language models")
    pairs = [(item, list(map(int, text))) for item, text in calibration]
    if not pairs:
        raise CompileError("calibration is empty: give at least one input with a text about it")
    whole = isinstance(module, nn.Module)
    encoder, decoder = _halves(module) if whole else module
    inputs = [item for item, _ in pairs]
    outputs = ("last_hidden_state",) if whole else None
    exact = import_module(encoder, (inputs[0],), outputs=outputs)
    with torch.no_grad():
        rows = [encoder(item) for item in inputs]
    seen = [(r if isinstance(r, Tensor) else r[0])[0].numpy() for r in rows]
    graph = capture_decoder(decoder, context=context, memory=seen[0].shape[-1])
    reader = quantise_decoder(
        graph,
        [text for _, text in pairs],
        context=context,
        memories=seen,
        options=options,
        progress=progress,
    )
    writer = quantise(with_keys_and_values(exact, graph), inputs, quantization, progress)
    return lower_with_memory(writer, reader, chosen, passes or passes_for(options.weights))


class _Decoder(nn.Module):
    """The decoder of a module of `transformers`, from token numbers and rows to logits."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, rows: Tensor) -> Tensor:
        found = self.module(decoder_input_ids=input_ids, encoder_outputs=(rows,), use_cache=False)
        return found.logits


def _halves(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The encoder of a module of `transformers`, and its decoder. Raises `CompileError`."""
    get = getattr(module, "get_encoder", None)
    if get is None or not getattr(getattr(module, "config", None), "is_encoder_decoder", False):
        raise CompileError(
            f"{type(module).__name__} has no encoder: give one of transformers that has, or a pair "
            "(encoder, decoder)"
        )
    return get(), _Decoder(module)


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
