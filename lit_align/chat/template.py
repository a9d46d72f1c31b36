"""A tokenizer's chat template, and its conventions for thoughts, tool calls and content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_align.chat.turns import LEARNED_KEYS, THOUGHTS_END, THOUGHTS_KEYS, split_thoughts
from lit_align.errors import DataError, Malformed
from lit_align.jsonl import parse_json
from lit_align.types import Message

if TYPE_CHECKING:
    from jinja2 import nodes

    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

REMEDY = "set chat_template: chatml, or give a template of your own"
QUESTION, ANSWER, THOUGHTS = (
    "probequestion",
    "probeanswer",
    "probethoughts",
)  # words of no real conversation
CALL_NAME, ARGUMENT, VALUE = "probecall", "probeargument", "probevalue"
GIVEN_VARIABLES = {"messages", "tools", "documents", "add_generation_prompt"}
USER: Message = {"role": "user", "content": QUESTION}
ASSISTANT: Message = {"role": "assistant", "content": ANSWER}


class CallForm(NamedTuple):
    """The form in which a template reads tool calls.

    Args:
        as_text: arguments are JSON text rather than an object.
        flat: a call is ``{"name": ..., "arguments": ...}`` without ``function`` around it.
        null_content: the content of a turn that only calls is null rather than empty.
    """

    as_text: bool = False
    flat: bool = False
    null_content: bool = False


class ChatTemplate:
    """Applies a tokenizer's chat template; what a turn holds is passed in the form that the template reads.

    Args:
        tokenizer: with the chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def render(
        self,
        turns: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text.

        Args:
            turns: of the conversation.
            add_generation_prompt: end with what comes before an answer.
            tools: offered to the assistant.
            template_kwargs: further arguments of the template.

        Raises:
            Malformed: if the template refuses the turns.
            DataError: if there is no chat template.
        """
        converted = [self._convert(turn) for turn in turns]
        return self._apply(converted, add_generation_prompt, tools, template_kwargs)

    def _apply(
        self,
        turns: Sequence[Message],
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise DataError(
                f"the data are conversations and the tokenizer has no chat template; {REMEDY}"
            )
        try:
            rendered = self.tokenizer.apply_chat_template(
                list(turns),
                tools=[_nested_tool(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **(template_kwargs or {}),
            )
        # a template is a program, and fails like one on turns that it was not written for
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise Malformed(f"refused by the chat template: {error}") from error
        return str(rendered)

    # ------------------------------------------------------------------ what the template reads

    @cached_property
    def source(self) -> str:
        """The template's text; of several, all of them."""
        template = self.tokenizer.chat_template or ""
        return "\n".join(template.values()) if isinstance(template, dict) else str(template)

    @cached_property
    def texts(self) -> set[str]:
        """The texts that stand in the template: what it writes as it is, and its quoted strings."""
        from jinja2 import nodes

        tree = _parse(self.source)
        quoted = _constants(tree.find_all(nodes.Const))
        return quoted | {node.data for node in tree.find_all(nodes.TemplateData)}

    @cached_property
    def _names(self) -> tuple[set[str], set[str]]:
        return template_names(self.source)

    def reads_key(self, key: str) -> bool:
        """Whether the template reads this key of turns."""
        return key in self._names[0]

    def reads_variable(self, name: str) -> bool:
        """Whether the template reads this argument."""
        return name in self._names[1]

    @cached_property
    def thoughts_key(self) -> str | None:
        """The key under which the template reads thoughts; None if it writes none from a key."""
        for key in THOUGHTS_KEYS:
            if self.reads_key(key) and THOUGHTS in self._probe(
                [USER, {**ASSISTANT, key: THOUGHTS}]
            ):
                return key
        return None

    @cached_property
    def has_inline_thoughts(self) -> bool:
        """Whether the template itself takes thoughts out of the content, and writes them."""
        if self.thoughts_key is not None or THOUGHTS_END not in self.source:
            return False
        return THOUGHTS in self._probe([USER, {**ASSISTANT, "content": _inline(THOUGHTS, ANSWER)}])

    @cached_property
    def call_form(self) -> CallForm:
        """The form in which the template reads tool calls; the usual one if it reads none."""
        for null_content, flat, as_text in product((False, True), repeat=3):
            form = CallForm(as_text, flat, null_content)
            if self.shows_calls(form):
                return form
        return CallForm()

    def shows_calls(self, form: CallForm) -> bool:
        """Whether the template writes tool calls of this form."""
        rendered = self._probe([USER, _probe_call(form)])
        is_python = f"'{ARGUMENT}': '{VALUE}'" in rendered  # an object that was printed as it is
        return not is_python and all(word in rendered for word in (CALL_NAME, ARGUMENT, VALUE))

    @cached_property
    def _roles_in_parts(self) -> dict[str, bool]:
        """For each role, whether the template wants its content as a list of parts."""
        user = [_in_parts(USER)] if self._wants_parts([], USER) else [USER]
        called = [*user, _probe_call(self.call_form)]
        in_parts = {"user": user != [USER]}
        in_parts["assistant"] = self._wants_parts(user, ASSISTANT)
        in_parts["tool"] = self._wants_parts(called, {**USER, "role": "tool", "content": ANSWER})
        for role in ("system", "developer"):
            turn = {"role": role, "content": ANSWER}
            in_parts[role] = self._wants_parts([], turn, user)
        return in_parts

    def _wants_parts(
        self, before: list[Message], turn: Message, after: Sequence[Message] = ()
    ) -> bool:
        words = turn["content"]
        if words in self._probe([*before, turn, *after]):
            return False
        return words in self._probe([*before, _in_parts(turn), *after])

    def _probe(self, turns: Sequence[Message]) -> str:
        """The turns as they are through the template; empty if it refuses them."""
        try:
            return self._apply(turns)
        except Malformed:
            return ""

    # ------------------------------------------------------------------ turns in the template's form

    def _convert(self, turn: Message) -> Message:
        """The turn with the keys and types that the template reads."""
        hidden = (*LEARNED_KEYS, *THOUGHTS_KEYS)
        converted = {key: value for key, value in turn.items() if key not in hidden}
        thoughts, answer = split_thoughts(turn)
        if turn["role"] == "assistant" and thoughts:
            if self.thoughts_key is not None:
                converted |= {"content": answer, self.thoughts_key: thoughts}
            elif self.has_inline_thoughts:
                converted["content"] = _inline(thoughts, answer)
        if turn.get("tool_calls"):
            converted["tool_calls"] = [
                _convert_call(call, self.call_form) for call in turn["tool_calls"]
            ]
            if not converted["content"] and self.call_form.null_content:
                return {**converted, "content": None}
        return _in_parts(converted) if self._roles_in_parts.get(turn["role"]) else converted


def template_names(source: str) -> tuple[set[str], set[str]]:
    """The keys and attributes that a template reads, and its arguments.

    Example:
        >>> keys, arguments = template_names("{% for m in messages %}{{ m['role'] }}{{ m.content }}{% endfor %}")
        >>> sorted(keys), sorted(arguments)
        (['content', 'role'], ['messages'])
    """
    from jinja2 import meta, nodes

    tree = _parse(source)
    keys = {node.attr for node in tree.find_all(nodes.Getattr)}
    keys |= _constants(node.arg for node in tree.find_all(nodes.Getitem))
    keys |= _constants(node.expr for node in tree.find_all(nodes.Compare))  # 'thinking' in message
    for call in tree.find_all(nodes.Call):
        keys |= _constants(call.args[:1])  # message.get('thinking')
    variables = meta.find_undeclared_variables(tree)
    assigned = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    tested = set()  # a variable that is assigned too, but only if it is not given
    for test in tree.find_all(nodes.Test):
        if test.name == "defined" and isinstance(test.node, nodes.Name):
            tested.add(test.node.name)
    return keys, variables - (assigned - tested)


def _parse(source: str) -> nodes.Template:
    from jinja2 import Environment, TemplateError

    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", source)  # transformers' own tag
    try:
        return Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except TemplateError as error:
        raise DataError(f"the chat template cannot be parsed: {error}; {REMEDY}") from error


def set_template_defaults(
    tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any]
) -> None:
    """Give arguments of a tokenizer's chat template a default, which is saved with the template.

    Args:
        tokenizer: with the chat template, which is changed.
        template_kwargs: the defaults by name.

    Raises:
        DataError: if there is no template, or it does not read an argument.
    """
    if not tokenizer.chat_template:
        raise DataError(f"template_kwargs need a chat template, and there is none; {REMEDY}")
    _, variables = template_names(ChatTemplate(tokenizer).source)
    settable = variables.difference(GIVEN_VARIABLES, tokenizer.special_tokens_map)
    prefix = ""
    for name, value in template_kwargs.items():
        if name not in settable:
            names = ", ".join(sorted(settable)) or "none"
            raise DataError(
                f"the chat template does not read the argument {name!r} of template_kwargs; it reads {names}"
            )
        default = f"{{% set {name} = {value!r} %}}"
        prefix += f"{{% if {name} is not defined %}}{default}{{% endif %}}"
    template = tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {key: prefix + text for key, text in template.items()}
    else:
        tokenizer.chat_template = prefix + template


def _constants(expressions: Iterable[Any]) -> set[str]:
    values = set()
    for expression in expressions:
        value = getattr(expression, "value", None)
        if isinstance(value, str):
            values.add(value)
    return values


def _inline(thoughts: str, answer: str) -> str:
    return f"<think>\n{thoughts}\n{THOUGHTS_END}\n\n{answer}"


def _in_parts(turn: Message) -> Message:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def _nested_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return tool if "function" in tool else {"type": "function", "function": tool}


def _probe_call(form: CallForm) -> Message:
    call = {"type": "function", "function": {"name": CALL_NAME, "arguments": {ARGUMENT: VALUE}}}
    content = None if form.null_content else ""
    return {"role": "assistant", "content": content, "tool_calls": [_convert_call(call, form)]}


def _convert_call(call: dict[str, Any], form: CallForm) -> dict[str, Any]:
    function = dict(call["function"])
    arguments = function["arguments"]
    if form.as_text and not isinstance(arguments, str):
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)
    elif not form.as_text and isinstance(arguments, str):
        function["arguments"] = arguments_from_json(arguments)
    return function if form.flat else {**call, "function": function}


def arguments_from_json(text: str) -> Any:
    """The arguments of a tool call, of which JSON text is given.

    Raises:
        Malformed: if it is no JSON.
    """
    try:
        return parse_json(text or "{}")
    except ValueError as error:
        raise Malformed("the arguments of a tool call are no JSON") from error
