"""What reaching an accuracy took. Knows a ledger's rows of rounds; not models, cameras or messages."""

from collections.abc import Sequence
from typing import Any

from fed_lorac.records.ledger import Row

__all__ = ["reached"]

_OURS = ("uplink_frame_bytes", "downlink_frame_bytes")
_FULL = ("full_uplink_frame_bytes", "full_downlink_frame_bytes")
_FULL_FP32 = ("full_fp32_uplink_frame_bytes", "full_fp32_downlink_frame_bytes")


def reached(accuracy: float, rows: Sequence[Row]) -> dict[str, float | None]:
    """What it took until a measured round first reached `accuracy`: rounds, bytes, those of full fine-tuning's
    frames in the same rounds (same codec, and fp32), simulated seconds, and joules of all cameras; each None
    where it was never reached, or where an older ledger has no such column."""
    at = next((i for i, row in enumerate(rows) if (row["accuracy"] or 0.0) >= accuracy), None)
    until = [] if at is None else rows[: at + 1]

    def total(*columns: str) -> float | None:
        known = until and all(column in until[0] for column in columns)
        found: list[Any] = [row[column] for row in until for column in columns] if known else [None]
        return None if None in found else sum(found)

    return {
        "accuracy": accuracy,
        "rounds": len(until) or None,
        "bytes": total(*_OURS),
        "full_bytes": total(*_FULL),
        "full_fp32_bytes": total(*_FULL_FP32),
        "simulated_s": total("round_time_s"),
        "energy_j": total("energy_radio_j", "energy_compute_j"),
        "full_fp32_energy_j": total("full_fp32_energy_radio_j", "energy_compute_j"),
    }
