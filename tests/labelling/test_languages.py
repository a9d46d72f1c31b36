"""Words of the annotators' pages in several languages."""

import re
from pathlib import Path

import pytest
import yaml

from lit_align.errors import ConfigError
from lit_align.labelling.campaign import Campaign
from lit_align.labelling.introduction import Introduction, make_examples
from lit_align.labelling.languages import (
    FOLDER,
    built_in_languages,
    choose_language,
    read_language,
    usual_flags,
)
from lit_align.labelling.wording import describe_answer
from lit_align.types import Group, Pair
from tests.labelling.serving import Visitor, make_groups, serving

KINDS = ("compare", "rank", "rate", "thumbs")
TEMPLATES = FOLDER.parent / "templates"
ADMIN_TEMPLATES = {"admin", "link", "notice", "removal", "task_votes", "tasks"}


def test_the_tables_are_complete_and_no_language_repeats_english():
    """Reading a table refuses missing, unknown and malformed words; those that stay English were forgotten."""
    assert built_in_languages() == ["en", "de", "es"]
    english = read_language("en").table
    same_everywhere = {"direction", "seconds", "minutes", "hours", "described_flags", "flags_joint"}
    for code in ("de", "es"):
        table = read_language(code).table
        same = {key for key, text in table.items() if text == english[key]}
        assert same <= same_everywhere | {"role_system"}


def test_annotators_pages_have_no_words_of_their_own():
    """What is left of a template without tags and expressions is punctuation, or a key of the keyboard."""
    for path in TEMPLATES.glob("*.html"):
        if path.stem in ADMIN_TEMPLATES:
            continue
        source = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "", path.read_text(), flags=re.DOTALL)
        source = re.sub(r"<kbd>.*?</kbd>", "", source)
        labels = re.findall(r'(?:aria-label|title|alt|placeholder)="([^"]+)"', source)
        text = re.sub(r"<[^>]*>", "", source)
        assert labels == [], path.name
        assert not re.search(r"[A-Za-z]", text), (path.name, text)


def test_every_word_is_used():
    sources = [*TEMPLATES.glob("*.html"), *FOLDER.parent.glob("*.py")]
    text = "".join(path.read_text() for path in sources)
    built_by_name = ("role_", "flag_", "strength_", *(f"{kind}_question" for kind in KINDS))
    for key in read_language("en").table:
        assert key.startswith(built_by_name) or f'"{key}"' in text, key


@pytest.mark.parametrize(
    ("accepted", "code"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT, en;q=0.5", "de"),
        ("DE-de", "de"),
        ("fr, es;q=0.3, de;q=0.7", "de"),
        ("en;q=0.1, es;q=0.9", "es"),
        ("fr, it", "en"),
        ("de;q=0, es", "es"),
        ("*, de;q=0.5", "en"),
        ("fr, *;q=0.1", "en"),
        ("deutsch", "en"),
        (";;,q=x,de;q=hello,es;q=0.2", "es"),
    ],
)
def test_the_browsers_preference_decides(accepted, code):
    languages = Campaign().words
    assert choose_language(accepted, languages).code == code


def test_a_region_is_served_by_its_language_and_the_other_way_round(tmp_path):
    table = dict(read_language("es").table)
    for code in ("pt", "pt-BR"):
        (tmp_path / f"{code}.yaml").write_text(yaml.safe_dump(table))
    languages = [read_language(str(tmp_path / f"{code}.yaml")) for code in ("pt", "pt-BR")]
    assert choose_language("pt-BR", languages).code == "pt-BR"
    assert choose_language("pt-PT", languages).code == "pt"
    assert choose_language("pt", languages[1:]).code == "pt-BR"


def test_answers_in_words():
    german, spanish = read_language("de"), read_language("es")
    names = ["Antwort 1", "Antwort 2", "Antwort 3"]
    better = describe_answer("compare", {"preference": 1}, names, words=german)
    assert better == "Antwort 2 ist etwas besser"
    ranks = describe_answer("rank", {"places": [2, 1, 2]}, names, words=german)
    assert ranks == "Antwort 2, dann Antwort 1 und Antwort 3"
    answer = {"rating": 3, "flags": {"harmful": True, "violent": False, "own": True}}
    flags = german.flag_texts({**usual_flags(), "own": "is mine", "violent": "is about war"})
    rated = describe_answer("rate", answer, names, flags, german)
    assert rated == "3 von 7; gibt einen Rat, der jemandem schaden könnte; is mine"
    assert flags["violent"] == "is about war"  # the campaign's own words stay
    assert describe_answer("thumbs", {"up": False}, [], words=spanish) == "mala"


EXAMPLE = Group(
    "2 + 2?", ["4", "5"], pairs=(Pair(0, 1),), extra={"explanation": "Zwei und zwei sind vier."}
)


def test_an_annotator_reads_every_page_in_one_language(tmp_path):
    introduction = Introduction("# Lesen\n\nBitte.", make_examples([EXAMPLE], "compare"))
    with serving(tmp_path / "l.db", make_groups(1), introduction=introduction) as (store, port):
        ada = Visitor(port, store.invite("ada"))
        german = {"accept_language": "de-DE,de;q=0.9,en;q=0.8"}
        pages = {path: ada.ask("GET", path, **german)[2] for path in PAGES}
        for path, words in PAGES.items():
            assert '<html lang="de" dir="ltr">' in pages[path], path
            for word in words:
                assert word in pages[path], (path, word)
        english = ada.get("/guidelines")
        assert '<html lang="en" dir="ltr">' in english
        assert "An example shows how it goes." in english
        admin = Visitor(port, store.invite("admin", admin=True))
        status, _, page = admin.ask("GET", "/admin", **german)
        assert status == 200
        assert '<html lang="en" dir="ltr">' in page
        _, _, refused = Visitor(port).ask("GET", "/admin", **german)
        assert "This page opens with the admin link" in refused


PAGES = {
    "/guidelines": (
        "<h1>Anleitung</h1>",
        "Ein Beispiel zeigt, wie es geht.",
        "<strong>0</strong> von 1 erledigt",
    ),
    "/examples/1": (
        "Beispiel 1 von 1.",
        "Welche Antwort ist besser?",
        "<i>Antwort 1 ist </i>viel besser",
        "<kbd>1</kbd> oder <kbd>2</kbd> diese Antwort",
        "Zur Übung antworten",
    ),
    "/mine": ("Meine Antworten", "Noch keine."),
    "/nothing": ("Nicht verfügbar", "Hier ist nichts.", "Weiter"),
    "/task/7": ("Hier ist nichts.",),
}


def test_the_setting_decides_alone_if_it_names_one_language(tmp_path):
    with serving(tmp_path / "l.db", make_groups(1), languages="es", ask="rate") as (store, port):
        ada = Visitor(port, store.invite("ada"))
        _, _, page = ada.ask("GET", "/", accept_language="de")
        assert '<html lang="es" dir="ltr">' in page
        assert "¿Qué tan buena es esta respuesta?" in page
        assert "afirma algo falso" in page
        fields = ada.task()
        assert ada.send(**{**fields, "task": "9"}, verdict="skip") == 409
        _, _, stranger = Visitor(port).ask("GET", "/")
        assert "Esta página se abre con un enlace personal." in stranger


def test_another_language_is_one_file(tmp_path):
    table = {key: f"«{text}»" for key, text in read_language("en").table.items()}
    path = tmp_path / "ar.yaml"
    path.write_text(yaml.safe_dump({**table, "direction": "rtl", "go_on": "<b>&"}))
    settings = {"languages": ["de", str(path)]}
    with serving(tmp_path / "l.db", make_groups(1), **settings) as (store, port):
        ada = Visitor(port, store.invite("ada"))
        _, _, page = ada.ask("GET", "/mine", accept_language="ar-EG,ar")
        assert '<html lang="ar" dir="rtl">' in page
        assert "«My answers»" in page
        assert "&lt;b&gt;&amp;</a>" in page
        assert "«<strong>0</strong> of 1 done»" in page
        assert '<html lang="de"' in ada.get("/mine")


def test_a_browser_shows_its_own_language_and_says_what_a_key_did(tmp_path, browser):
    groups = make_groups(1, size=3)
    with serving(tmp_path / "l.db", groups, ask="rank") as (store, port):
        context = browser.new_context(locale="de-DE")
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/in/{store.invite('ada')}")
        assert page.locator("html").get_attribute("lang") == "de"
        assert page.title() == "Ordnen Sie die Antworten, die beste zuerst."
        page.keyboard.press("1")
        page.keyboard.press("Shift+ArrowDown")
        assert page.locator("#chosen").inner_text() == "Antwort 1 ist auf Platz 2"
        context.close()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"undo": None}, "whose undo is None; write a text"),
        ({"direction": "up"}, "whose direction is 'up'; write ltr or rtl"),
        ({"quit": "Quit"}, "whose quit no page shows; leave them out"),
        ({"progress": "{done} done"}, "it needs the names in braces of '{done} of {total} done'"),
        ({"go_on": "{done.real}"}, "whose go_on is '{done.real}'; it needs the names in braces of"),
        ({"noted": "{note"}, "whose noted is '{note'; it needs the names in braces of"),
    ],
)
def test_a_table_with_a_mistake_is_refused(tmp_path, change, sentence):
    path = tmp_path / "fr.yaml"
    path.write_text(yaml.safe_dump({**read_language("en").table, **change}))
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        Campaign(languages=str(path))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("klingon", None, "languages has 'klingon'; give en, de, es, or a YAML file"),
        ("fr.yaml", None, "languages has 'fr.yaml', which cannot be read: "),
        ("fr.yaml", "- a\n", "languages has 'fr.yaml', which is no table of words by key"),
        ("fr.yaml", "a: [", "languages has 'fr.yaml', which cannot be read: "),
        ("fr.yaml", "skip: Sauter\n", "languages has 'fr.yaml', which lacks direction, page,"),
        ("my words.yaml", "a: b\n", "name the file after the code of its language"),
    ],
)
def test_a_language_that_is_none_is_refused(tmp_path, monkeypatch, name, content, sentence):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    read_language.cache_clear()
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        Campaign(languages=[name])


@pytest.mark.parametrize(
    ("accepted", "code"),
    [
        ("en;q=0, fr", "de"),
        ("*, es", "es"),
        ("es;q=0.8;level=1, fr", "es"),
        ("fr", "en"),
        ("en;q=0, de;q=0, es;q=0", "en"),
    ],
)
def test_a_language_that_is_refused_is_the_last_resort(accepted, code):
    languages = [read_language(name) for name in ("en", "de", "es")]
    assert choose_language(accepted, languages).code == code
