"""The README.md of an exported folder: what was trained on what, how well, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_align.functional.statistics import wilson_interval
from lit_align.models.loading_code import base_code, peft_code, score_code

FIGURES_SHOWN = 40
RANDOM_HEAD = (
    "**This folder is a reward model, and its head is in `head.safetensors`, which only lit-align reads.** "
    "`AutoModelForSequenceClassification` loads the folder without an error and with a *random* head. For that class, "
    "write another folder with `lit-align export RUN FOLDER --as-classifier`."
)


def adapter_card(
    provenance: Mapping[str, Any],
    summary: Mapping[str, Any] | None = None,
) -> str:
    """The card of an adapter's folder.

    Args:
        provenance: the content of ``provenance.json``.
        summary: the content of the run's ``summary.json``, once there is one.
    """
    is_scorer = "score_head" in provenance
    loads = dict(provenance.get("loads", {"path": provenance["base"]}))
    sections = [
        f"# {provenance.get('stage', 'Adapter')} of {base_name(loads['path'])}",
        RANDOM_HEAD if is_scorer else "",
        _origin(provenance, loads),
        *_shared_sections(provenance, summary),
        "## Load it",
        *_loading(provenance, loads, is_scorer),
        *_versions(provenance),
    ]
    return front_matter(loads["path"], "peft") + _join(sections)


def model_card(
    provenance: Mapping[str, Any], summary: Mapping[str, Any] | None, usage: str, library: str
) -> str:
    """The card of a folder with a whole model.

    Args:
        provenance: of the adapter in it.
        summary: the content of the run's ``summary.json``, if there is one.
        usage: how to load it, as Markdown.
        library: that loads it, as the hub calls it.
    """
    loads = dict(provenance.get("loads", {"path": provenance["base"]}))
    sections = [
        f"# {provenance.get('stage', 'Model')} of {base_name(loads['path'])}",
        _origin(provenance, loads).replace(
            "LoRA adapter", "LoRA adapter, merged into the weights,"
        ),
        *_shared_sections(provenance, summary),
        "## Load it",
        usage,
        *_versions(provenance),
    ]
    return front_matter(loads["path"], library) + _join(sections)


def front_matter(base: str, library: str) -> str:
    """The metadata that the hub reads, as YAML between lines of dashes."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=base if is_hub_id(base) else None,
        library_name=library,
        license=base_license(base) or "unknown",
        tags=["lit-align"],
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def base_name(path: str) -> str:
    """The last part of the base's path, which names it in a heading."""
    return path.rstrip("/").rpartition("/")[2]


def is_hub_id(path: str) -> bool:
    """Whether a base's path is its name on the hub."""
    is_local = path.startswith(("package:", "/", ".", "~")) or Path(path).exists()
    return not is_local and path.count("/") <= 1


def base_license(path: str) -> str | None:
    """The licence in the README.md of a local base, if it has one that says."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    file: Any = Path(path).expanduser() / "README.md"
    if is_hub_id(path):
        file = try_to_load_from_cache(path, "README.md")
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return None
    try:
        license_name = ModelCard.load(Path(file)).data.get("license")
    except ValueError:  # metadata that are no YAML
        return None
    return license_name if isinstance(license_name, str) else None


def _origin(provenance: Mapping[str, Any], loads: Mapping[str, Any]) -> str:
    revision = f" at `{loads['revision']}`" if loads.get("revision") else ""
    lines = [
        f"A LoRA adapter for `{loads['path']}`{revision}, trained with "
        f"[lit-align](https://pypi.org/project/lit-align/) {provenance.get('lit_align', '')}.",
        "",
        f"* licence of the base: {base_license(loads['path']) or 'unknown'}; the data may have terms of their own",
    ]
    fields = {
        "objective": provenance.get("objective"),
        "optimizer steps": provenance.get("steps"),
        "quantization in training": loads.get("quantization"),
        "LoRA": provenance.get("lora"),
        "weights of the base (hash)": provenance.get("base_content"),
        "chat template": _template(provenance),
        "turns end with": ", ".join(f"`{token}`" for token in provenance.get("turn_ends", [])),
    }
    lines += [f"* {name}: {value}" for name, value in fields.items() if value not in (None, "")]
    return "\n".join(lines)


def _template(provenance: Mapping[str, Any]) -> str | None:
    if "template" not in provenance:
        return None
    name = provenance.get("chat_template") or "the base's own"
    return f"{name} (hash {provenance['template']}), as in `chat_template.jinja`"


def _shared_sections(provenance: Mapping[str, Any], summary: Mapping[str, Any] | None) -> list[str]:
    sections = []
    if provenance.get("data"):
        sections += ["## Data", _data_table(provenance["data"])]
    if summary is not None:
        sections += ["## Figures", _figures(summary)]
    if provenance.get("settings"):
        settings = json.dumps(provenance["settings"], indent=2, ensure_ascii=False)
        sections += ["## Settings", f"```json\n{settings}\n```"]
    return sections


def _data_table(data: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows by fate, for each split."""
    fates = list(next(iter(data.values()))["fates"])
    lines = [
        f"| split | rows | {' | '.join(fates)} | tokens | scored |",
        "|---" * (len(fates) + 4) + "|",
    ]
    for split, ledger in data.items():
        counts = " | ".join(f"{ledger['fates'][fate]:,}" for fate in fates)
        name = Path(str(ledger["name"])).name
        tokens = f"{ledger['tokens']:,} | {ledger['scored']:,}"
        lines.append(f"| {split} ({name}) | {ledger['rows']:,} | {counts} | {tokens} |")
    return "\n".join(lines)


def _figures(summary: Mapping[str, Any]) -> str:
    """Metrics of the run's last step, and those before and after it; shares of counted pairs with an interval."""
    lines = []
    for name in ("before", "after"):
        metrics = summary.get(name) or {}
        for metric, value in metrics.items():
            if value is not None:
                lines.append(
                    f"* {metric} {name} training: {_with_interval(metric, value, metrics)}"
                )
    for metric, value in list((summary.get("metrics") or {}).items())[:FIGURES_SHOWN]:
        lines.append(f"* {metric}: {value:.4g}")
    return "\n".join(lines) or "None were logged."


def _with_interval(metric: str, value: Any, metrics: Mapping[str, Any]) -> str:
    if not isinstance(value, float):
        return str(value)
    if metric == "pair_accuracy" and metrics.get("pairs"):
        low, high = wilson_interval(value, metrics["pairs"])
        return f"{value:.3f} (95 % interval {low:.3f} to {high:.3f}, {metrics['pairs']} pairs)"
    return f"{value:.4g}"


def _loading(provenance: Mapping[str, Any], loads: Mapping[str, Any], is_scorer: bool) -> list[str]:
    dtype = str(provenance.get("dtype", "float32"))
    if provenance.get("needs_whole_base"):
        loads = {**loads, "quantization": "none"}
    code = base_code(loads, dtype) + (
        score_code(provenance) if is_scorer else peft_code(provenance)
    )
    lines = [f"```python\n{code}```"]
    if provenance.get("needs_whole_base"):
        lines.append(
            "PEFT cannot put this adapter on a base in 4 bits, in which it was trained; lit-align can, and "
            "`lit-align export RUN FOLDER --merge` writes exactly what was trained."
        )
    if loads["path"].startswith("package:") or loads["path"].endswith(".gguf"):
        lines.append(
            f"The base is the GGUF file `{loads['path']}`: programs that load adapters by the name of their base, such "
            "as `AutoPeftModelForCausalLM` and vLLM, do not know it. Load it as above, or merge with "
            "`lit-align export RUN FOLDER --merge`, which writes a folder that they load."
        )
    elif not is_hub_id(loads["path"]):
        lines.append(
            f"The base was the local folder `{loads['path']}`; name the path of your copy."
        )
    reward = "ProcessScore" if provenance.get("step_separator") else "RewardModelScore"
    stage = f"a reward: `model.reward: {reward}`, `model.reward.path: FOLDER`"
    if not is_scorer:
        stage = "the next stage: `model.init_adapter: FOLDER`; to chat: `lit-align chat FOLDER`"
        stop = "`generation_config.json` holds the tokens that end a turn: pass it to `generate`, as above"
        lines.append(f"{stop}, because PEFT takes the base's own.")
    if provenance.get("step_separator"):
        separator = json.dumps(provenance["step_separator"])
        lines.append(
            f"The score is the log-odds that the last step is right; steps are separated by {separator}, and the "
            "end of that is where the steps before are scored."
        )
    lines.append(f"In lit-align as {stage}.")
    return lines


def _versions(provenance: Mapping[str, Any]) -> list[str]:
    versions = provenance.get("versions", {})
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [f"Software: {names}."] if names else []


def _join(sections: list[str]) -> str:
    return "\n\n".join(section for section in sections if section) + "\n"
