"""The bytes that a run will send, in words. Knows numbers; not how they were weighed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

__all__ = ["BytesToCome", "in_words"]


@dataclass(frozen=True)
class BytesToCome:
    """Bytes of frames, if every camera can be reached in every round.

    `replies`: each camera's in a round that it takes part in. `update`: what all are sent after a round. `own`: what a
    camera is sent beside it that is its own or its cluster's, at most; 0 where there is none. The others are of the
    whole run: this one's, with what is cameras' own if that changes in every round, those of full fine-tuning of the
    same model under the same codec, and in fp32. `sent_to`: to whom an update is sent, in words.
    """

    replies: tuple[int, ...]
    update: int
    uplink: int
    downlink: int
    full: int
    full_fp32: int
    own: int
    sent_to: str

    @property
    def total(self) -> int:
        """Up and down."""
        return self.uplink + self.downlink

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "total": self.total}


def in_words(to_come: BytesToCome | None, *, rounds: int, cameras: int, per_round: int) -> Iterator[str]:
    """What will be sent, in lines."""
    who = "all cameras" if per_round == cameras else f"{per_round} of {cameras} cameras"
    yield f"{rounds} round{'s' * (rounds != 1)}, {who} in each."
    if to_come is None:
        yield "Bytes to come are not known until the first round has chosen layers."
        return
    if not to_come.total:
        yield f"Nothing is sent. Full fine-tuning would send {to_come.full_fp32:,} bytes in fp32."
        return
    own = f", with up to {to_come.own:,} more for its own or its cluster's part" if to_come.own else ""
    yield f"A reply {_range(to_come.replies)} bytes, an update {to_come.update:,} bytes {to_come.sent_to}{own}."
    changes = " and its own part, or its cluster's, changes in every round" if to_come.own else ""
    yield (
        f"Bytes to come, if every camera can be reached{changes}: {to_come.uplink:,} up and {to_come.downlink:,} down: "
        f"{to_come.total / to_come.full_fp32:.2%} of full fine-tuning's in fp32, {to_come.total / to_come.full:.2%} of "
        "those under the same codec."
    )


def _range(sizes: tuple[int, ...]) -> str:
    least, most = min(sizes), max(sizes)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
