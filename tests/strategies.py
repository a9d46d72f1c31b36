"""Random trees, and what an ordinary padded pass makes of them: the yardstick for every packed one."""

import torch
from hypothesis import strategies as st

from lit_align.types import Branch, Group, Tree

VOCABULARY = 61

_token = st.integers(0, VOCABULARY - 1)
_scored_token = st.tuples(_token, st.booleans())


@st.composite
def trees(draw, vocabulary=VOCABULARY):
    """A prompt of up to 9 tokens, up to four responses of up to 7, some tokens not scored, and up to two branches."""
    prompt = draw(st.lists(_token, min_size=1, max_size=9))
    responses = draw(
        st.lists(st.lists(_scored_token, min_size=1, max_size=7), min_size=1, max_size=4)
    )
    branches = []
    for _ in range(draw(st.integers(0, 2))):
        ids, scored = zip(*draw(st.lists(_scored_token, min_size=1, max_size=7)), strict=True)
        start = draw(st.lists(_token, min_size=1, max_size=9))
        number = draw(st.integers(0, len(responses) - 1))
        branches.append(Branch(number, start, list(ids), list(scored)))
    return Tree(
        prompt,
        [[token for token, _ in response] for response in responses],
        [[scored for _, scored in response] for response in responses],
        Group("", [""] * len(responses)),
        branches=tuple(branches),
    )


def parts(rows):
    """The parts of all responses: one row each where every one has a row of its own."""
    return [
        part
        for row in rows
        for tree in row
        for number in range(len(tree.responses))
        for part in tree.parts_of(number)
    ]


def layouts():
    """Up to three rows of up to three trees, with a scored token somewhere."""
    rows = st.lists(st.lists(trees(), min_size=1, max_size=3), min_size=1, max_size=3)
    return rows.filter(lambda rows: any(tree.num_scored for row in rows for tree in row))


def padded(rows):
    """One part of a response a row: ids, attention mask, and (row, column, id) of each scored token, in order."""
    texts = [(part.prompt, part.ids, part.scored) for part in parts(rows)]
    longest = max(len(prompt) + len(response) for prompt, response, _ in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    where = []
    for at, (prompt, response, scored) in enumerate(texts):
        ids[at, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        mask[at, : len(prompt) + len(response)] = 1
        where += [(at, len(prompt) + i, response[i]) for i, learned in enumerate(scored) if learned]
    return ids, mask, torch.tensor(where)


def padded_logps(model, rows):
    """Log-probability of each scored token, by the model's own logits over padded rows."""
    ids, mask, where = padded(rows)
    logps = (
        model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
    )
    row, column, token = where.T
    return logps[row, column - 1, token]
