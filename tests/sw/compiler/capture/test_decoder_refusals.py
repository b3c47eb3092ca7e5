"""What is no decoder is refused in one line that names it; nothing is captured wrongly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
import transformers
from torch import Tensor, nn

from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, UnsupportedOperation
from tests.sw.compiler.decoder_checks import check_decoder

CONTEXT = 32
WIDTH, HEADS, DIM, WORDS = 24, 3, 8, 30


class Small(nn.Module):
    """A decoder of one attention whose steps can be replaced; as it is, it can be captured."""

    def __init__(self, **steps: Callable) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(WORDS, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.steps = steps
        self.register_buffer("frequencies", 100.0 ** -torch.linspace(0, 1, DIM // 2))

    def step(self, name: str, *args: object):
        return self.steps[name](self, *args) if name in self.steps else getattr(self, name)(*args)

    def embed(self, ids: Tensor) -> Tensor:
        return self.tokens(ids)

    def angles(self, tokens: int) -> Tensor:
        return torch.arange(tokens)[:, None] * self.frequencies  # pyright: ignore

    def turn(self, x: Tensor) -> Tensor:
        angles = self.step("angles", x.shape[-2])
        a, b = x.chunk(2, -1)
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def normalise(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(x)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.step("embed", ids)
        parts = self.qkv(self.step("normalise", x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for part in parts)
        found = self.step("attend", self.step("turn", q), self.step("turn", k), v)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return self.step("logits", self.step("normalise", x))


def window(_, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal for as many tokens as the imported graph has, and a few more."""
    distance = torch.arange(q.shape[-2])[:, None] - torch.arange(q.shape[-2])
    mask = (distance >= 0) & (distance < 20)
    return functional.scaled_dot_product_attention(q, k, v, mask)


def everywhere(_, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


def biased(_, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tokens = q.shape[-2]
    distance = torch.arange(tokens) - torch.arange(tokens)[:, None]
    mask = torch.where(distance > 0, -math.inf, 0.1 * distance)
    return functional.scaled_dot_product_attention(q, k, v, mask)


def sharper(_, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q = q * math.log(q.shape[-2])
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def branching(_, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.shape[-2] > 16:
        v = v.relu()
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def dropping(_, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.1)


def cross_tokens(self: Small, x: Tensor) -> Tensor:
    return self.norm(x - torch.cat([x[:, :1], x[:, :-1]], 1))


def half_turn(self: Small, x: Tensor) -> Tensor:
    """No rotation: the second sum has the sign of the first."""
    cosine, sine = (f(self.angles(x.shape[-2])) for f in (torch.cos, torch.sin))
    a, b = x.chunk(2, -1)
    return torch.cat([a * cosine - b * sine, b * cosine - a * sine], -1)


def per_head(self: Small, x: Tensor) -> Tensor:
    angles = self.angles(x.shape[-2]) * torch.tensor([1.0, 0.5, 0.25])[:, None, None]
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def growing(self: Small, x: Tensor) -> Tensor:
    """xPos: features grow with the position as they turn."""
    return Small.turn(self, x) * 1.01 ** torch.arange(x.shape[-2])[:, None]


def across_heads(self: Small, x: Tensor) -> Tensor:
    cosine, sine = (f(self.angles(x.shape[-2]).repeat(1, 2)) for f in (torch.cos, torch.sin))
    return x * cosine + torch.stack([-x[:, 1], x[:, 0], x[:, 2]], 1) * sine


def complex_turn(self: Small, x: Tensor) -> Tensor:
    angles = self.angles(x.shape[-2])
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.view_as_real(turned).flatten(-2)


def outside(self: Small, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-6)


def grouped(self: Small, x: Tensor) -> Tensor:
    """The norm of groups of features, of which there are more in longer texts."""
    groups = x.unflatten(-1, (2 if x.shape[1] < 16 else 3, -1))
    groups = groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + 1e-6)
    return groups.flatten(-2)


def noisy(self: Small, ids: Tensor) -> Tensor:
    return self.tokens(ids) + torch.rand(ids.shape[1], 1)


def padded(self: Small, ids: Tensor) -> Tensor:
    return self.tokens(ids) * (ids != 0)[..., None]


REFUSED: dict[str, tuple[dict[str, Callable], str]] = {
    "window": ({"attend": window}, "causal for few tokens, but not for 32"),
    "not causal": ({"attend": everywhere}, "tokens see later ones"),
    "score bias": ({"attend": biased}, "the mask is not boolean and not 0 or very negative"),
    "scores by length": ({"attend": sharper}, "depend on the number of tokens"),
    "branch by length": ({"attend": branching}, "something else for 7 tokens than for 32"),
    "dropout": ({"attend": dropping}, "dropout is active"),
    "angles by length": (
        {"angles": lambda s, n: Small.angles(s, n) * 8 / n},
        "angles depend on the number of tokens",
    ),
    "positions from the end": (
        {"angles": lambda s, n: Small.angles(s, n).flip(0)},
        "angles depend on the number of tokens",
    ),
    "no rotation": ({"turn": half_turn}, "its pairs of features do not turn"),
    "rotation by head": ({"turn": per_head}, "heads turn by different angles"),
    "rotation that grows": ({"turn": growing}, "only by a constant per feature"),
    "rotation across heads": ({"turn": across_heads}, "features of different heads are mixed"),
    "complex rotation": ({"turn": complex_turn}, "aten.view_as_complex"),
    "norm": ({"normalise": outside}, r"aten\.square"),
    "norms by length": ({"normalise": grouped}, "it takes 2 for 7 tokens and 3 for 32"),
    "noise": ({"embed": noisy}, "its result is random"),
    "earlier tokens": ({"normalise": cross_tokens}, "some of the tokens are left out"),
    "mean of tokens": (
        {"normalise": lambda s, x: s.norm(x - x.mean(1, keepdim=True))}, "aten.mean.dim"
    ),
    "last token": ({"logits": lambda s, x: s.head(x[:, -1:])}, "some of the tokens are left out"),
    "no linear": ({"logits": lambda s, x: s.head(x).tanh()}, "aten.tanh"),
    "norm behind": ({"logits": lambda s, x: s.norm(x)}, "logits .* of a linear"),
    "two results": ({"logits": lambda s, x: (s.head(x), x)}, "gives 2 results"),
    "other numbers": ({"embed": lambda s, i: s.tokens((i + 1) % WORDS)}, "token numbers as they"),
    "padding": ({"embed": padded}, "depends on token numbers"),
    "positions behind": (
        {"normalise": lambda s, x: s.norm(x) + torch.arange(x.shape[1])[:, None]},
        "can only be added to embeddings",
    ),
    "positions by length": (
        {"embed": lambda s, i: s.tokens(i) + torch.arange(i.shape[1]).flip(0)[:, None]},
        "its constants depend on the number of tokens",
    ),
    "few positions": (
        {"embed": lambda s, i: s.tokens(i) + s.tokens.weight[torch.arange(i.shape[1])]},
        "not for 32 positions",
    ),
}  # fmt: skip


def refusal(module: object, context: int = CONTEXT) -> CompileError:
    with pytest.raises(CompileError) as found:
        capture_decoder(module, context=context)  # pyright: ignore
    assert "\n" not in str(found.value)
    return found.value


def test_small_is_captured() -> None:
    check_decoder(Small(), WORDS, CONTEXT)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    steps, text = REFUSED[name]
    error = refusal(Small(**steps))
    assert re.search(text, str(error)), error
    if isinstance(error, UnsupportedOperation):
        assert "test_decoder_refusals.py" in error.place, error


@pytest.mark.parametrize(
    ("family", "values", "text"),
    [
        ("Llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        (
            "Llama",
            {"rope_scaling": {
                "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
                "original_max_position_embeddings": 16, "factor": 2.0,
            }},
            "'longrope'",
        ),
        ("Mistral", {"sliding_window": 16}, "a sliding window of 16 tokens"),
        ("Mixtral", {}, "8 experts"),
        ("Qwen3Moe", {"num_experts": 4}, "4 experts"),
        ("Mamba", {}, "whose state is not keys and values"),
    ],
)  # fmt: skip
def test_refused_by_name(family: str, values: dict, text: str) -> None:
    plain = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 40,
        "num_key_value_heads": 2, "intermediate_size": 40, "max_position_embeddings": 32,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**plain, **values)
    error = refusal(getattr(transformers, f"{family}ForCausalLM")(config))
    assert text in str(error) and f"{family}ForCausalLM" in str(error)


def test_no_module() -> None:
    assert "nn.Module" in str(refusal(torch.export.export(Small(), (torch.zeros(1, 5).long(),))))
    assert "too short" in str(refusal(Small(), 2))


class Counting(Small):
    """It keeps something from call to call that is no key or value."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, 1, WIDTH))

    def embed(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.seen
        self.seen.add_(1.0)  # pyright: ignore
        return x


def test_other_state() -> None:
    assert "changes its buffer 'seen'" in str(refusal(Counting()))


def test_encoders_have_none_of_it() -> None:
    """What only decoders have stays refused where an encoder is compiled."""
    with pytest.raises(UnsupportedOperation):
        import_module(Small(), (torch.zeros(1, 7).long(),))
