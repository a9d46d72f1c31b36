"""Trackio, a local dashboard in the manner of W&B, as a logger of Lightning; Lightning itself has none."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Log to trackio; ``trackio show`` opens the dashboard.

    Args:
        project: where the run is listed.
        run_name: of the run in the project.
    """

    def __init__(self, project: str, run_name: str | None = None) -> None:
        super().__init__()
        self.project, self.run_name = project, run_name
        self._settings: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str | None:
        """The run."""
        return self.run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of trackio, which the first access begins."""
        if self._run is None:
            import trackio

            self._run = trackio.init(
                project=self.project, name=self.run_name, config=self._settings, embed=False
            )
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Keep the settings for the beginning of the run; trackio takes them only there."""
        settings = vars(params) if isinstance(params, Namespace) else params
        self._settings.update({name: str(value) for name, value in settings.items()})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send the metrics of a step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run, once all that was logged is written."""
        if self._run is not None:
            self._run.finish()
            self._run = None
