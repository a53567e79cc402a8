"""Who is told how a study goes. Knows trials; not who looks at them, nor where."""

from fed_lorac.studies.definition import Trial

__all__ = ["StudyWatch"]


class StudyWatch:
    """Told how a study goes; this one says nothing."""

    def begin(self, trials: int, done: int, work: float) -> None:
        """So many runs are to be, of which so many are finished, and the others are so much work (see `work_of`): at
        the beginning, and again where tuning goes on or is over."""

    def started(self, trial: Trial) -> None:
        """A run begins."""

    def ended(self, trial: Trial, error: str | None, work: float) -> None:
        """A run ended, or failed with this error; so much work is done with it."""
