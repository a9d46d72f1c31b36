"""Tasks of ``lit-align evaluate suite``: what is asked of a model, and how its answers are graded; one file each."""

from lit_align.evaluation.suite.base import AskedModel, FileTask, Item, Row, Task

__all__ = ["AskedModel", "FileTask", "Item", "Row", "Task"]
