"""What people do on the page, in a real Chromium: with keys, with a pointer, on a phone, without JavaScript."""

import re
from contextlib import contextmanager

import pytest

from lit_align.labelling.introduction import Introduction, make_examples
from lit_align.labelling.votes import read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import make_groups, serving

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
DESK = {"viewport": {"width": 1280, "height": 860}}

BEES = """Bees make **honey**, and with it:

1. wax, for the comb
2. propolis, to seal it
3. royal jelly, for the queen

```python
honey = sum(bee.load for bee in hive)
```

# In short

Honey is *nectar with the water taken out*."""
WASPS = """It depends on the bee. Most of the twenty thousand kinds live alone and make no honey at all; a honey bee
visits some two million flowers for a jar of it."""
SCRIPT = (
    "<script>document.title='taken'</script>"
    """<img src=x onerror="document.title='taken'"> [x](javascript:alert(1))"""
)
HEBREW = "שלום! זוהי תשובה בעברית, עם מספר 42 ועם English באמצע. 🐝🍯 👩🏽‍🚀"
ARABIC = "# عنوان\n\nالنحل يصنع العسل."  # noqa: RUF001 - it is Arabic
LONG = "The bee goes from flower to flower and back to the hive. " * 360
ASK = [
    {"role": "system", "content": "You are a beekeeper."},
    {"role": "user", "content": "What do bees make? 🐝"},
]


def reply(text):
    return [{"role": "assistant", "content": text}]


def ten(size=2):
    """Ten groups, hard ones first."""
    hard = [(BEES, WASPS), (SCRIPT, WASPS), (LONG[:20_000], WASPS), (HEBREW, ARABIC)]
    made = [
        Group(ASK, [*map(reply, pair), *(reply(f"Another {k}.") for k in range(size - 2))][:size])
        for pair in hard
    ]
    return made + make_groups(10 - len(made), size)


@contextmanager
def visiting(browser, port, token, **options):
    """A page that somebody came to by link; what the browser complains of fails the test."""
    context = browser.new_context(**{**DESK, **options})
    page = context.new_page()
    complaints = []
    page.on(
        "console",
        lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            complaints.append(asked.url) if f"127.0.0.1:{port}/" not in asked.url else None
        ),
    )
    page.goto(f"http://127.0.0.1:{port}/in/{token}")
    yield page
    context.close()
    assert complaints == []


def count(page) -> int:
    """Tasks that the page says are done."""
    return int(page.locator(".top strong").inner_text())


def settled(page, done: int) -> None:
    """Wait until so many are done."""
    page.locator(".top strong", has_text=re.compile(f"^{done}$")).wait_for()
    page.wait_for_load_state()  # the keys work from here on


def answers(path):
    return [vote.answer for vote in read_votes(path).votes]


def test_comparing_with_keys(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", ten()) as (store, port),
        visiting(browser, port, store.invite("ada")) as page,
    ):
        assert page.url == f"http://127.0.0.1:{port}/"  # the token is gone from the address
        keys = [
            "1",
            "2",
            "0",
            "11",
            "22",
            "111",
            "ArrowLeft",
            "ArrowRight",
            "2 ArrowRight",
            "1 ArrowLeft",
        ]
        for done, pressed in enumerate(keys):
            settled(page, done)
            for key in pressed.split() if " " in pressed or "Arrow" in pressed else pressed:
                page.keyboard.press(key)
            page.keyboard.press("Enter")
        settled(page, 10)
        assert "That was all" in page.content()
        said = [vote.answer["preference"] for vote in read_votes(tmp_path / "l.db").votes]
        assert said == [-2, 2, 0, -3, 3, -1, -1, 1, 3, -3]
        page.keyboard.press("u")  # and the last is open again, with its answer gone
        page.wait_for_selector("#vote")
        assert count(page) == 9
        assert len(answers(tmp_path / "l.db")) == 9
        page.reload()
        page.keyboard.press("s")
        settled(page, 10)
        assert [vote.verdict for vote in read_votes(tmp_path / "l.db").history[-3:]] == [
            "vote",
            "undo",
            "skip",
        ]


def test_comparing_with_a_pointer_and_changing_an_answer(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", ten()) as (store, port),
        visiting(browser, port, store.invite("ada")) as page,
    ):
        for done in range(10):
            settled(page, done)
            if done == 4:  # chosen but not sent: nothing is recorded
                page.locator(".dot").nth(0).click()
                page.reload()
                assert page.locator("input:checked").count() == 0
            page.locator(".dot").nth(done % 7).click()
            assert page.locator("#chosen").inner_text()
            page.get_by_role("button", name="Answer").click()
        settled(page, 10)
        page.get_by_role("link", name="My answers").click()
        page.locator(".mine a").last.click()
        assert page.locator("input:checked").get_attribute("value") == "-3"
        page.locator(".dot").nth(3).click()
        page.locator("summary").click()
        page.locator("textarea").fill("Both are fine. <b>u</b>")
        page.get_by_role("button", name="Change").click()
        settled(page, 10)
        found = read_votes(tmp_path / "l.db")
        first = [vote for vote in found.history if vote.task == 1]
        assert [(vote.revision, vote.answer["preference"]) for vote in first] == [(1, -3), (2, 0)]
        assert first[1].note == "Both are fine. <b>u</b>"
        assert len(found.votes) == 10


def test_ranking_with_keys_and_by_dragging(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", ten(4), ask="rank") as (store, port),
        visiting(
            browser, port, store.invite("ada"), viewport={"width": 1000, "height": 1400}
        ) as page,
    ):
        for done in range(10):
            settled(page, done)
            if done % 3 == 0:  # the fourth to the top
                page.keyboard.press("4")
                for _ in range(3):
                    page.keyboard.press("Shift+ArrowUp")
            elif done % 3 == 1:
                grip, first = page.locator(".grip").nth(3), page.locator(".answer").nth(0)
                grip.scroll_into_view_if_needed()
                box, to = grip.bounding_box(), first.bounding_box()
                page.mouse.move(box["x"] + 5, box["y"] + 5)
                page.mouse.down()
                for part in range(1, 21):
                    page.mouse.move(
                        box["x"] + 5, box["y"] + 5 + (to["y"] + 2 - box["y"]) * part / 20
                    )
                page.mouse.up()
            else:
                for _ in range(3):
                    page.get_by_label("Move answer 4 up").click()
            assert [page.locator("select").nth(k).input_value() for k in range(4)] == [
                "3-1",
                "0-2",
                "1-3",
                "2-4",
            ]
            page.keyboard.press("Enter") if done % 3 == 0 else page.get_by_role(
                "button", name="Answer"
            ).last.click()
        settled(page, 10)
        for vote in read_votes(tmp_path / "l.db").votes:
            assert vote.answer["places"] == [2, 3, 4, 1]


def test_rating_with_keys_and_with_a_pointer(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", ten(1), ask="rate") as (store, port),
        visiting(browser, port, store.invite("ada")) as page,
    ):
        for done in range(10):
            settled(page, done)
            if done % 2:
                page.locator(".dot").nth(done % 7).click()
                page.get_by_label("gives advice that could hurt").click()
                page.get_by_role("button", name="Answer").click()
            else:
                page.keyboard.press(str(done % 7 + 1))
                page.keyboard.press("e")
                page.keyboard.press("Enter")
        settled(page, 10)
        found = answers(tmp_path / "l.db")
        assert [one["rating"] for one in found] == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
        raised = [[name for name, on in one["flags"].items() if on] for one in found]
        assert raised == [["invents"], ["harmful"]] * 5


def test_thumbs_with_keys_and_with_a_pointer(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", ten(1), ask="thumbs") as (store, port),
        visiting(browser, port, store.invite("ada")) as page,
    ):
        for done in range(10):
            settled(page, done)
            if done % 2:
                page.locator("fieldset.thumbs label").nth(done // 2 % 2).click()
                page.get_by_role("button", name="Answer").click()
            else:
                page.keyboard.press("12"[done // 2 % 2])
                page.keyboard.press("Enter")
        settled(page, 10)
        assert [one["up"] for one in answers(tmp_path / "l.db")] == [
            True,
            True,
            False,
            False,
        ] * 2 + [True, True]


def test_an_impatient_click_is_one_vote(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", make_groups(3)) as (store, port),
        visiting(browser, port, store.invite("ada")) as page,
    ):
        page.locator(".dot").nth(1).click()
        page.get_by_role("button", name="Answer").dblclick()
        settled(page, 1)
        page.go_back()
        page.go_forward()
        assert [vote.revision for vote in read_votes(tmp_path / "l.db").history] == [1]


def test_what_a_model_wrote_is_text(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", ten()) as (store, port),
        visiting(browser, port, store.invite("ada")) as page,
    ):
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        settled(page, 1)
        assert page.title() == "Which answer is better?"
        shown = page.locator(".said", has_text="onerror")
        assert shown.inner_text().strip() == SCRIPT
        assert shown.locator("script, img, a").count() == 0
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        settled(page, 2)
        said = page.locator(".answer .said", has_text="flower to flower")
        assert said.inner_text().strip() == LONG[:20_000].strip()
        assert page.get_by_role("button", name="Answer").is_visible()
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        settled(page, 3)
        for script in ("English", "العسل"):
            end = page.locator(".answer .said", has_text=script).locator("p").first
            assert end.evaluate("one => getComputedStyle(one.closest('.said')).direction") == "rtl"


def test_without_javascript(browser, tmp_path):
    with (
        serving(tmp_path / "l.db", make_groups(4, 3), ask="rank") as (store, port),
        visiting(browser, port, store.invite("ada"), java_script_enabled=False) as page,
    ):
        for place in range(3):
            page.locator("select").nth(place).select_option(str((2, 1, 1)[place]))
        page.get_by_role("button", name="Answer").last.click()
        (vote,) = read_votes(tmp_path / "l.db").votes
        assert vote.answer["places"] == [2, 1, 1]
        page.get_by_role("button", name="Undo").click()
        assert read_votes(tmp_path / "l.db").votes == []
        page.get_by_role("button", name="Skip").click()
        assert [vote.verdict for vote in read_votes(tmp_path / "l.db").history] == [
            "vote",
            "undo",
            "skip",
        ]


def looks(page, folder, name):
    """Keep a picture; nobody is shut out, and nothing sticks out."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    picture = folder / f"{name}.png"
    try:
        page.screenshot(path=picture)
    except playwright.Error:  # Chromium is unable to now and then, on a busy machine
        page.screenshot(path=picture)
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desk", "phone"])
def test_how_it_looks_and_whom_it_shuts_out(browser, tmp_path, artefacts, device, scheme):
    options = {**(PHONE if device == "phone" else DESK), "color_scheme": scheme}
    for kind, size in (("compare", 2), ("rank", 4), ("rate", 1), ("thumbs", 1)):
        path = tmp_path / f"{kind}.db"
        with serving(path, ten(size), ten(size)[:0], ask=kind) as (store, port):
            with visiting(browser, port, store.invite("ada"), **options) as page:
                if scheme == "light":
                    looks(page, artefacts, f"{kind}-first-{device}-{scheme}")
                for done in range(4):
                    settled(page, done)
                    page.keyboard.press("1")
                    if done == 3:
                        looks(page, artefacts, f"{kind}-{device}-{scheme}")
                    page.keyboard.press("Enter")
                settled(page, 4)
                if kind == "compare":
                    page.goto(page.url + "mine")
                    looks(page, artefacts, f"mine-{device}-{scheme}")
                    page.goto(f"http://127.0.0.1:{port}/task/1")
                    looks(page, artefacts, f"change-{device}-{scheme}")
            if kind == "compare":
                with visiting(browser, port, store.invite("me", admin=True), **options) as page:
                    looks(page, artefacts, f"admin-{device}-{scheme}")
                    page.get_by_label("Name").fill("Grace Hopper")
                    page.get_by_role("button", name="Make a link").click()
                    page.wait_for_url("**/admin/link")
                    looks(page, artefacts, f"link-{device}-{scheme}")


SCALE = [
    *("Answer 1 is much better", "Answer 1 is better", "Answer 1 is slightly better"),
    "Both are about the same",
    *("Answer 2 is slightly better", "Answer 2 is better", "Answer 2 is much better"),
]


def check_scale(page, keys_shown):
    """Each circle has its words below it, whole and beside those of the next; screen readers get a sentence."""
    page.locator(".dot").first.scroll_into_view_if_needed()
    boxes = page.locator(".dot b").evaluate_all(
        """labels => labels.map(label => {
            const box = label.getBoundingClientRect();
            const texts = document.createRange();
            texts.selectNodeContents(label.lastChild);
            const words = texts.getBoundingClientRect();
            const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return [words.left, words.right, words.height, label.parentElement.contains(top)];
        })"""
    )
    assert len(boxes) == 7
    assert all(height > 10 and is_on_top for _, _, height, is_on_top in boxes)
    ends = [edge for left, right, _, _ in boxes for edge in (left, right)]
    assert ends == sorted(ends)
    assert ends[0] >= 0
    assert ends[-1] <= page.viewport_size["width"]
    for sentence in SCALE:
        assert page.get_by_role("radio", name=sentence, exact=True).count() == 1
    assert page.locator(".scale .keys").is_visible() == keys_shown


@pytest.mark.parametrize(("device", "scheme"), [("desk", "light"), ("phone", "dark")])
def test_what_surrounds_the_tasks(browser, tmp_path, artefacts, device, scheme):
    options = {**(PHONE if device == "phone" else DESK), "color_scheme": scheme}
    right = [Group("Say hello.", ["Hello!", "Bye!"], (Pair(0, 1),), extra={"explanation": BEES})]
    introduction = Introduction(f"# Look at this\n\n{BEES}", make_examples(right, "compare"))
    with serving(tmp_path / "l.db", ten(), introduction=introduction, votes=1) as (store, port):
        with visiting(browser, port, store.invite("ada"), **options) as page:
            looks(page, artefacts, f"guidelines-{device}-{scheme}")
            page.get_by_role("link", name="Try the example").click()
            page.wait_for_selector("#vote")
            page.wait_for_load_state()
            for key in "sn2":  # there is nothing to skip and no note
                page.keyboard.press(key)
            looks(page, artefacts, f"example-{device}-{scheme}")
            check_scale(page, keys_shown=device == "desk")
            page.keyboard.press("Enter")
            page.wait_for_selector(".verdict")
            looks(page, artefacts, f"verdict-{device}-{scheme}")
            page.get_by_role("button", name="Begin").click()
            settled(page, 0)
            page.locator("summary").click()
            page.locator("textarea").fill("A note. " * 20)
            page.locator(".dot").nth(0).click()
            page.get_by_role("button", name="Answer").click()
            settled(page, 1)
            page.get_by_role("link", name="My answers").click()
            assert page.locator(".mine .choice").inner_text() == SCALE[0]
            looks(page, artefacts, f"mine-with-note-{device}-{scheme}")
            page.get_by_role("link", name="Guidelines").click()
            page.get_by_role("link", name="Go on with the tasks").click()
            settled(page, 1)
        with visiting(browser, port, store.invite("me", admin=True), **options) as page:
            page.get_by_label("More tasks").set_input_files(
                files=[
                    {
                        "name": "a.csv",
                        "mimeType": "text/csv",
                        "buffer": b"prompt,chosen,rejected\nx,y,z\n",
                    }
                ]
            )
            page.get_by_role("button", name="Add").click()
            page.get_by_text("1 tasks added").wait_for()
            page.get_by_role("link", name="Back").click()
            page.get_by_role("link", name="See the tasks").click()
            page.get_by_role("link", name="11 · x").wait_for()
            looks(page, artefacts, f"tasks-{device}-{scheme}")
            page.get_by_role("link", name="With a note").click()
            page.locator(".tasks a").click()
            page.get_by_text("much better").wait_for()
            looks(page, artefacts, f"votes-{device}-{scheme}")
            page.get_by_role("link", name="Campaign").click()
            page.get_by_role("link", name="Remove the votes of ada").click()
            looks(page, artefacts, f"removal-{device}-{scheme}")
            page.get_by_role("button", name="Remove").click()
            page.get_by_text("1 answers of ada no longer count").wait_for()
            page.get_by_role("link", name="Back").click()
            page.get_by_role("button", name="End the campaign").click()
            page.get_by_text("The campaign has ended.").wait_for()
            looks(page, artefacts, f"ended-{device}-{scheme}")
    assert [vote.verdict for vote in read_votes(tmp_path / "l.db").history] == ["vote", "removed"]
