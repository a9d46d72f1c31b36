"""What pytest must not import to look for examples: TRL takes seconds, and may not be installed."""

collect_ignore = ["trl_side.py"]
