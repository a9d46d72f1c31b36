"""``lit-align env``: versions and hardware as text for a bug report, without names of people, paths or secrets."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from lit_align._version import __version__
from lit_align.installed_plugins import installed_plugins
from lit_align.installed_versions import installed_version, own_requirements, unfitting_packages

GIB = 1024**3
MAIN_PACKAGES = ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "OMP_NUM_THREADS",
    "HF_HUB_OFFLINE",
    "LIT_ALIGN_PLUGINS",
    "LIT_ALIGN_BLOCK",
    "LIT_ALIGN_STRICT",
)
"""Variables whose values are printed; they hold numbers, words and names of packages."""

GPU_FIELDS = "name,memory.total,memory.used,driver_version,compute_cap"
SECONDS = 10  # that another program may take


def run(arguments: list[str]) -> None:
    """Print a line for each part; one that cannot be read says so and stops no other."""
    argparse.ArgumentParser(
        "lit-align env",
        allow_abbrev=False,
        description="Versions and hardware, to paste into a bug report; no names, paths or secrets.",
    ).parse_args(arguments)
    parts: dict[str, Callable[[], str]] = {
        "lit_align": _own_version,
        "python": _python,
        "system": _system,
        "processor": _processor,
        "memory": _memory,
        "disk": _disk,
        **{name: _version_of(name) for name in MAIN_PACKAGES},
        "others": _other_versions,
        "not fitting": _unfitting,
        "GPU": describe_gpus,
        "plugins": _plugins,
        "variables": _variables,
    }
    for label, describe in parts.items():
        try:
            text = describe()
        except Exception as error:  # of a broken installation, which this should describe
            text = f"unknown ({type(error).__name__})"
        print(f"{label:<13}{text}")


def _own_version() -> str:
    """The version, and the commit if it is a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return __version__
    commit = _output(["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"])
    return f"{__version__} (commit {commit})" if commit else f"{__version__} (checkout)"


def _python() -> str:
    return f"{platform.python_version()} {platform.python_implementation()}"


def _system() -> str:
    parts = [f"{platform.system()} {platform.release()} {platform.machine()}"]
    try:
        parts.append(platform.freedesktop_os_release()["PRETTY_NAME"])
    except OSError:  # no Linux
        parts.append(platform.version())
    return ", ".join([*parts, " ".join(platform.libc_ver())]).rstrip(", ")


def _processor() -> str:
    names = re.findall(r"model name\s*: (.+)", _text(Path("/proc/cpuinfo")))
    name = names[0] if names else platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {usable} cores"


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB available"


def _disk() -> str:
    """Free space where one is, and where models are kept."""
    parts = [f"{shutil.disk_usage('.').free / GIB:.1f} GiB free in this folder"]
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    while not cache.exists():
        cache = cache.parent
    return f"{parts[0]}, {shutil.disk_usage(cache).free / GIB:.1f} GiB for the cache of models"


def _version_of(package: str) -> Callable[[], str]:
    def describe() -> str:
        text = installed_version(package) or "not installed"
        return f"{text}{torch_build()}" if package == "torch" else text

    return describe


def torch_build() -> str:
    """What torch was built for, from its files: importing it would take seconds; empty if it does not say."""
    spec = find_spec("torch")
    file = Path(str(spec and spec.origin)).with_name("version.py")
    for name, label in (("cuda", "CUDA"), ("hip", "ROCm")):
        match = re.search(rf"^{name}\b.*= '(.+)'", _text(file), re.MULTILINE)
        if match:
            return f", built for {label} {match[1]}"
    return ", built for the CPU" if spec else ""


def _other_versions() -> str:
    """The other packages that lit_align needs."""
    texts = []
    for requirement in own_requirements():
        name = re.split(r"[^\w.-]", requirement)[0]
        if ";" not in requirement and name not in MAIN_PACKAGES:  # ; is of an extra
            texts.append(f"{name} {installed_version(name) or 'not installed'}")
    return ", ".join(sorted(texts))


def _unfitting() -> str:
    texts = []
    for package in unfitting_packages(own_requirements()):
        reason = "too old" if package.is_old else "not tested"
        texts.append(f"{package.name} {package.version} is {reason}, {package.requirement}")
    return "; ".join(texts) or "none"


def describe_gpus() -> str:
    """The GPUs that the driver lists, and whether torch can use them."""
    query = ["nvidia-smi", f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"]
    lines = _output(query).splitlines()
    if not lines:
        return "no driver of NVIDIA answers" + (", ROCm may" if "ROCm" in torch_build() else "")
    gpus = []
    driver = ""
    for line in lines:
        name, total, used, driver, capability = (field.strip() for field in line.split(","))
        gpus.append(f"{name}, {total} MiB, {used} MiB in use, compute capability {capability}")
    return f"{'; '.join(gpus)}; driver {driver}; {_torch_and_cuda()}"


def _torch_and_cuda() -> str:
    """Whether torch can use the GPUs; one built for the CPU need not be imported to know."""
    if "CUDA" not in torch_build():
        return "torch cannot use them, since it is not built for CUDA"
    import torch

    if not torch.cuda.is_available():
        return "torch cannot use them; see the version of its CUDA and the driver"
    return f"torch sees {torch.cuda.device_count()}"


def _plugins() -> str:
    names = [f"{package.name} {package.version}" for package in installed_plugins()]
    return ", ".join(names) or "none"


def _variables() -> str:
    texts = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return ", ".join(texts) or "none of those that matter"


def _output(command: list[str]) -> str:
    """What a program prints; nothing if it is missing or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _text(file: Path) -> str:
    return file.read_text("utf-8", errors="replace") if file.is_file() else ""
