"""From module to program in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.export import ExportedProgram

from hw.config import AcceleratorConfig, get_config
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.quantise import Progress, QuantOptions, given_formats, quantise

__all__ = ["compile_module"]


def compile_module(
    module: nn.Module | ExportedProgram,
    example_inputs: object = (),
    config: str | AcceleratorConfig = "base",
    calibration: Sequence[object] | None = None,
    quantization: QuantOptions | None = None,
    *,
    example_kwargs: Mapping[str, object] | None = None,
    outputs: Sequence[int | str] | None = None,
    progress: Progress | None = None,
) -> Program:
    """Compile an ordinary `nn.Module` for inputs of exactly these shapes.

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
    progress: called with a text and the part done.

    Raises `CompileError` (`UnsupportedOperation` names operation and place) before anything
    runs, and `ConfigError` for an impossible configuration.
    """
    chosen = get_config(config)
    if calibration is None:
        calibration = [example_inputs if example_inputs != () else dict(example_kwargs or {})]
    if len(calibration) == 0:
        raise CompileError("calibration is empty: give at least one batch of module inputs")
    graph = import_module(module, example_inputs, example_kwargs, outputs=outputs)
    if quantization is None:
        formats = given_formats(graph, sparse=chosen.sparse, int4=chosen.int4)
        quantization = QuantOptions(formats=formats)
    return lower(quantise(graph, calibration, quantization, progress), chosen)
