"""Which of the packages in ``plugins/`` has a class, so that a YAML that names it is told what to install."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

PACKAGES = {
    "lit-align-calibration": ("Calibrated",),
    "lit-align-gentle": ("AnchoredSFT", "Curriculum"),
    "lit-align-jury": ("Jury",),
    "lit-align-molecules": ("Atoms",),
    "lit-align-nouns": ("Nouns",),
    "lit-align-nucleus": ("Nucleus",),
    "lit-align-opo": ("OPO",),
    "lit-align-pandalm": ("PandaLM",),
    "lit-align-profanity": ("ProfaneContinuations", "Profanity"),
    "lit-align-vader": ("Vader",),
    "lit-align-zoo": (
        *("AOT", "AOTUnpaired", "APODown", "APOZero", "APOZeroUnpaired", "BatchGRPO", "CPO", "DiscoPOP", "EXO"),
        *("FDPO", "GMPO", "LDDPO", "LengthNormalizedDPO", "MaxRL", "NCA", "OptimalTokenBaseline"),
        *("ReinforcePlusPlus", "RobustDPO", "SAPO", "SPPO", "VESPO", "WPO"),
    ),
}  # fmt: skip
"""Package -> short names of its classes, as their files register them."""


def where_to_get(name: str) -> str:
    """What to install for a class; empty if no package has it.

    Args:
        name: a short name, or the path of a class in one of the packages.

    Example:
        >>> where_to_get("NCA").partition(",")[0]
        'it is in lit-align-zoo'
        >>> where_to_get("lit_align_zoo.nca.NCA") == where_to_get("NCA"), where_to_get("DPO")
        (True, '')
    """
    module, _, class_name = name.rpartition(".")
    for package, names in PACKAGES.items():
        is_in = class_name in names and not module
        if is_in or module.partition(".")[0] == package.replace("-", "_"):
            return f"it is in {package}, {_remedy(package)}"
    return ""


def _remedy(package: str) -> str:
    try:
        distribution(package)
    except PackageNotFoundError:
        return f"which is not installed: pip install plugins/{package} in a checkout of lit_align"
    return "which is installed and not loaded; lit-align plugins and LIT_ALIGN_PLUGINS say why"
