"""Speech to text on an accelerator: a Whisper quantised once, compiled once, both cached."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from hw.config import AcceleratorConfig, get_config
from hw.sparse.formats import WeightFormat
from sim.cache import kept, source_digest
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.graph_file import GRAPH_VERSION, graph_bytes, load_graph
from sw.compiler.graph.operations import FloatGraph, QuantGraph, QuantLinear
from sw.compiler.graph.retarget import with_shape
from sw.compiler.memories import DECODER, ENCODER, lower_with_memory
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.program.joint import JointProgram
from sw.compiler.program.program import Program
from sw.compiler.quantise import QuantOptions, quantise
from sw.compiler.quantise.decoder import DecoderOptions, quantise_decoder
from sw.compiler.tune.sensitivity import sensitivities
from sw.models.whisper import Speech
from sw.models.whisper_parts import SpeechEncoder, TextDecoder, windows
from sw.speech.audio import SECONDS, spectrogram
from sw.speech.calibration import calibration_windows
from sw.speech.float_listener import FloatListener
from sw.speech.writing import Heard, Writer

__all__ = ["Transcriber", "remembering", "wide_inputs"]

PASSES = (1, 4)
"""Tokens of a pass: of decoding, and of reading a prompt."""
WIDE = WeightFormat.parse("int8 x int16")
LOST = 1e-4
"""A linear gets 16-bit inputs if 8 bits of them lose so much of the result's cosine to float."""
SOURCES = (
    *("hw/vector", "hw/softmax", "sw/speech/calibration.py", "sw/speech/synthesis.py"),
    *(f"sw/compiler/{room}" for room in ("capture", "graph", "quantise", "tune")),
    *(f"sw/models/{file}.py" for file in ("corpus", "whisper", "whisper_parts")),
    *(f"sw/speech/{file}.py" for file in ("float_listener", "stamps", "transcriber", "writing")),
)
"""What the integers depend on."""

Step = Callable[[str], Callable[[float, float], None]]
"""As in `sw/models/generator.py`."""


def _silent(_text: str) -> Callable[[float, float], None]:
    return lambda _done, _total: None


def wide_inputs(graph: FloatGraph, batches: list[np.ndarray]) -> dict[str, WeightFormat]:
    """Linears of an encoder that get 16-bit inputs, by place: those that lose most by 8 bits."""
    errors = sensitivities(graph, batches, [WIDE])
    return {place: WIDE for place, found in errors.items() if -found.get(WIDE, 0.0) >= LOST}


class Transcriber:
    """A Whisper on an accelerator of one configuration.

    Parameters
    ----------
    model: what `sw.models.whisper.load` gives. config: preset name or configuration. step:
    announces long steps (quantising takes a minute or two the first time). seconds: of a window,
    30 or fewer. The integers are the same for all: positions are cut.

    Raises `CompileError` for a configuration without decoders.
    """

    def __init__(
        self,
        model: Speech,
        config: str | AcceleratorConfig = "base",
        step: Step = _silent,
        seconds: int = SECONDS,
    ) -> None:
        self.model, self.config, self._step = model, get_config(config), step
        self.seconds = seconds
        if not self.config.decoder:
            raise CompileError(
                f"configuration {self.config.name!r} has no language models: it needs decoder=True"
            )

    # --- quantised and compiled -----------------------------------------------------------------

    def _graph(self, part: str, make: Callable[[], QuantGraph]) -> QuantGraph:
        code = source_digest(*SOURCES)
        name = f"whisper-{self.model.digest[:16]}-{part}-{code}-{GRAPH_VERSION}.safetensors"
        return load_graph(kept("models", name, lambda _work: graph_bytes(make())))

    @functools.cached_property
    def _calibration(self) -> tuple[np.ndarray, ...]:
        self._step("Speaking texts to calibrate on")
        return calibration_windows()

    @functools.cached_property
    def encoder(self) -> QuantGraph:
        """From `windows` to keys and values of every layer of the decoder."""
        return self._graph("encoder", self._quantise_encoder)

    def _quantise_encoder(self) -> QuantGraph:
        batches = [windows(spectrogram(samples))[None] for samples in self._calibration]
        graph = import_module(SpeechEncoder(self.model.module), (torch.from_numpy(batches[0]),))
        self._step("Finding which linears need 16 bits")
        formats = wide_inputs(graph, batches)
        update = self._step(f"Quantising the encoder of Whisper {self.model.name} (once)")
        options = QuantOptions(formats=formats)
        return quantise(graph, batches, options, lambda _text, part: update(part, 1.0))

    @functools.cached_property
    def decoder(self) -> QuantGraph:
        """From tokens, and what the encoder gave, to the likeliest next ones."""
        return self._graph("decoder", self._quantise_decoder)

    def _quantise_decoder(self) -> QuantGraph:
        model, module = self.model, self.model.module
        positions, hidden = module.config.max_target_positions, module.config.d_model
        graph = capture_decoder(TextDecoder(module), context=positions, memory=hidden)
        update = self._step(f"Float transcripts of Whisper {model.name}")
        sequences, memories = [], []
        listener, heard = FloatListener(model), self._calibration
        writer = Writer(model, stamps=True, temperatures=(0.0,))
        for number, samples in enumerate(heard):
            update(number, len(heard))
            text, found = listener.listen(samples, Heard(0, 0)), Heard(0, 0)
            for _ in writer.write(text, found, text.prefill):
                pass
            # The same words without stamps: of its own accord, a text of a machine's voice that
            # has none ends behind a word, or never.
            words = [token for token in found.tokens if token < model.first_stamp]
            sequences += [[*writer.prompt, *found.tokens], [*model.prompt(), *words]]
            memories += 2 * [text.remembered.last_hidden_state[0].numpy()]
        update = self._step(f"Quantising the decoder of Whisper {model.name} (once)")
        return quantise_decoder(
            graph,
            sequences,
            context=positions,
            memories=memories,
            # GPTQ fits weights to the few hundred tokens there are: it loses twice as much.
            options=DecoderOptions(without=model.suppressed, gptq=False),
            progress=lambda _text, part: update(part, 1.0),
        )

    @property
    def encoder_products(self) -> dict[str, int]:
        """Products of two bytes that the encoder needs for a window of audio, by part, as its
        formulas say: without overlaps of its rows and without padding.

        The second pass of a linear with 16-bit inputs counts as work.
        """
        graph, config = self.encoder, self.model.module.config
        rows, hidden = self.rows, config.d_model
        low = {getattr(op, "low8", None) for op in graph.ops} - {None}
        linears = [op for op in graph.ops if isinstance(op, QuantLinear)][2:]
        second = [op for op in linears if op.x in low]
        first = sum(op.useful_macs_per_row for op in linears) - sum(
            op.useful_macs_per_row for op in second
        )
        spectrum = 2 * 3 * config.num_mel_bins * hidden
        return {
            "convolutions": rows * (spectrum + 3 * hidden * hidden),
            "linears": rows * first,
            "low bytes of linears": rows * sum(op.useful_macs_per_row for op in second),
            "attention": 2 * config.encoder_layers * rows * rows * hidden,
        }

    @property
    def rows(self) -> int:
        """Of a window, for the encoder and in the decoder's memories."""
        return self.model.rows(self.seconds)

    @functools.cached_property
    def program(self) -> JointProgram:
        """Both: the encoder stores keys and values in a sequence of the decoder."""

        def make() -> bytes:
            encoder = with_shape(self.encoder, 1, self.rows)
            decoder = remembering(self.decoder, self.rows)
            return lower_with_memory(encoder, decoder, self.config, PASSES).to_bytes()

        code = source_digest("hw", "sw/compiler", "sw/models", "sw/speech")
        machine = f"{self.config.fingerprint():08x}-{self.config.memory_rate}"
        name = f"whisper-{self.model.digest[:16]}-{self.seconds}-{machine}-{code}.safetensors"
        return JointProgram.load(kept("programs", name, lambda _work: make()))

    @property
    def encoder_program(self) -> Program:
        """For a window."""
        return self.program.module(ENCODER)

    @property
    def decoder_program(self) -> DecoderProgram:
        """For texts of up to as many tokens as the model has positions."""
        return self.program.decoder(DECODER)


def remembering(graph: QuantGraph, rows: int) -> QuantGraph:
    """A decoder whose memories have so many rows."""
    assert graph.decoder is not None
    caches = {
        name: cache
        if cache.memory is None
        else replace(cache, memory=replace(cache.memory, rows=rows))
        for name, cache in graph.decoder.caches.items()
    }
    return replace(graph, decoder=replace(graph.decoder, caches=caches))
