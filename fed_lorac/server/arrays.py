"""The global model as Flower's arrays, kept current for who started the rounds. Knows Flower's records; not frames."""

from collections.abc import Collection, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord

from fed_lorac.aggregation.delta_sum import DeltaSum
from fed_lorac.errors import ConfigError

__all__ = ["advanced", "fitting"]


def fitting(arrays: ArrayRecord, adapted: Collection[str]) -> ArrayRecord:
    """These arrays, where they hold every tensor that is adapted, or nothing; else ConfigError."""
    missing = [name for name in adapted if name not in arrays]
    if arrays and missing:
        raise ConfigError(
            f"Arrays to be kept current hold every tensor that is adapted; {missing[0]!r} is missing, of "
            f"{len(missing)}. Start with ArrayRecord(model.state_dict()) of the plain base, or with none."
        )
    return arrays


def advanced(arrays: ArrayRecord, gained: Mapping[str, DeltaSum]) -> ArrayRecord:
    """W_{t+1} = W_t + D for each of the arrays, in its own dtype; what is not adapted stays."""
    after = ArrayRecord(dict(arrays))
    for name in arrays.keys() & gained.keys():
        before = arrays[name].numpy()
        after[name] = Array(np.add(before, gained[name].dense().numpy()).astype(before.dtype))
    return after
