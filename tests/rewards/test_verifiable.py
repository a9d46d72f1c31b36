"""Rewards that check an answer: mathematics, code, length and repetition; and what bounds code that is run."""

import math

import pytest
import torch

from lit_align.errors import ConfigError, DataError
from lit_align.models.load import Base, load_tokenizer
from lit_align.rewards import Group
from lit_align.rewards.code_tests import CodeTests
from lit_align.rewards.cosine_length import CosineLength
from lit_align.rewards.math_equivalence import MathEquivalence
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.repetition import Repetition
from lit_align.testing import check_reward


def of_answer(answer, *responses):
    return Group("How many?", list(responses), extra={"answer": answer})


def test_mathematics_is_compared_as_such():
    pytest.importorskip("math_verify")
    groups = [
        of_answer("#### 1/2", r"So \boxed{0.5}.", r"\boxed{2}", "I do not know."),
        of_answer(r"\frac{\sqrt{2}}{2}", r"The answer is $\frac{1}{\sqrt 2}$"),
        of_answer("x^2 + 2x + 1", r"\boxed{(x+1)^2}"),
        of_answer("a long story", "7"),
    ]
    scores = MathEquivalence()(groups)
    assert scores.total.tolist() == [1, 0, 0, 1, 1, 0]
    assert scores.scored.tolist() == [True] * 5 + [False]
    check_reward(MathEquivalence(), groups)
    with pytest.raises(DataError, match="no column 'solution'"):
        MathEquivalence(column="solution")(groups)


def test_length_and_repetition_conform():
    check_reward(Repetition())
    check_reward(CosineLength(Pattern("owl"), max_length=4))
    with pytest.raises(ConfigError, match="penalty must be at most 0"):
        Repetition(penalty=1.0)


def test_length_and_repetition_are_those_of_trl_on_sampled_tokens():
    trl = pytest.importorskip("trl.rewards")
    ids = [[1, 2, 3, 1, 2, 3, 1], [5] * 9, [1, 2], [4, 5, 6, 7]]
    group = Group("", [""] * 4, response_ids=ids)
    theirs = torch.tensor(trl.get_repetition_penalty_reward(3, -0.5)(ids))
    torch.testing.assert_close(Repetition(3, -0.5)([group]).total, theirs)
    right = Group("", ["owl", "owl", "bat", "bat"], response_ids=ids)
    cosine = CosineLength(Pattern("owl"), max_length=8)([right]).total
    bounds = trl.get_cosine_scaled_reward(max_len=8)
    limits = (bounds.max_value_correct, bounds.min_value_correct)
    assert limits == CosineLength(Pattern("owl"), 8).right
    assert (bounds.min_value_wrong, bounds.max_value_wrong) == CosineLength(Pattern("owl"), 8).wrong
    assert cosine[0].item() == pytest.approx(0.5 + 0.25 * (1 + math.cos(7 / 8 * math.pi)))
    assert cosine[1].item() == 0.5


def test_length_and_repetition_count_in_one_unit_whoever_wrote_a_response(tiny):
    """A reference answer has no sampled tokens: beside some that have, it is not counted in words."""
    tokenizer = load_tokenizer(Base(str(tiny), "none", "float32"))
    text = "An owl, an owl, an owl!"
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert len(ids) != len(text.split())
    mixed = Group("", [text, text], response_ids=[None, ids])
    for reward in (CosineLength(Pattern("owl"), max_length=100), Repetition(n=2)):
        reward.attach(None, tokenizer)
        reference, sampled = reward([mixed]).total.tolist()
        assert reference == sampled == reward([Group("", [text])]).total.item() != 0


def code(*responses, tests):
    return [Group("Write f.", list(responses), extra={"tests": tests})]


@pytest.fixture
def runs():
    try:
        return CodeTests(runs_code=True, seconds=2, memory_mib=256)
    except ConfigError as error:
        pytest.skip(str(error))


def test_code_earns_the_share_of_the_tests_that_it_passes(runs):
    square = "Here it is:\n```python\ndef f(x):\n    return x * x\n```"
    groups = code(
        square, "def f(x): return 2 * x", "f = (", tests=["assert f(2) == 4", "assert f(3) == 9"]
    )
    assert runs(groups).total.tolist() == [1.0, 0.5, 0.0]
    check_reward(runs, groups)


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "x = bytearray(10**9)",
        "open('big', 'wb').write(b'0' * 10**8)",
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
        "import os; assert 'LIT_ALIGN_SECRET' in os.environ",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
    ],
)
def test_what_a_program_may_not_do_ends_it(program, runs, monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_SECRET", "1")
    assert runs(code(program, tests="")).total.tolist() == [0.0]


def test_code_has_no_network_of_the_host(runs):
    """Its only interface is a loopback that is down."""
    program = "import socket; assert [name for _, name in socket.if_nameindex()] == ['lo']"
    assert runs(code(program, tests="pass")).total.tolist() == [1.0]


def test_code_is_run_only_where_that_is_asked_for():
    with pytest.raises(ConfigError, match="set runs_code to true to allow it"):
        CodeTests()
