"""A session as a language model of `transformers`, whose `generate` then runs on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from sw.compiler.errors import InputError
from sw.driver.session import Session

__all__ = ["SessionForCausalLM"]


class SessionForCausalLM(PreTrainedModel, GenerationMixin):
    """`generate`, with its samplers, stopping criteria and streamers, on a session's device.

    Logits are log-probabilities of the 8 likeliest tokens, -inf for all others. One sequence at a
    time: the session holds what was computed, so each call runs the tokens that are new.

    Parameters
    ----------
    config: of the module that was compiled. session: see `sw.driver.session`.
    """

    config_class = PretrainedConfig
    main_input_name = "input_ids"
    _supports_sdpa = True  # nothing is attended to here, however the module did it

    def __init__(self, config: PretrainedConfig, session: Session):
        super().__init__(config)
        self.session = session
        self.held = list(session.model.program.prefix)
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)  # says device and type

    def forward(self, input_ids: Tensor, **_unused: Any) -> CausalLMOutput:
        """Logits [1, 1, vocabulary] behind the last of the tokens [1, n]."""
        if input_ids.shape[0] != 1:
            raise InputError(f"one sequence at a time, got {input_ids.shape[0]}")
        ids = [int(token) for token in input_ids[0]]
        prefix = list(self.session.model.program.prefix)
        if ids[: len(prefix)] != prefix:
            raise InputError(f"sequences begin with the tokens {prefix}, this with {ids[:4]}")
        common = len(prefix)
        while common < min(len(self.held), len(ids) - 1) and self.held[common] == ids[common]:
            common += 1
        self.session.rewind(common)
        prediction = self.session.prefill(ids[common:])
        self.held = ids
        logits = torch.full((1, 1, self.config.vocab_size), -torch.inf)
        tokens = torch.from_numpy(prediction.tokens[-1])
        found = torch.from_numpy(prediction.log_probabilities[-1]).float()
        logits[0, 0, tokens[tokens >= 0]] = found[tokens >= 0]
        return CausalLMOutput(logits=logits)  # pyright: ignore[reportArgumentType]

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, **_unused: Any
    ) -> dict[str, Any]:
        """All tokens each time: the session knows which are new."""
        return {"input_ids": input_ids}
