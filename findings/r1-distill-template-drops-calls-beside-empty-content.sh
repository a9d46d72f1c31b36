#!/bin/sh
# trl 1.16.0 (chat_templates/deepseek_r1_distill.jinja), rendered by transformers 5.23.0.
# An assistant turn that only calls a tool may have "content": null or "content": ""; both are common in data.
# Expected: the same text. Seen: with null the call is written, with "" it vanishes without an error, and the turn is
# empty but for its end. Besides, a turn with one call (content null) has no end at all, one with two calls has: the
# closing marks are written after the second call only. A model trained on single calls never learns to end them.
# Source: trl/chat_templates/deepseek_r1_distill.jinja.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 jinja2==3.1.6
env/bin/pip download --quiet --disable-pip-version-check --no-deps trl==1.16.0
env/bin/python - <<'PY'
import glob
import zipfile

from transformers.utils.chat_template_utils import render_jinja_template

[wheel] = glob.glob("trl-*.whl")
with zipfile.ZipFile(wheel) as archive:
    template = archive.read("trl/chat_templates/deepseek_r1_distill.jinja").decode()
call = {"type": "function", "function": {"name": "look_up", "arguments": '{"word": "owl"}'}}
seen = {}
for content in (None, ""):
    for number in (1, 2):
        answer = {"role": "assistant", "content": content, "tool_calls": [call] * number}
        turns = [{"role": "user", "content": "What is an owl?"}, answer]
        [text] = render_jinja_template([turns], chat_template=template)[0]
        seen[content, number] = text.count("look_up"), text.endswith("<｜end▁of▁sentence｜>")
print(seen)
assert seen == {(None, 1): (1, False), (None, 2): (2, True), ("", 1): (0, True), ("", 2): (0, True)}
PY
