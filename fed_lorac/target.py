"""What reaching an accuracy took. Knows a ledger's rows of rounds; not models, cameras or messages."""

from collections.abc import Sequence

from fed_lorac.ledger import Row

__all__ = ["reached"]

_OURS = ("uplink_message_bytes", "downlink_message_bytes")
_FULL = ("full_uplink_message_bytes", "full_downlink_message_bytes")


def reached(accuracy: float, rows: Sequence[Row]) -> dict[str, float | None]:
    """What it took until a measured round first reached `accuracy`: rounds, bytes, those of full fine-tuning's messages
    in the same rounds, and simulated seconds; each None where it was never reached."""
    at = next((i for i, row in enumerate(rows) if (row["accuracy"] or 0.0) >= accuracy), None)
    until = [] if at is None else rows[: at + 1]

    def total(*columns: str) -> float | None:
        return sum(row[column] for row in until for column in columns) if until else None

    return {
        "accuracy": accuracy,
        "rounds": len(until) or None,
        "bytes": total(*_OURS),
        "full_bytes": total(*_FULL),
        "simulated_s": total("round_time_s"),
    }
