"""Counts of what a step asks of a GPU, on a CPU: gates that no clock decides."""
