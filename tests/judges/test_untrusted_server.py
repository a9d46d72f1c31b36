"""A server that drips, sends too much, redirects or states what cannot be true costs neither time nor memory."""

import re
import resource
import time

import pytest

from lit_align.errors import ModelError
from lit_align.judges.openai_server import OpenAIServer
from lit_align.servers.http_client import check_url
from tests.judges.servers import SHORT, serving


def ask(server, tmp_path, **settings):
    """The reply to one question, which is asked once."""
    cache = str(tmp_path / "answers.sqlite")
    judge = OpenAIServer(server.url, "m", timeout=SHORT, retries=0, cache=cache, **settings)
    [reply] = judge.choose_option(["Question?"], ("A", "B"))
    return reply


@pytest.mark.parametrize("fault", ["drip", "drip headers", "slow"])
def test_the_timeout_holds_for_the_whole_answer(fault, tmp_path):
    with serving({"Question": [fault]}) as server:
        start = time.monotonic()
        reply = ask(server, tmp_path)
        assert time.monotonic() - start < 4 * SHORT  # dripping takes 20 of them
        assert reply.reason == "no answer (no complete answer in 3 s)"
        assert ask(server, tmp_path).probabilities == (1.0, 0.0)  # nothing was cached


def test_an_answer_of_any_size_needs_little_memory(tmp_path):
    with serving({"Question": ["huge"]}) as server:
        reply = ask(server, tmp_path, max_calls=9)
        assert reply.reason == "no answer (an answer of more than 8 MiB)"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        server.faults["Question"] = ["huge"]
        ask(server, tmp_path)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 * 2**10  # KiB; the server's own copies are in this process, too


def test_packed_answers_are_refused(tmp_path):
    with serving({"Question": ["packed"]}) as server:
        assert "an answer packed as gzip" in ask(server, tmp_path).reason


def test_prompts_go_to_the_named_server_only(tmp_path):
    with serving() as other, serving({"Question": [other.url]}) as server:
        with pytest.raises(ModelError, match=f"redirects to {re.escape(other.url)}, where prompts"):
            ask(server, tmp_path)
        assert not other.calls


CHOICE = {"index": 0, "finish_reason": "stop"}
LIES = [
    (
        {"choices": [{**CHOICE, "message": {"content": "A" * 2000}}]},
        "far longer than max_tokens 16",
    ),
    ({"choices": [{**CHOICE, "message": {"content": ["A"]}}]}, "whose content is not text"),
    ({"choices": "A"}, "without a choice"),
    ({"choices": [{"message": None}]}, "without a choice"),
    ({"usage": {"prompt_tokens": -(10**6), "completion_tokens": 1}}, "impossible token counts"),
    ({"usage": {"prompt_tokens": 1e300, "completion_tokens": 1}}, "impossible token counts"),
    ({"usage": "none"}, "without a choice"),
]


@pytest.mark.parametrize(("fields", "reason"), LIES)
def test_a_reply_that_cannot_be_true_is_no_answer(fields, reason, tmp_path):
    with serving({"Question": [fields]}) as server:
        reply = ask(server, tmp_path)
        assert reason in reply.reason
        assert reply.record["cost"] == 0
        assert ask(server, tmp_path).probabilities == (1.0, 0.0)


@pytest.mark.parametrize("logp", [5.0, float("nan")])
def test_probabilities_above_one_are_no_answer(logp, tmp_path):
    with serving(top=[("A", logp), ("B", -1.0)]) as server:
        assert "impossible log-probabilities" in ask(server, tmp_path, read="logprobs").reason


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://user:pass@localhost/v1", "name the environment variable of the API key in key"),
        ("https://token@localhost/v1", "name the environment variable of the API key in key"),
        ("http://localhost/v1?api_key=s", "a query or a fragment"),
        ("localhost:8000/v1", "is no http address"),
        ("file:///etc", "is no http address"),
    ],
)
def test_addresses_that_hold_secrets_or_are_none_are_refused(url, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        OpenAIServer(url, "m")
    assert "pass" not in str(error.value).replace("password", "")
    check_url("http://localhost:8000/v1")
