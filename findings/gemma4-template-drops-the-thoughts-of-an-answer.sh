#!/bin/sh
# trl 1.16.0 (its folder chat_templates), rendered by transformers 5.23.0.
# The five Gemma 4 templates that trl ships are gemma4.jinja to gemma4_v5.jinja. Given one user turn and one assistant
# turn with reasoning (under all the names that templates use), expected: the reasoning is in the text, as with Qwen3.
# Seen: the first four write the answer alone, without the reasoning and without a message; only v5 writes it.
# So fine-tuning on reasoning data teaches a model with one of the four to answer without thinking.
# Source: trl/chat_templates/gemma4.jinja to gemma4_v5.jinja.
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

thoughts = {name: "RECALLED" for name in ("reasoning", "reasoning_content", "thinking")}
turns = [{"role": "user", "content": "Which planet?"}, {"role": "assistant", "content": "Jupiter.", **thoughts}]
[wheel] = glob.glob("trl-*.whl")
written = {}
with zipfile.ZipFile(wheel) as archive:
    for name in ("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5", "qwen3"):
        template = archive.read(f"trl/chat_templates/{name}.jinja").decode()
        [text] = render_jinja_template([turns], chat_template=template, bos_token="<bos>")[0]
        assert "Jupiter." in text
        written[name] = "RECALLED" in text
print(written)
lost = dict.fromkeys(("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4"), False)
assert written == {**lost, "gemma4_v5": True, "qwen3": True}
PY
