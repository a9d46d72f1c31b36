"""Rewards that check an answer: mathematics, code, length and repetition; and what bounds code that is run."""

import math
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import torch

from lit_align.errors import ConfigError, DataError
from lit_align.models.load import Base, load_tokenizer
from lit_align.plugin_calls import call_plugin, set_plugin_timeout
from lit_align.rewards import Group
from lit_align.rewards.code_tests import CodeTests, extract_code
from lit_align.rewards.cosine_length import CosineLength
from lit_align.rewards.last_number import LastNumber
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


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("2x", r"\boxed{2x}", "2"),
        ("x - 1", r"\boxed{x - 1}", "1"),
        ("x < 3", "$x < 3$", "3"),
        ("3, 4", r"\boxed{3, 4}", "4"),
        ("5!", "120", "5"),
        ("3:4", r"\boxed{\frac{3}{4}}", "3"),
        ("2 3/4", "2.75", "3"),
        ("1.5e3", "1500", "1.5"),
        ("3 + 4i", "$3 + 4i$", "4"),
        ("1,200 clips.", "1200", "200"),
        ("50%", r"50\%", "5"),
        ("90°", "90", "9"),
        ("18 dollars per day", "18", "81"),
        ("$12,000", "12000", "12"),
        ("1/2", "0.5", "2"),
        ("x = 5", "$x = 5$", "$x = 6$"),
    ],
)
def test_the_whole_reference_answer_counts(gold, right, wrong):
    pytest.importorskip("math_verify")
    scores = MathEquivalence(after="")([of_answer(gold, right, wrong)])
    assert scores.total.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "gold", ["10 hours and 5 minutes", "5 million", "Monday", "no", "5 of the 9 owls", "4 squared"]
)
def test_a_reference_answer_of_which_a_part_is_read_scores_nothing(gold):
    pytest.importorskip("math_verify")
    assert not MathEquivalence()([of_answer(gold, "5", "10")]).scored.any()


def test_mathematics_leaves_the_limit_of_a_call():
    pytest.importorskip("math_verify")
    left = []

    def score():
        MathEquivalence()([of_answer("1/2", "0.5")])
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])

    set_plugin_timeout(500)
    try:
        call_plugin("MathEquivalence", score)
    finally:
        set_plugin_timeout(None)
    assert 0 < left[0] < 500


def test_a_reference_answer_is_text_or_the_assistants():
    turns = [{"role": "user", "content": "8?"}, {"role": "assistant", "content": "It is 7."}]
    for reward in (LastNumber(after=""), MathEquivalence(after="")):
        assert reward([of_answer([{"role": "assistant", "content": "7"}], "7")]).total.tolist() == [
            1.0
        ]
        with pytest.raises(DataError, match="the column 'answer' of"):
            reward([of_answer({"value": 7}, "7")])
    assert LastNumber()([of_answer(turns, "7", "8")]).total.tolist() == [1.0, 0.0]


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
        "import os; assert 'LIT_ALIGN_SECRET' in os.environ",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
    ],
)
def test_what_a_program_may_not_do_ends_it(program, runs, monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_SECRET", "1")
    assert runs(code(program, tests="assert True")).total.tolist() == [0.0]


@pytest.mark.parametrize("with_network", [False, True])
@pytest.mark.parametrize("ending", ["", "time.sleep(60)"], ids=["in time", "too late"])
def test_no_process_of_a_program_outlives_it(ending, with_network, runs):
    """Whether it comes to its end or is stopped, a child that it leaves asleep is gone soon after."""
    mark = f"asleep-{uuid4().hex}"
    sleep = ["-c", "import time; time.sleep(60)", mark]
    program = (
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, *{sleep}])\n{ending}"
    )
    reward = replace(runs, seconds=1, with_network=with_network)
    assert reward(code(program, tests="assert True")).total.tolist() == [float(not ending)]
    deadline = time.monotonic() + 10
    while _is_running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(mark)


def _is_running(mark):
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if mark.encode() in file.read_bytes():
                return True
    return False


def test_a_program_has_a_limit_of_processes_and_a_main_module_of_its_own(runs):
    """Its module holds what it has defined, and nothing of what runs it."""
    limit = "import resource\nlimit, _ = resource.getrlimit(resource.RLIMIT_NPROC)"
    tests = [
        "assert 64 <= limit < 10**6",
        "import __main__\nassert {k for k in vars(__main__) if k[:2] != '__'} == "
        "{'resource', 'limit', '_'}",
    ]
    assert runs(code(limit, tests=tests)).total.tolist() == [1.0]


def test_a_program_may_have_threads_and_processes(runs):
    program = (
        "import subprocess, sys, threading\n"
        "def f():\n"
        "    thread = threading.Thread(target=print)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    return subprocess.run([sys.executable, '-c', 'print(4)'], capture_output=True).stdout"
    )
    assert runs(code(program, tests="assert f() == b'4\\n'")).total.tolist() == [1.0]


def test_code_does_not_reach_a_server_of_the_host(runs):
    """It does where it is allowed to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket; socket.create_connection({server.getsockname()!r}, 1)"
        allowed = replace(runs, with_network=True)
        group = code(program, tests="assert True")
        assert runs(group).total.tolist() == [0.0]
        assert allowed(group).total.tolist() == [1.0]


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ({"input": "1 2", "output": "3"}, "it is no text"),
        (3, "it is no text"),
        ('{"input": "1 2", "output": "3"}', "its line 1 is a value that nothing is asserted of"),
        ("y = f(2)\ny == 4", "its line 2 is a value"),
        ("f(2) == 4 and f(3) == 9", "its line 1 is a value"),
        ("", "it asserts nothing and calls nothing"),
        ("'f(2) is 4'", "it asserts nothing"),
        ("def check(f):\n    assert f(2) == 4", "it asserts nothing"),
        ("f(2) equals four", "it is no Python"),
    ],
)
def test_tests_that_no_code_fails_are_refused(test, says, runs):
    with pytest.raises(DataError, match=says):
        runs(code("x = 1", tests=["assert True", test]))


def test_a_test_may_define_what_it_calls(runs):
    test = "'Of f.'\ndef check(f):\n    assert f(2) == 4\n\ncheck(f)"
    assert runs(code("f = lambda x: x * x", "f = abs", tests=test)).total.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```bash\npip install x\n```\nThen:\n```python\nx = 1\n```", "x = 1\n"),
        (
            "```python\nx = 1\n```\nRun it:\n```bash\npython x.py\n```\nIt prints\n```\n1\n```",
            "x = 1\n",
        ),
        ("```Python\nx = 1\n```", "x = 1\n"),
        ("```python3 title=x\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("```py\nx = 1\n```\n```\nx = 2\n```", "x = 1\n"),
        ("```\nx = 1\n```\n```\nx = 2\n```", "x = 2\n"),
        ("1. So:\n   ```python\n   if x:\n       y\n   ```\n", "if x:\n    y\n"),
        (
            '```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n```',
            'def f():\n    """\n    ```\n    f()\n    ```\n    """\n',
        ),
        ("```python\n```", ""),
    ],
)
def test_the_code_is_the_last_python_block(text, expected):
    assert extract_code(text) == expected


def test_code_has_no_network_of_the_host(runs):
    """Its only interface is a loopback that is down."""
    program = "import socket; assert [name for _, name in socket.if_nameindex()] == ['lo']"
    assert runs(code(program, tests="assert True")).total.tolist() == [1.0]


def test_code_is_run_only_where_that_is_asked_for():
    with pytest.raises(ConfigError, match="set runs_code to true to allow it"):
        CodeTests()
