"""A judge behind a server: nothing is lost, nothing is paid twice, and what went wrong is said."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lit_align.errors import ModelError
from lit_align.feedback.agreement import summarize_results
from lit_align.feedback.judge import Judge
from lit_align.judges import openai_server
from lit_align.judges.openai_server import OpenAIServer
from lit_align.rewards.judge_score import JudgeScore
from lit_align.types import Group
from tests.judges.servers import SHORT, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Pauses between attempts, which are noted and not made."""
    made: list[float] = []
    monkeypatch.setattr(
        openai_server.RequestState, "pause", lambda _, seconds: made.append(seconds)
    )
    return made


def make_server_judge(server, tmp_path, **settings) -> OpenAIServer:
    return OpenAIServer(
        server.url, "m", **{"timeout": SHORT, "cache": str(tmp_path / "answers.sqlite"), **settings}
    )


def groups(n: int, start: int = 0) -> list[Group]:
    return [Group(f"Question {k}?", [f"good {k}", f"bad {k}"]) for k in range(start, start + n)]


def prefers_good(question: str) -> str:
    return "A" if question.index("good") < question.index("bad") else "B."


FAULTS = {
    "Question 0?": [429, 429],
    "Question 1?": [500, 503],
    "Question 2?": ["slow"],
    "Question 3?": ["half", "nonsense", "empty"],
}


def test_every_fault_passes_and_nothing_is_paid_twice(tmp_path, pauses):
    with serving(FAULTS, prefers_good) as server:
        judge = Judge(make_server_judge(server, tmp_path, prices=(1e6, 1e6)))
        first = judge(groups(6), "pairs")
        assert [opinion.group.pairs[0][:3] for opinion in first] == [(0, 1, 1.0)] * 6
        assert set(server.billed.values()) == {1}
        assert len(server.billed) == 12
        told = summarize_results(first)
        assert (told["attempts"], sum(server.calls.values())) == (12 + 8, 12 + 8)
        assert (told["labelled"], told["unread"], told["cached"], told["cost"]) == (
            6,
            {},
            0,
            12 * 12.0,
        )
        assert all(len(keys) == 1 for keys in server.keys.values())  # a retry says that it is one
        assert pauses.count(70) == 2  # as the server asked
        assert all(0.375 <= pause <= 2 for pause in pauses if pause != 70)

        again = judge(groups(6), "pairs")
        anew = Judge(make_server_judge(server, tmp_path, prices=(1e6, 1e6)))(groups(7), "pairs")
        assert (
            [one.group for one in again]
            == [one.group for one in first]
            == [one.group for one in anew[:6]]
        )
        assert sum(server.calls.values()) == 20 + 2
        assert (
            summarize_results(again)["cached"],
            summarize_results(again)["cost"],
            summarize_results(again)["attempts"],
        ) == (
            12,
            0.0,
            0,
        )
        assert (summarize_results(anew)["cached"], summarize_results(anew)["cost"]) == (12, 24.0)


def test_equal_questions_are_asked_once(tmp_path):
    with serving() as server:
        told = summarize_results(
            Judge(make_server_judge(server, tmp_path, cache=None))(groups(1) * 5, "pairs")
        )
        assert sum(server.calls.values()) == 2
        assert (told["questions"], told["cached"], told["attempts"]) == (10, 8, 2)


def test_a_pause_grows_until_it_is_long(tmp_path, pauses):
    with serving({"Question": [500] * 40}) as server:
        [opinion] = Judge(
            make_server_judge(server, tmp_path, retries=8, concurrency=1), swap=False
        )(groups(1), "pairs")
        assert (opinion.group, opinion.reason) == (None, "no answer (status 500)")
        assert len(pauses) == 8
        assert all(
            0.75 * full <= pause <= full
            for pause, full in zip(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30], strict=True)
        )
        server.faults.clear()
        [later] = Judge(make_server_judge(server, tmp_path), swap=False)(
            groups(1), "pairs"
        )  # what never came was not kept
        assert later.group is not None


def test_what_cannot_be_read_is_counted_kept_and_not_guessed(tmp_path):
    with serving(
        say=lambda question: "Both are lovely." if "Question 1" in question else "**B**"
    ) as server:
        judge = Judge(make_server_judge(server, tmp_path))
        told = summarize_results(judge(groups(3), "pairs"))
        assert told["set_aside"] == {"a tie": 2, "a verdict that cannot be read": 1}
        assert told["unread"] == {"a verdict that cannot be read": 2}
        assert summarize_results(judge(groups(3), "pairs"))["cached"] == 6
        with pytest.raises(ModelError, match="OpenAIServer gave no rating that can be read"):
            JudgeScore(judge.model)(groups(1))


def test_one_unread_order_sets_the_pair_aside(tmp_path):
    with serving(
        say=lambda question: "A" if question.index("good") < question.index("bad") else "?"
    ) as server:
        [opinion] = Judge(make_server_judge(server, tmp_path))(groups(1), "pairs")
        assert opinion.reason == "a verdict that cannot be read"


def test_probabilities_of_the_first_token(tmp_path):
    top = [("A", math.log(0.6)), ("I", math.log(0.2)), (" B", math.log(0.1)), ("a", math.log(0.1))]
    with serving(top=top) as server:
        [reply] = make_server_judge(server, tmp_path, read="logprobs").choose_option(
            ["?"], ("A", "B")
        )
        assert reply.probabilities == pytest.approx((6 / 7, 1 / 7))
        assert reply.record["mass"] == pytest.approx(0.7)
        [none] = make_server_judge(server, tmp_path, read="logprobs").choose_option(
            ["?"], ("X", "Y")
        )
        assert (none.probabilities, none.reason) == (None, "a verdict that cannot be read")
    with serving(top=[("1", math.log(0.25)), ("10", math.log(0.75))]) as server:
        assert JudgeScore(make_server_judge(server, tmp_path, read="logprobs"))(
            [Group("?", ["x"])]
        ).total.tolist() == [7.75]


def test_a_server_without_probabilities_is_noticed(tmp_path):
    with (
        serving() as server,
        pytest.raises(
            ModelError, match="returned no log-probabilities although they were requested"
        ),
    ):
        make_server_judge(server, tmp_path, read="logprobs").choose_option(["?"], ("A", "B"))


# ---------------------------------------------------------------------- limits


def test_a_cap_on_calls_counts_attempts(tmp_path, pauses):
    with serving({"Question 0?": [500]}) as server:
        capped = Judge(make_server_judge(server, tmp_path, max_calls=4, concurrency=1), swap=False)
        told = summarize_results(capped(groups(5), "pairs"))
        assert sum(server.calls.values()) == 4
        assert (told["labelled"], told["unread"]) == (3, {"max_calls, 4, is reached": 2})
        told = summarize_results(
            Judge(make_server_judge(server, tmp_path), swap=False)(groups(5), "pairs")
        )
        assert (told["labelled"], told["cached"], told["attempts"]) == (5, 3, 2)


def test_a_cap_on_cost(tmp_path):
    with serving() as server:
        capped = Judge(
            make_server_judge(server, tmp_path, max_cost=30.0, prices=(1e6, 1e6), concurrency=1),
            swap=False,
        )
        told = summarize_results(capped(groups(5), "pairs"))
        assert (told["cost"], told["unread"]) == (
            36.0,
            {"max_cost, 30, is reached": 2},
        )  # 12 a question
    with pytest.raises(ValueError, match="max_cost needs prices"):
        OpenAIServer("", "m", max_cost=1.0)


def test_a_server_that_is_down_stops_it_and_what_came_is_kept(tmp_path, pauses):
    with serving({f"Question {k}?": [500] * 99 for k in range(3, 40)}) as server:
        judge = Judge(make_server_judge(server, tmp_path, retries=1, concurrency=1), swap=False)
        with pytest.raises(
            ModelError, match=r"left 10 questions in a row without an answer \(last: status 500\)"
        ):
            judge(groups(40), "pairs")
        assert sum(server.calls.values()) == 3 + 2 * 10
        server.faults.clear()
        assert (
            summarize_results(
                Judge(make_server_judge(server, tmp_path), swap=False)(groups(40), "pairs")
            )["cached"]
            == 3
        )


def test_a_server_that_asks_for_too_long_a_pause_is_asked_no_more(tmp_path, pauses):
    with serving({"Question": ["quota"] * 9}) as server:
        [opinion] = Judge(make_server_judge(server, tmp_path), swap=False)(groups(1), "pairs")
        assert (opinion.reason, sum(server.calls.values()), pauses) == (
            "no answer (status 429)",
            1,
            [],
        )


def test_nobody_waits_for_a_pause_once_it_is_over(tmp_path):
    """One question is refused, the other is to be asked again in 70 seconds."""
    with serving({"Question 0?": [401], "Question 1?": [429] * 9}) as server:
        began = time.monotonic()
        with pytest.raises(ModelError, match="refuses: Error code: 401"):
            Judge(make_server_judge(server, tmp_path, concurrency=2), swap=False)(
                groups(2), "pairs"
            )
        assert time.monotonic() - began < 60


def test_a_refusal_is_not_repeated(tmp_path, pauses):
    with serving({"Question": [401] * 9}) as server:
        with pytest.raises(
            ModelError,
            match=r"refuses: Error code: 401 .*as planned.*; correct the settings of OpenAIServer",
        ):
            Judge(make_server_judge(server, tmp_path, concurrency=1), swap=False)(
                groups(1), "pairs"
            )
        assert (sum(server.calls.values()), pauses) == (1, [])


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path):
    """By SIGKILL, while the fourth question is under way."""
    with serving({"Question 3?": ["slow"] * 99}) as server:
        code = f"""
            from lit_align.feedback.judge import Judge
            from lit_align.judges.openai_server import OpenAIServer
            from tests.judges.test_openai_server import groups
            model = OpenAIServer({server.url!r}, "m", cache={str(tmp_path / "answers.sqlite")!r}, concurrency=1)
            Judge(model, swap=False)(groups(6), "pairs")
        """
        run = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        until = time.monotonic() + 60
        while len(server.calls) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert len(server.calls) == 4
        server.faults.clear()
        before = dict(server.calls)
        told = summarize_results(
            Judge(make_server_judge(server, tmp_path), swap=False)(groups(6), "pairs")
        )
        assert (told["labelled"], told["cached"]) == (6, 3)
        assert sum(server.calls.values()) - sum(before.values()) == 3
