"""A process reward model beside the classification of tokens, as TRL 1.13 and others train it, on the same weights."""

import pytest
import torch
from transformers import LlamaForTokenClassification

from lit_align.data.packing import pack
from lit_align.data.solution_steps import StepSettings
from lit_align.data.tokenize import ChatTokenizer
from lit_align.objectives.step_cross_entropy import StepCrossEntropy
from lit_align.stages.process_reward_model import ProcessRewardModel
from lit_align.types import Group, SolutionStep, Step, Tree
from tests import tiny as make
from tests.stages.test_exact import gradient, stage

IGNORED = -100  # no loss
ROWS = [
    ("2 + 2 + 1?", ["2 + 2 = 4", "4 + 1 = 6"], [1, 0]),
    ("Half of 8, and 1?", ["8 / 2 = 4", "4 + 1 = 5", "So 5."], [1, 1, 1]),
    ("7?", ["8"], [0]),
]


def their_row(prompt, steps, labels):
    """Ids and labels by TRL's rule: each step and the separator apart, the label at the last token of that."""
    tokenizer, ids, marks = make.tokenizer(), [], []
    for step, label in zip(steps, labels, strict=True):
        piece = tokenizer(step).input_ids + tokenizer("\n").input_ids
        ids += piece
        marks += [IGNORED] * (len(piece) - 1) + [label]
    return tokenizer(prompt).input_ids, ids, marks


def our_tree(prompt, steps, labels):
    """The same tokens as a tree."""
    start, ids, marks = their_row(prompt, steps, labels)
    pairs = zip(steps, labels, strict=True)
    labelled = tuple(SolutionStep(text, float(label)) for text, label in pairs)
    scored = [mark != IGNORED for mark in marks]
    return Tree(start, [ids], [scored], Group(prompt, ["\n".join(steps)], steps=(labelled,)))


def test_loss_and_gradients_are_those_of_two_classes_on_the_same_logits(tiny):
    """The head of two outputs is ours and zeros, so that their difference is ours."""
    module = stage(ProcessRewardModel, StepCrossEntropy(), tiny)
    (batch,) = pack([our_tree(*row) for row in ROWS], 10_000)
    loss, _ = gradient(module, Step.from_batches((batch,)))
    (module.losses(batch, statistics=False)[0] / len(batch.trees.target)).backward()
    head = module.adapters.head("reward")
    theirs = LlamaForTokenClassification(module.adapters.model.config).eval()  # it has dropout
    theirs.score = torch.nn.Linear(head.weight.shape[1], 2)
    with torch.no_grad():
        theirs.score.weight.copy_(torch.cat([0 * head.weight, head.weight]))
        theirs.score.bias.copy_(torch.cat([0 * head.bias, head.bias]))
    longest = max(len(start) + len(ids) for start, ids, _ in (their_row(*row) for row in ROWS))
    ids, labels, mask = (torch.full((len(ROWS), longest), fill) for fill in (0, IGNORED, 0))
    for k, row in enumerate(ROWS):
        start, answer, marks = their_row(*row)
        end = len(start) + len(answer)
        ids[k, :end] = torch.tensor(start + answer)
        labels[k, len(start) : end] = torch.tensor(marks)
        mask[k, :end] = 1
    with module.adapters.activate("reward", training=False) as model:
        theirs.model = model.base_model
        other = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
        other.backward()
    assert loss == pytest.approx(other.item(), rel=1e-5)
    torch.testing.assert_close(
        theirs.score.weight.grad[1], head.weight.grad[0], rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(theirs.score.weight.grad[0], -head.weight.grad[0], rtol=1e-4, atol=1e-6)  # fmt: skip


def test_tokens_are_theirs_but_that_the_response_ends_where_they_put_a_separator():
    chat = ChatTokenizer(make.tokenizer(), max_length=999, as_chat=False, steps=StepSettings("\n"))
    for prompt, steps, labels in ROWS:
        start, ids, marks = their_row(prompt, steps, labels)
        tree = chat.encode(our_tree(prompt, steps, labels).group).tree
        assert tree.prompt == start
        assert tree.responses == [[*ids[:-1], make.tokenizer().eos_token_id]]
        assert tree.scored == [[mark != IGNORED for mark in marks]]
