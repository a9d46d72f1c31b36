"""GPU memory: predicted by phase before a run, explained when it runs out."""
