"""Modules that write about what they have read, as `transformers` has them and as pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from sw.compiler import compile_encoder_decoder
from sw.compiler.errors import CompileError
from sw.compiler.memories import DECODER, ENCODER
from sw.compiler.program.joint import JointProgram
from sw.compiler.quantise.decoder import DecoderOptions
from sw.driver import open_device
from tests.sw.speech.random_whisper import SEED, random_spectrogram, random_whisper

ROWS, CONTEXT, VOCABULARY = 21, 16, 70
SMALL = DecoderOptions(key_block=16)


def _logits(module: nn.Module, heard: Tensor, ids: list[int]) -> np.ndarray:
    """Log-probabilities behind the last token, in float."""
    with torch.no_grad():
        found = module(heard, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
    return found.log_softmax(dim=-1).numpy()


def test_a_whisper_as_it_is(tmp_path):
    """One call, one file; on golden and on the RTL, near to what the module says in float."""
    print(f"WEFT_TEST_SEED={SEED}")
    rng = np.random.default_rng(SEED)
    module: WhisperForConditionalGeneration = random_whisper(rng, ROWS)
    heard = [torch.from_numpy(random_spectrogram(rng, ROWS))[None] for _ in range(5)]
    texts = [rng.integers(0, VOCABULARY, CONTEXT).tolist() for _ in heard]
    pairs = list(zip(heard, texts, strict=True))
    program = compile_encoder_decoder(
        module, "tiny", context=CONTEXT, calibration=pairs[1:], passes=(1, 4), options=SMALL
    )
    program.save(tmp_path / "whisper.weft")
    predictions = []
    for name, options in (("golden", {}), ("verilator", {"optimise": False})):
        with open_device(name, "tiny", **options) as device:
            entries = device.load_entries(JointProgram.load(tmp_path / "whisper.weft"))
            session = entries.decoder(DECODER).session()
            entries.module(ENCODER).fill(session, heard[0])
            predictions.append(session.prefill(texts[0][:5]))
    np.testing.assert_array_equal(*(p.tokens for p in predictions))
    np.testing.assert_array_equal(*(p.log_probabilities for p in predictions))
    exact = _logits(module, heard[0], texts[0][:5])
    likely = predictions[0].tokens[0]
    error = predictions[0].log_probabilities[0] - exact[likely]
    assert np.abs(error).max() < 0.15 * exact.std()
    other = _logits(module, heard[1], texts[0][:5])
    assert np.abs(other - exact).max() > np.abs(error).max()  # it was heard


class Reader(nn.Module):
    """Rows of a table of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(functional.gelu(self.rows(x)))


class Writer(nn.Module):
    """One layer of attention over the text, and one over rows of `width` features."""

    def __init__(self, width: int = 16, *, looks: bool = True) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(40, 16), nn.Embedding(CONTEXT, 16)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.queries = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.keys = nn.ModuleList((nn.Linear(16, 16), nn.Linear(width, 16)))
        self.values = nn.ModuleList((nn.Linear(16, 16), nn.Linear(width, 16)))
        self.outs = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.head, self.looks = nn.Linear(16, 40, bias=False), looks

    def attend(self, number: int, x: Tensor, seen: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (2, 8)).transpose(1, 2)

        q, k, v = self.queries[number](x), self.keys[number](seen), self.values[number](seen)
        found = functional.scaled_dot_product_attention(
            heads(q), heads(k), heads(v), is_causal=number == 0
        )
        return self.outs[number](found.transpose(1, 2).flatten(2))

    def forward(self, ids: Tensor, rows: Tensor) -> Tensor:
        x = self.embedding(ids) + self.places(torch.arange(ids.shape[1]))
        y = self.norms[0](x)
        x = x + self.attend(0, y, y)
        if self.looks:
            x = x + self.attend(1, self.norms[1](x), rows)
        return self.head(self.norms[2](x))


def _pairs(width: int = 6) -> list[tuple[Tensor, list[int]]]:
    rng = np.random.default_rng([SEED, 2])
    return [
        (
            torch.from_numpy(rng.standard_normal((1, 9, width)).astype(np.float32)),
            rng.integers(0, 40, 12).tolist(),
        )
        for _ in range(4)
    ]


def test_a_pair_of_ones_own():
    torch.manual_seed(SEED)
    reader, writer = Reader().eval(), Writer().eval()
    pairs = _pairs()
    program = compile_encoder_decoder(
        (reader, writer), "tiny", context=CONTEXT, calibration=pairs, passes=(1,), options=SMALL
    )
    (table, text), likely = pairs[0], []
    with open_device("golden", "tiny") as device:
        entries = device.load_entries(program)
        session = entries.decoder(DECODER).session()
        entries.module(ENCODER).fill(session, table)
        found = session.prefill(text[:6])
    with torch.no_grad():
        logits = writer(torch.tensor([text[:6]]), reader(table))[0, -1].log_softmax(dim=-1)
    likely = logits.numpy()[found.tokens[0]]
    np.testing.assert_allclose(found.log_probabilities[0], likely, atol=0.1 * float(logits.std()))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ((Reader(), Writer(looks=False)), "sees nothing of the encoder|has one input"),
        (Reader(), "Reader has no encoder: give one of transformers"),
    ],
)
def test_what_is_none_is_one_line(module, reason):
    halves = module if isinstance(module, tuple) else (module,)
    for half in halves:
        half.eval()
    with pytest.raises(CompileError, match=reason) as error:
        compile_encoder_decoder(module, "tiny", context=CONTEXT, calibration=_pairs())
    assert "\n" not in str(error.value)


def test_there_is_something_to_calibrate_with():
    with pytest.raises(CompileError, match="calibration is empty"):
        compile_encoder_decoder((Reader(), Writer()), "tiny", context=CONTEXT, calibration=[])
