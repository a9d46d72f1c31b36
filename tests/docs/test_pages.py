"""The site without building it: links lead somewhere, generated pages have all that they promise."""

import contextlib
import io
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from torch.optim import AdamW

from lit_align.cli.main import main
from lit_align.cli.setting_homes import RUN_SETTINGS
from lit_align.cli.setting_names import parameters_of
from lit_align.coming_from_others import setting_elsewhere
from lit_align.rl.importance import IMPORTANCE_METRICS
from lit_align.rl.rollouts import SAMPLE_METRICS
from lit_align.stages import preference_losses
from tests.docs import coming_from, commands, configuration, findings, metrics, ppo
from tests.docs.hook import ROOT, generated_pages

PAGES = ROOT / "lit_align/docs/pages"
NAV = yaml.safe_load((ROOT / "lit_align/docs/mkdocs.yml").read_text())["nav"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"```yaml\n# (\w+\.yaml)\n(.*?)```", re.DOTALL)


@cache
def pages() -> dict[str, str]:
    """Path -> Markdown of every page, without blocks of code."""
    written = {path.relative_to(PAGES).as_posix(): path.read_text() for path in PAGES.rglob("*.md")}
    both = {**written, **generated_pages()}
    return {path: BLOCK.sub("", text) for path, text in both.items()}


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as mkdocs makes them, and those that it writes itself."""
    names = set(re.findall(r'id="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        names.add(re.sub(r"[-\s]+", "-", name))
    return names


def listed(nav) -> list[str]:
    """Every page that the navigation names."""
    if isinstance(nav, str):
        return [nav]
    return [
        page for part in (nav.values() if isinstance(nav, dict) else nav) for page in listed(part)
    ]


@pytest.mark.parametrize("path", sorted(pages()))
def test_links_of_a_page_lead_somewhere(path):
    for link in LINK.findall(pages()[path]):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        file = (Path("/") / Path(path).parent / target).resolve() if target else Path("/") / path
        name = file.relative_to("/").as_posix()
        if name.startswith("screenshots/"):
            assert (PAGES / name).exists(), link
            continue
        if name.startswith("images/"):
            assert (ROOT / "tests/proofs" / Path(name).name).exists(), link
            continue
        assert name in pages(), f"{path}: {link}"
        assert not anchor or anchor in anchors(pages()[name]), f"{path}: {link}"


def test_the_navigation_has_every_page_but_those_of_the_reference():
    names = listed(NAV)
    assert len(names) == len(set(names))
    assert set(names) <= set(pages())
    beside = set(pages()) - set(names)
    assert beside
    assert all(name.startswith("reference/") for name in beside)


def test_screenshots_are_small_and_all_are_shown():
    pictures = sorted((PAGES / "screenshots").iterdir())
    assert sum(picture.stat().st_size for picture in pictures) < 400_000
    shown = " ".join(pages().values())
    for picture in pictures:
        assert picture.stat().st_size < 80_000
        assert f"screenshots/{picture.name}" in shown


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) < 8000
    for link in LINK.findall(BLOCK.sub("", text)):
        assert link.startswith("https://") or (ROOT / link.partition("#")[0]).exists(), link


def test_the_reference_has_every_setting_of_every_class():
    generated = configuration.pages()
    for cls in configuration.run_classes():
        for name in parameters_of(cls):
            assert f"| `{name}` |" in generated["reference/run.md"]
    top = generated["reference/run.md"].split("## ")[0]
    for name in RUN_SETTINGS:
        assert re.search(rf"\| `{name}` \| `.+` \| `.+` \| \w.+ \|", top), name
    for word, _, classes in configuration.kinds():
        for cls in classes:
            assert f"### {cls.__name__}\n" in generated[f"reference/{word}.md"]


def test_each_command_says_what_its_options_are():
    """The page has a section for each, with every option of the command that a run's YAML does not set."""
    text = commands.page()
    assert len(re.findall(r"^usage: ", text, re.MULTILINE)) == len(commands.COMMANDS)
    for option in (
        "--prompts_per_round",
        "--aggregation",
        "--label_kind",
        "--runs",
        "--gold",
        "--as-classifier",
    ):
        assert re.search(rf"^ +{option}\b", text, re.MULTILINE), option


def test_the_reference_shows_defaults_that_are_made_anew_or_called():
    """Lists and dictionaries of dataclasses; the optimizer, whose numbers are torch's."""
    generated = configuration.pages()
    columns = "`['helpfulness', 'correctness', 'coherence', 'complexity', 'verbosity']`"
    assert f"| `attributes` | `list[str]` | {columns} |" in generated["reference/formats.md"]
    assert "| `patterns` | `list[str]` | `[]` |" in generated["reference/rewards.md"]
    optimizer = AdamW([torch.zeros(1, requires_grad=True)]).defaults
    numbers = ", ".join(
        f"{name}={optimizer[name]}" for name in ("lr", "betas", "eps", "weight_decay")
    )
    assert f"`AdamW({numbers})`" in generated["reference/run.md"]
    assert "see the class" not in "".join(generated.values())


def test_settings_of_runs_are_explained():
    missing = {
        f"{cls.__name__}.{setting.name}"
        for cls in configuration.run_classes()
        for setting in configuration.settings_of(cls)
        if not setting.meaning
    }
    assert not missing


def test_the_glossary_has_what_stages_log():
    names = [*SAMPLE_METRICS, *IMPORTANCE_METRICS]
    for group in ("SIDE", "MARGIN", "SHIFT", "TOKEN"):
        names += getattr(preference_losses, f"{group}_METRICS")
    assert metrics.unknown([*names, "eval_loss", "rewards/Length"]) == []
    assert metrics.unknown(["losss"]) == ["losss"]


def test_all_37_details_are_accounted_for():
    details = [detail for group in ppo.the_37().values() for detail in group]
    assert len(details) == 37
    for detail in details:
        assert ("because" in detail) != ("test" in detail)
        assert "test" not in detail or ppo.find_test(detail["test"]), detail
    assert len(ppo.ours()) >= 30
    assert "`None`" not in ppo.page()


def test_each_finding_has_its_section():
    text = findings.page()
    for path in findings.FOLDER.glob("*.sh"):
        assert f"`sh findings/{path.name}`" in text
        assert re.match(r"\*.*\d+\.\d+.*\*", findings.describe(path)), (
            f"{path} begins with no version"
        )
        assert "\n\nSource: " in findings.describe(path), path


@pytest.mark.parametrize("names", [coming_from.LLAMA_FACTORY, coming_from.AXOLOTL])
def test_every_key_from_elsewhere_has_its_place(names):
    assert [name for name in names if not coming_from.setting(name)] == []


def test_the_runs_from_elsewhere_are_translated_key_by_key_and_parse(tmp_path):
    blocks = dict(YAML.findall((PAGES / "coming_from.md").read_text()))
    for name in ("from_trl", "from_trl_ipo"):
        blocks.pop(f"{name}.yaml")  # tests/peers/test_worked_script.py trains with it
    for name in ("llama_factory", "axolotl"):
        for key in yaml.safe_load(blocks.pop(f"{name}.yaml")):
            assert setting_elsewhere(key), key
        path = tmp_path / f"{name}.yaml"
        path.write_text(blocks.pop(f"from_{name}.yaml"))
        parse("fit", "-c", str(path))
    assert not blocks


def test_the_run_of_the_page_on_rl_parses(tmp_path):
    (block,) = YAML.findall((PAGES / "rl.md").read_text())
    (tmp_path / block[0]).write_text(block[1])
    parse("fit", "-c", str(tmp_path / block[0]))


def test_the_judge_of_the_page_on_line_parses(tmp_path):
    ((name, text),) = YAML.findall((PAGES / "online.md").read_text())
    (tmp_path / name).write_text(text)
    parse("judge", "-c", str(tmp_path / name))


def test_the_suite_of_the_page_on_evaluation_parses(tmp_path):
    """Its tasks are there, with their settings."""
    (block,) = YAML.findall((PAGES / "evaluation.md").read_text())
    (tmp_path / block[0]).write_text(block[1])
    parse("evaluate", "suite", "--runs", "base", "-c", str(tmp_path / block[0]))


def parse(*command: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as stopped:
        main([*command, "--print_config"])
    assert not stopped.value.code
