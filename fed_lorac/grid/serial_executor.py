"""The crew of one: this process, one cohort after another. Knows apps and attempts; not Ray, nor what an app does."""

from collections.abc import Generator, Iterable

from fed_lorac.grid.executor import Answer, CohortApp, Job
from fed_lorac.grid.retries import Attempt, Desk, TroubleLog, checked, raised

__all__ = ["Here"]


class Here:
    """A `Crew` that works as its answers are asked for, a job at a time.

    A cohort that raises is asked again camera by camera. One that hangs, or that kills the process, takes the run with
    it: that is what a crew of workers is for.
    """

    def __init__(self, app: CohortApp) -> None:
        self._app, self._log = app, TroubleLog()

    def run(self, jobs: Iterable[Job]) -> Generator[list[Answer], None, None]:
        """Each job's answers, in the order of the jobs; the next job is taken when its answers are asked for."""
        desk = Desk(jobs, ahead=1)
        while (attempt := desk.next()) is not None:
            self._try(desk, attempt)
            if (answers := desk.due()) is not None:
                yield answers

    def _try(self, desk: Desk, attempt: Attempt) -> None:
        try:
            answers = self._app.answer(attempt.visits, attempt.job.shared)
            desk.done(attempt, checked(answers, attempt.visits))
        except Exception as error:
            trouble = raised(error)
            self._log.show(trouble)
            desk.failed(attempt, trouble)

    def close(self) -> None:
        """Nobody to let go."""
