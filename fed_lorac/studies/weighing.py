"""The bytes that a study's runs will send, before any is run. Knows trials and sizes; not rounds."""

from collections.abc import Iterable

from fed_lorac.errors import FedLoracError, one_line
from fed_lorac.studies.definition import Trial

__all__ = ["bytes_in_words"]


_SAME_BYTES = ("run.seed", "local.")
"""Settings, or their beginnings, that change no message's size."""


def bytes_in_words(trials: Iterable[Trial]) -> dict[str, str]:
    """Each run's bytes to come by its digest, in words, with both shares of full fine-tuning; or why none are known.

    Runs that differ in their seed or in how cameras train send as many, so one of them is weighed: with weights that
    are drawn, as sizes follow from shapes.
    """
    found: dict[str, str] = {}
    alike: dict[object, str] = {}
    for trial in trials:
        key = tuple(sorted((k, v) for k, v in trial.config.to_flat().items() if not k.startswith(_SAME_BYTES)))
        if key not in alike:
            alike[key] = _weighed(trial)
        found[trial.digest] = alike[key]
    return found


def _weighed(trial: Trial) -> str:
    from fed_lorac.experiment.build import build_experiment, without_weights  # noqa: PLC0415  (PyTorch takes seconds)
    from fed_lorac.simulation.forecast import bytes_to_come  # noqa: PLC0415

    try:
        to_come = bytes_to_come(build_experiment(without_weights(trial.config)))
    except FedLoracError as error:
        return f"bytes not known: {one_line(error)}"
    if to_come is None:
        return "bytes known once layers are chosen"
    most = " at most" if to_come.own else ""
    return (
        f"{to_come.total:,} bytes{most}, {to_come.total / to_come.full_fp32:.2%} of full fine-tuning's in fp32, "
        f"{to_come.total / to_come.full:.2%} under the same codec"
    )
