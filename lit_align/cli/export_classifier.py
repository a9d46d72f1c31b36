"""``lit-align export --as-classifier``: a reward model in transformers' own class, compared with the run's scores."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lit_align.chat.plain_text import PLAIN_TEXT
from lit_align.data.scoring import UNLIMITED, score_trees, tokenize_groups
from lit_align.errors import ConfigError, ModelError
from lit_align.models.atomic_folder import atomic_folder
from lit_align.models.card import model_card
from lit_align.models.classifier import to_classifier
from lit_align.models.export import TEXTS
from lit_align.types import Batch, Group, Message

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

TOKEN_BUDGET = 4096


class Exported(NamedTuple):
    """A written classifier.

    Args:
        offset: to add to a logit for the score.
        difference: largest difference of a score from ours, on sample texts.
    """

    offset: float
    difference: float


def export_classifier(
    stage: Any,
    role: str | None,
    folder: Path,
    bound: float,
    provenance: Mapping[str, Any],
    summary: Mapping[str, Any] | None,
) -> Exported:
    """Write a folder for ``AutoModelForSequenceClassification``, whose scores are those of a RewardModel run.

    Args:
        stage: a loaded reward model; cannot be used afterwards.
        role: the member; null if there is only one.
        folder: where to.
        bound: largest difference of a score to accept.
        provenance: of the adapter.
        summary: of the run.

    Raises:
        ConfigError: if the run trained no reward model, or several and none is named.
        ModelError: if the scores differ by more; nothing is written then.
    """
    role = _member(stage, role)
    is_plain = provenance.get("prompts") == PLAIN_TEXT or not stage.tokenizer.chat_template
    groups = _sample_groups(is_plain)
    trees, _ = tokenize_groups(groups, stage.tokenizer, UNLIMITED, not is_plain)

    def score(batch: Batch) -> Tensor:
        raw = stage.member_scores(role, batch, training=False)
        normalized: Tensor = stage.adapters.head(role).normalize(raw)
        return normalized.cpu()

    with torch.no_grad():
        scores = score_trees(trees, score, TOKEN_BUDGET, dense=not stage.block_sparse)
    ids = [tree.prompt + tree.responses[0] for tree in trees]
    framing = _framing(stage.tokenizer, groups, ids)
    classifier = to_classifier(stage.adapters, role, stage.tokenizer)
    with atomic_folder(folder) as temporary:
        classifier.model.save_pretrained(temporary)
        stage.tokenizer.save_pretrained(temporary)
        texts = _framed(stage.tokenizer, groups, framing)
        theirs = _scores_of_folder(temporary, texts, classifier.offset, stage.device)
        difference = (scores - theirs).abs().max().item()
        if not difference <= bound:
            raise ModelError(
                f"a score changed by {difference:.3g} where the reward model became a classifier, over --bound "
                f"{bound}; write it in float32 (--dtype float32), or raise --bound"
            )
        usage = _usage(framing, classifier.offset, difference, is_plain)
        card = model_card(provenance, summary, usage, "transformers")
        (temporary / "README.md").write_text(card, "utf-8")
    return Exported(classifier.offset, difference)


def _member(stage: Any, role: str | None) -> str:
    members = getattr(stage, "members", ())
    if not members:
        raise ConfigError(
            f"the run trained a {type(stage).__name__} and no reward model, so there is no score to classify by; leave "
            "out --as-classifier"
        )
    if stage.reads_steps:
        raise ConfigError(
            "the run trained a process reward model, which scores the steps of a response, and a classifier gives one "
            "score; leave out --as-classifier, and use the adapter as the reward ProcessScore"
        )
    if role is None and len(members) > 1:
        raise ConfigError(
            f"the run is an ensemble of {len(members)}, whose score is the mean of {len(members)} passes through "
            f"different weights, and one classifier has one set: name one with --role, such as {members[0]}"
        )
    if role is not None and role not in members:
        raise ConfigError(
            f"no member of the reward model is called {role!r}; there are {' and '.join(members)}"
        )
    return role or str(members[0])


def _sample_groups(is_plain: bool) -> list[Group]:
    """Prompts with one response each: single texts, or conversations of one and of two rounds."""
    groups = []
    for index, text in enumerate(TEXTS):
        answer = TEXTS[index - 1]
        if is_plain:
            groups.append(Group(text, [answer]))
            continue
        turns: list[Message] = [{"role": "user", "content": text}]
        if index % 2:
            turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": text}]
        groups.append(Group(turns, [[{"role": "assistant", "content": answer}]]))
    return groups


def _text(tokenizer: PreTrainedTokenizerBase, group: Group) -> str:
    """Prompt and response as others render them."""
    if isinstance(group.prompt, str):
        return f"{group.prompt}{group.responses[0]}"
    turns = [*group.prompt, *group.responses[0]]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def _framing(
    tokenizer: PreTrainedTokenizerBase, groups: list[Group], ids: list[list[int]]
) -> tuple[str, str]:
    """What must stand before and after the rendered text for the tokens that were scored: BOS, EOS or nothing.

    Raises:
        ModelError: if none of these gives them.
    """
    for framing in product(("", tokenizer.bos_token or ""), ("", tokenizer.eos_token or "")):
        texts = _framed(tokenizer, groups, framing)
        if tokenizer(texts, add_special_tokens=False).input_ids == ids:
            return framing
    raise ModelError(
        "the tokenizer splits a rendered conversation into other tokens than the reward model was trained on, so its "
        "scores would differ elsewhere; export the adapter, which lit-align loads with its head"
    )


def _framed(
    tokenizer: PreTrainedTokenizerBase, groups: list[Group], framing: tuple[str, str]
) -> list[str]:
    before, after = framing
    return [f"{before}{_text(tokenizer, group)}{after}" for group in groups]


@torch.no_grad()
def _scores_of_folder(
    folder: Path, texts: list[str], offset: float, device: torch.device
) -> Tensor:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto").to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    output = model.eval()(
        input_ids=inputs.input_ids.to(device), attention_mask=inputs.attention_mask.to(device)
    )
    scores: Tensor = output.logits[:, 0].float().cpu() + offset
    return scores


def _usage(framing: tuple[str, str], offset: float, difference: float, is_plain: bool) -> str:
    """How to score with the folder, as Markdown."""
    before, after = framing
    start, end = f"{before!r} + " if before else "", f" + {after!r}" if after else ""
    rendered = "chat" if is_plain else "tokenizer.apply_chat_template(chat, tokenize=False)"
    render = f"[{start}{rendered}{end} for chat in chats]"
    chat = '[{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4."}]'
    if is_plain:
        chat = '"2 + 2? 4."'
    constant = " + model.config.score_offset" if offset else ""
    code = (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        'folder = "."  # this folder, or its name on the hub\n'
        "model = AutoModelForSequenceClassification.from_pretrained(folder).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        f"chats = [{chat}]\n"
        f"texts = {render}\n"
        'inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")\n'
        f"print((model(**inputs).logits[:, 0]{constant}).tolist())\n"
    )
    checked = f"Checked: a score differs by at most {difference:.2g} from the run's."
    return f"```python\n{code}```\n\n{offset_note(offset)}{checked}"


def offset_note(offset: float) -> str:
    """What is not in the weights, as a sentence; empty if all is."""
    if not offset:
        return ""
    return (
        f"The class has no bias to hold the constant of the normalisation: add {offset:.6g} (`score_offset` in "
        "config.json) to a logit for the normalised score; differences and rankings need no constant. "
    )
