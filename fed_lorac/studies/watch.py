"""Who is told how a study goes. Knows trials; not who looks at them, nor where."""

from fed_lorac.studies.definition import Trial

__all__ = ["StudyWatch"]


class StudyWatch:
    """Told how a study goes; this one says nothing."""

    def begin(self, trials: int, done: int) -> None:
        """So many runs are to be, of which so many are finished: at the beginning, and again when tuning is over."""

    def started(self, trial: Trial) -> None:
        """A run begins."""

    def ended(self, trial: Trial, error: str | None) -> None:
        """A run ended, or failed with this error."""
