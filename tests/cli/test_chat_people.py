"""``chat --as``: adapters of several people on one base, each found by name."""

import io

import pytest

from lit_align.__main__ import main
from lit_align.cli.chat import parse_options
from lit_align.cli.chat_speakers import find_people, load_speakers
from lit_align.models.adapter_set import Lora
from tests.cli.test_chat import NEW, adapter, printed, transformers_answer, user


@pytest.fixture
def people(tiny, tmp_path):
    """Folders as runs leave them; Ada has two runs."""
    for number, run in enumerate(("ada/9", "ada/10", "b.o.b/0")):
        folder = tmp_path / "people" / run
        folder.mkdir(parents=True)
        adapter(tiny, folder / "adapter", number, Lora(r=4), 0.3)
        base = f"{{path: {tiny}, quantization: none, dtype: float32}}"
        settings = f"model: {{init_args: {{base: {base}, chat_template: null}}}}"
        (folder / "config.yaml").write_text(settings)
    return tmp_path / "people"


def options_of(people, *more):
    return parse_options([f"--people={people}", f"--max_new_tokens={NEW}", *more])


def test_a_name_is_the_newest_run_in_the_folder_of_that_name(people):
    options = options_of(people, "--as=ada", f"--as=eve={people / 'ada/9'}")
    assert find_people(options) == {"ada": str(people / "ada/10"), "eve": str(people / "ada/9")}


def test_each_person_is_answered_by_their_own_adapter_on_one_base(tiny, people):
    speakers = load_speakers(options_of(people, "--as=ada", "--as=b.o.b", "--base"))
    assert [speaker.name for speaker in speakers] == ["ada", "b.o.b", f"{tiny.name}, untrained"]
    assert len({id(speaker.base) for speaker in speakers}) == 1
    folders = [str(people / "ada/10/adapter"), str(people / "b.o.b/0/adapter"), None]
    said = []
    for speaker, folder in zip(speakers, folders, strict=True):
        *_, answer = speaker.answer("", "Who?", temperature=0.0, seed=0)
        expected = transformers_answer(tiny, [user("Who?")], folder)
        assert printed(answer) == printed(expected)
        said.append(answer)
    assert len(set(said)) == 3


def test_one_of_them_may_be_asked_alone(tiny, people, monkeypatch, capsys):
    lines = ["/as ada", "Who?", "/as eve", "/as", "/quit"]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    main(["chat", f"--people={people}", "--as=ada", "--as=b.o.b", f"--max_new_tokens={NEW}"])
    out, notes = capsys.readouterr()
    expected = transformers_answer(tiny, [user("Who?")], str(people / "ada/10/adapter"))
    assert printed(out.rstrip("\n")) == printed(expected)
    assert "nobody here is called eve; there are ada, b.o.b" in notes
    assert "ada and b.o.b now" in notes


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["--as=eve"],
            r"there is no run in .*people/eve for --as eve; .*people has ada, b.o.b; name",
        ),
        (["--as=ada", "--as=ada"], "--as names 'ada' twice"),
    ],
)
def test_a_name_without_a_run_is_refused(people, names, words):
    from lit_align.errors import ConfigError

    with pytest.raises(ConfigError, match=words):
        load_speakers(options_of(people, *names))
