"""From people in front of a browser to a model that has learned what they prefer."""

import json

from lit_align.cli.main import main
from lit_align.labelling.votes import read_votes
from lit_align.types import Group
from tests.labelling.serving import serving
from tests.labelling.test_browser import reply, settled, visiting
from tests.labelling.test_human import human
from tests.stages.runs import folder_of


def test_three_people_label_and_a_reward_model_and_a_policy_learn(browser, tiny, tmp_path):
    """Ada and Bob find the first answer better; Carl always says the opposite."""
    asked = [[{"role": "user", "content": f"Number {k}?"}] for k in range(10)]
    groups = [
        Group(one, [reply(f"{word} {k}.") for word in ("Good", "Bad")])
        for k, one in enumerate(asked)
    ]
    store, labels = tmp_path / "l.db", tmp_path / "labels.jsonl"
    with serving(store, groups) as (kept, port):
        for name in ("ada", "bob", "carl"):
            with visiting(browser, port, kept.invite(name)) as page:
                for done in range(10):
                    settled(page, done)
                    texts = [one.inner_text() for one in page.locator(".answer .said").all()]
                    (first,) = [k for k, text in enumerate(texts) if text.startswith("Good")]
                    page.keyboard.press("12"[first if name != "carl" else 1 - first])
                    page.keyboard.press("Enter")
                settled(page, 10)
                assert "That was all" in page.content()
        with visiting(browser, port, kept.invite("me", admin=True)) as page:
            page.get_by_label("Labels by").select_option("majority")
            with page.expect_download() as found:
                page.get_by_role("button", name="Download labels").click()
            found.value.save_as(labels)
    assert len(read_votes(store).votes) == 30
    exported = [json.loads(line) for line in labels.read_text().splitlines()]
    assert [row["pairs"][0][:3] for row in exported] == [[0, 1, 1.0]] * 10
    for stage, objective in (("RewardModel", "BradleyTerry"), ("Preference", "DPO")):
        main(human(tiny, labels, tmp_path / stage, store, stage, objective))
        records = (folder_of(tmp_path / stage) / "rounds/0.jsonl").read_text().splitlines()
        for row in map(json.loads, records):
            [[winner, _, sure, margin]] = row["pairs"]
            assert row["responses"][winner][0]["content"].startswith("Good")
            assert (round(sure, 9), round(margin, 9)) == (
                round(2 / 3, 9),
                round(2 / 3, 9),
            )  # a key says 2
            assert row["records"][0]["annotators"] == 3
        assert (folder_of(tmp_path / stage) / "adapter").exists()
