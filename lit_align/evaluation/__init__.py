"""Metrics of judges and win rates of models, comparable with published ones."""
