"""Whether a server has the base and the tokenizer of this process, and which log-probabilities it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lit_align.errors import ModelError
from lit_align.models.adapters import same_base
from lit_align.models.samplers.engine_server import EngineServer
from lit_align.models.vllm import MAX_LORA_RANKS

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

PROBE = "Zoë's 3 naïve owls: 你好 {x} = 1.5e-3;\n\n\tfor i in range(10):  # ¿qué?"
"""A text that few tokenizers read alike."""

PROBE_TOKENS = range(4)
"""That whose next tokens differ most is used: two of the same probability have it at each temperature."""

NUM_PROBED = 5
"""Most probable tokens that are requested, to have two: those that are spelled alike are sent as a single entry."""

MIN_CHANGE = 1e-3
"""Nats; where the temperature changes less, both kinds of log-probabilities are alike, and rounding would decide."""


def check_rank(rank: int) -> None:
    """Refuse an adapter of a higher rank than vLLM has room for.

    Raises:
        ModelError: naming the rank.
    """
    if rank > MAX_LORA_RANKS[-1]:
        raise ModelError(
            f"lora.r is {rank}, and vLLM loads adapters of rank {MAX_LORA_RANKS[-1]} at most; lower lora.r"
        )


def check_server(server: EngineServer, base: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a server of another base or tokenizer, and remember the name that the base has there.

    Raises:
        ModelError: naming the server, what it has and what it should have.
    """
    names = server.names()
    bases = [name for name in names if name.parent is None]
    matching = [name for name in bases if same_base(name.root, base) or same_base(name.id, base)]
    if not matching:
        listed = " and ".join(repr(name.root) for name in bases) or "no base"
        raise ModelError(
            f"the server at {server.url} serves {listed}, and the base of this run is {base!r}; start it with that "
            "model, or set the url of one that has it"
        )
    server.base, server.max_model_len = matching[0].id, matching[0].max_model_len
    check_tokenizer(server, tokenizer)


def check_tokenizer(server: EngineServer, tokenizer: PreTrainedTokenizerBase) -> None:
    own = list(tokenizer(PROBE, add_special_tokens=False).input_ids)
    if server.tokenize(PROBE) != own:
        raise ModelError(
            f"the server at {server.url} reads {PROBE[:12]!r}... as other tokens than the tokenizer of this run; start "
            "it with the base's own tokenizer"
        )
    last = len(tokenizer) - 1
    if server.detokenize([last]) != tokenizer.decode([last]):
        raise ModelError(
            f"the server at {server.url} spells token {last}, the last of {len(tokenizer)}, in another way than the "
            "tokenizer of this run; start it with the base's own tokenizer"
        )


def check_log_probabilities(server: EngineServer, temperature: float) -> None:
    """Refuse a server that sends log-probabilities at temperature 1 whatever it samples at, as vLLM does by default.

    Two tokens' log-probabilities differ by Δ/T at temperature T, where Δ is their difference at 1 (the normalizer
    cancels), and by Δ where the temperature is not applied; a server whose difference is nearer to Δ is refused. That
    holds of a token of probability 1 too, and whatever the server's rounding.

    Args:
        server: to ask.
        temperature: of sampling, over 0.

    Raises:
        ModelError: naming vLLM's option.
    """
    spreads = {token: _spread(server, token, 1.0) for token in PROBE_TOKENS}
    token = max(spreads, key=spreads.__getitem__)
    raw, processed = spreads[token], spreads[token] / temperature
    if abs(processed - raw) < MIN_CHANGE:
        return
    drawn = _spread(server, token, temperature)
    if abs(drawn - raw) < abs(drawn - processed):
        raise ModelError(
            f"the server at {server.url} sends log-probabilities that do not depend on the temperature, which is "
            f"{temperature:g}; start it with --logprobs-mode processed_logprobs, or set temperature to 1"
        )


def _spread(server: EngineServer, token: int, temperature: float) -> float:
    """By how much the log-probabilities of the two most probable tokens after ``token`` differ."""
    body: dict[str, Any] = {
        "model": server.base,
        "prompt": [token],
        "max_tokens": 1,
        "temperature": temperature,
        "seed": 0,
        "logprobs": NUM_PROBED,
    }
    reply = server.complete(body)
    try:
        top = map(float, reply["choices"][0]["logprobs"]["top_logprobs"][0].values())
        first, second = sorted(top, reverse=True)[:2]
        return first - second
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the server at {server.url} did not send the log-probabilities of the {NUM_PROBED} most probable tokens "
            "although they were requested; start vLLM without --max-logprobs, or with more"
        ) from error
