"""The check of jobs for a process that is one of many: it leaves alone what its own configuration does not fit."""

from __future__ import annotations

from fanout.config.settings import Settings
from fanout.core.errors import RequestError
from fanout.jobs.job import Job
from fanout.jobs.planner import JobPlanner
from fanout.observability.logs import log

MAX_KEPT = 10_000


class ModelCheck:
    """Answers to whether the models of jobs stand here for what they stood for when the jobs were made."""

    # A process that is alone stops such a job and says why. One of many must not: it may be the only one that differs.

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._fits: dict[int, bool] = {}
        """By the job's number: the supervisor looks at every waiting job every two seconds."""

    def fits(self, job: Job, planner: JobPlanner) -> bool:
        """Return whether a job can be run here as it was made; log once why it cannot."""
        settings = planner.dispatcher.settings
        if settings is not self._settings or len(self._fits) > MAX_KEPT:  # it was reloaded
            self._settings = settings
            self._fits.clear()
        if job.number not in self._fits:
            try:
                planner.require_unchanged_models(job)
            except RequestError as error:
                log.warning("job.passed_over", job=job.id, reason=str(error))
                self._fits[job.number] = False
            else:
                self._fits[job.number] = True
        return self._fits[job.number]
