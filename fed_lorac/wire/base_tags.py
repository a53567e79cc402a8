"""Base tags: which base a frame is for, as text in its header. Knows fingerprints and rounds; not tensors.

Both ends of the radio fold `W_{t+1} = W_t + D_t` (METHODS: "Federated algebra"). Their bases are told apart by the
fingerprint of the starting base and the number of the last folded round, never by a hash of folded floats, which may
differ in the last bit between machines.
"""

__all__ = ["global_fingerprint", "personal_fingerprint", "whole_fingerprint"]


def global_fingerprint(base: str, folded_round: int) -> str:
    """The identity of `base` after the update of round `folded_round` (0: none yet) was folded in."""
    return f"{base}@{folded_round}"


def whole_fingerprint(base: str, folded_round: int) -> str:
    """The same for a frame that holds that base itself, not a change of it."""
    return f"{base}=@{folded_round}"


def personal_fingerprint(base: str) -> str:
    """The same for a frame that holds what one camera has beside that base, whatever was folded into it."""
    return f"{base}~"
