"""Work that processes share: in order, whoever did it; the first that fails says why; who waits gets signs."""

import os
import re
import threading
import time
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from lit_align import processes as module
from lit_align.errors import DataError, ModelError, OtherProcessFailed, PluginError
from lit_align.processes import Processes
from lit_align.rewards import Reward, Scores
from lit_align.rl.response_scores import join_scores, shared_scores, split_scores
from lit_align.types import Group, Tree
from tests.processes import run_processes

WORLD = 3


def test_processes_share_work(tmp_path):
    output = tmp_path / "output.txt"
    assert run_processes(WORLD, _share, output) == [0] * WORLD, output.read_text()


def _share():
    """What each process does and finds."""
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    processes = Processes(rank, WORLD, torch.device("cpu"))
    for count in (0, 1, 2, 3, 7):
        shared = processes.share(count, lambda places: [(place, rank) for place in places])
        assert shared == [(place, place % WORLD) for place in range(count)]
    assert processes.gather(lambda: rank) == [0, 1, 2]
    assert processes.sum(torch.tensor([1.0, rank])).tolist() == [3.0, 3.0]
    _fail(processes)
    _refuse_to_send(processes)
    _score(processes)
    _wait(processes)
    dist.destroy_process_group()


def _fail(processes):
    """Two of them fail in their shares, then the first alone in what it does for all."""

    def broken(number):
        if number:
            raise DataError(f"row {number} is odd")

    expected = DataError if processes.rank == 1 else OtherProcessFailed
    with pytest.raises(expected, match="row 1 is odd"):
        processes.gather(partial(broken, processes.rank))
    expected = DataError if processes.is_first else OtherProcessFailed
    with pytest.raises(expected, match="row 5 is odd"):
        processes.from_first(partial(broken, 5))


def _refuse_to_send(processes):
    """A result of a plugin that cannot be sent ends the work on all of them, with its place in the result."""
    sendable = Group("Say one.", ["one"])
    secrets = {"locks": threading.Lock(), "rows": (n for n in ()), "check": lambda text: text}
    for name, secret in secrets.items():
        group = sendable._replace(extra={name: secret})
        message = re.escape(f"[1].extra['{name}'] of what a process has computed is a ")
        expected = PluginError if processes.rank == 2 else OtherProcessFailed
        with pytest.raises(expected, match=message):
            processes.gather(lambda own=group: [sendable, own if processes.rank == 2 else sendable])
        expected = PluginError if processes.is_first else OtherProcessFailed
        with pytest.raises(expected, match=message):
            processes.from_first(lambda own=group: [sendable, own])
    assert processes.gather(lambda: sendable) == [sendable] * WORLD


@dataclass(frozen=True)
class Moody(Reward):
    """Gives what a prompt asks for."""

    def can_split(self):
        return True

    def __call__(self, groups):
        total = torch.zeros(sum(len(group.responses) for group in groups))
        parts = {
            word: total for group in groups for word in group.prompt.split() if word != "tokens"
        }
        tokens = total if any("tokens" in group.prompt for group in groups) else None
        return Scores(total, parts, tokens)


def _score(processes):
    """Parts that only the share of some process has are neither dropped nor a KeyError: the first process tells it."""
    for prompts, kind in (
        (("a", "a", "a b"), "a part 'b'"),
        (("a b", "a", "a"), "a part 'b'"),
        (("a", "a tokens", "a"), "scores by token"),
    ):
        trees = [
            Tree([1], [[2]], [[True]], Group(prompt, ["x"], source=f"row {row}"))
            for row, prompt in enumerate(prompts)
        ]
        expected = ModelError if processes.is_first else OtherProcessFailed
        with pytest.raises(expected, match=f"gave {kind} to the responses to row .*can_split"):
            shared_scores(Moody(), trees, processes)
    scores = shared_scores(Moody(), [trees[0]] * 4, processes)
    assert (len(scores.total), [*scores.parts], scores.tokens) == (4, ["a"], None)


def _wait(processes):
    """The first works for longer than a sign takes."""
    module.SECONDS_BETWEEN_SIGNS = 0.01
    signs = []
    send = Processes._send_sign

    def count(self, *, is_done):
        signs.append(send(self, is_done=is_done))
        return signs[-1]

    Processes._send_sign = count

    def work():
        while len(signs) < 3:
            time.sleep(0.01)
        return processes.rank

    assert processes.from_first(work) == 0
    assert len(signs) > 3
    assert signs[-1]
    assert not any(signs[:-1])


@given(st.lists(st.integers(1, 3), min_size=1, max_size=8))
def test_scores_are_split_by_tree_and_joined(sizes):
    """Responses are numbered through; a token is worth the number of its response."""
    trees, lengths = [], []
    for size in sizes:
        own = [1 + (len(lengths) + k) % 3 for k in range(size)]
        trees.append(SimpleNamespace(responses=[[0] * length for length in own]))
        lengths += own
    numbers = torch.arange(len(lengths)).float()
    scores = Scores(
        numbers, {"half": numbers / 2}, numbers.repeat_interleave(torch.tensor(lengths))
    )
    split = split_scores(scores, trees)
    assert [len(own.total) for own in split] == sizes
    for own in split:
        assert own.tokens.unique().tolist() == own.total.tolist()
        assert torch.equal(own.parts["half"], own.total / 2)
    joined = join_scores(split)
    assert torch.equal(joined.total, scores.total)
    assert torch.equal(joined.parts["half"], scores.parts["half"])
    assert torch.equal(joined.tokens, scores.tokens)
