"""Every group once an epoch over all ranks, and a resumed run that goes on as if it had not stopped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.loader import StepLoader, balance_by_tokens
from lit_align.errors import ConfigError, DataError
from lit_align.types import Branch, Group, Pair, Tree


def tree(i, size):
    group = Group("", [""], (Pair(0, 1),) * (i % 3), source=str(i))
    return Tree([1], [[2] * size, [3]], [[True] * size, [i % 2 == 0]], group)


some_trees = st.lists(st.integers(1, 20), min_size=1, max_size=25).map(
    lambda sizes: [tree(i, n) for i, n in enumerate(sizes)]
)


def sources(step):
    return [t.group.source for batch in step.batches for t in batch.source]


@given(some_trees, st.integers(1, 9), st.integers(1, 4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_group_once_over_all_ranks(trees, batch_size, world, shuffle):
    ranks = [
        StepLoader(
            trees,
            batch_size=batch_size,
            token_budget=30,
            rank=r,
            world=world,
            shuffle=shuffle,
            seed=3,
        )
        for r in range(world)
    ]
    for _ in range(2):
        seen = []
        for shares in zip(*ranks, strict=True):
            step = [source for share in shares for source in sources(share)]
            seen += step
            took = [trees[int(source)] for source in step]
            for share in shares:
                assert share.tokens == sum(sum(map(sum, t.scored)) for t in took)
                assert share.items == sum(t.group.items for t in took)
                assert all(sum(t.tokens for t in batch.source) <= 30 for batch in share.batches)
        assert sorted(seen) == sorted(t.group.source for t in trees)
    assert len(ranks[0]) == -(-len(trees) // batch_size)


@given(some_trees, st.integers(1, 5), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_resuming_anywhere_gives_the_same_sequence(trees, batch_size, stop):
    def made():
        return StepLoader(trees, batch_size=batch_size, token_budget=30, seed=5)

    def run(steps, count):
        """``count`` steps as Lightning takes them: never more from an iterator than the loader's length."""
        while True:
            for step in steps:
                if not count:
                    return
                count -= 1
                yield sources(step), (steps.epoch, steps.next)

    whole = list(run(made(), 3 * len(made())))
    stop = stop % len(whole)
    resumed = made()
    resumed.start_at(*whole[stop][1])
    assert list(run(resumed, len(whole) - stop - 1)) == whole[stop + 1 :]


@given(some_trees, st.integers(1, 9), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_later_step_is_known_as_it_will_be_yielded(trees, batch_size, dense):
    loader = StepLoader(trees, batch_size=batch_size, token_budget=50, seed=5, dense=dense)
    for epoch in range(2):
        wanted = [sources(loader.step_at(epoch, step)) for step in range(len(loader))]
        assert (loader.epoch, loader.next) == (epoch, 0)
        assert [sources(step) for step in loader] == wanted


def test_position_is_known_before_the_last_step_is_given_out():
    steps = StepLoader([tree(0, 1), tree(1, 1)], batch_size=1, token_budget=9)
    once = iter(steps)
    next(once), next(once)
    assert (steps.epoch, steps.next) == (1, 0)
    assert len(list(steps)) == 2


def test_epochs_differ_and_seeds_differ():
    trees = [tree(i, 1) for i in range(20)]
    made = StepLoader(trees, batch_size=20, token_budget=999)
    orders = [s.split() for s in {" ".join(sources(step)) for _ in range(3) for step in made}]
    assert all(len(order) == 20 for order in orders)
    subset = StepLoader(trees, batch_size=5, token_budget=999)
    assert [set(sources(s)) for s in subset] != [set(sources(s)) for s in subset]
    other = StepLoader(trees, batch_size=5, token_budget=999, seed=1)
    assert [set(sources(s)) for s in StepLoader(trees, batch_size=5, token_budget=999)] != [
        set(sources(s)) for s in other
    ]


def test_validation_starts_over_after_a_look():
    steps = StepLoader(
        [tree(i, 1) for i in range(4)], batch_size=1, token_budget=9, shuffle=False, resumes=False
    )
    next(iter(steps))
    assert [sources(step) for step in steps] == [["0"], ["1"], ["2"], ["3"]]


def test_shares_are_balanced_by_tokens():
    shares = balance_by_tokens([tree(i, n) for i, n in enumerate([18, 1, 1, 8, 8, 1])], world=2)
    loads = sorted(sum(t.tokens for t in share) for share in shares)
    assert loads == [23, 26]  # trees of 20, 10, 10, 3, 3 and 3 tokens: 20 + 3 and 10 + 10 + 3 + 3


def test_a_rank_may_get_nothing():
    steps = StepLoader([tree(0, 3)], batch_size=4, token_budget=9, rank=1, world=2)
    (step,) = steps
    assert step.batches == ()
    assert step.tokens == 4


def test_an_epoch_whose_steps_are_done_yields_none_and_the_next_begins():
    steps = StepLoader([tree(i, 1) for i in range(4)], batch_size=2, token_budget=9)
    steps.start_at(1, 2)
    steps.set_epoch(1)
    assert list(steps) == []
    assert steps.state_dict() == {"epoch": 2, "next": 0}  # as of a loader that came there itself
    steps.set_epoch(2)
    assert (len(list(steps)), steps.epoch) == (2, 3)


def test_what_no_step_could_hold_is_refused_at_once():
    with pytest.raises(
        DataError, match="7 has 12 tokens with all its responses, over the token_budget of 11"
    ):
        StepLoader([tree(1, 1), tree(7, 10)], batch_size=1, token_budget=11)
    with pytest.raises(DataError, match="no group to learn from"):
        StepLoader([], batch_size=1, token_budget=11)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        StepLoader([tree(1, 1)], batch_size=0, token_budget=11)


def test_branches_of_demonstrations_need_not_fit_together():
    """Each part fits the budget, the whole conversation does not; it is one group all the same."""
    branch = Branch(0, [1] * 6, [2, 2], [True, True])
    tree = Tree([1], [[2, 2, 2]], [[True] * 3], Group("", [""]), branches=(branch, branch))
    (step,) = StepLoader([tree], batch_size=1, token_budget=8)
    assert (step.groups, step.tokens, len(step.batches)) == (1, 7, 3)
    assert sum(len(batch.trees.target) for batch in step.batches) == 7


def test_branches_of_labelled_responses_stay_together():
    branch = Branch(1, [1] * 6, [2, 2], [True, True])
    group = Group("", ["", ""], (Pair(0, 1),))
    tree = Tree([1], [[2], [3]], [[True], [True]], group, branches=(branch,))
    with pytest.raises(DataError, match="has 11 tokens with all its responses"):
        StepLoader([tree], batch_size=1, token_budget=10)
    (step,) = StepLoader([tree], batch_size=1, token_budget=11)
    (batch,) = step.batches
    assert batch.trees.owner.tolist() == [0, 1, 1, 1]
