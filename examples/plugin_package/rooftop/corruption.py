"""A corruption: drizzle, short bright streaks that fall the same way over the whole image."""

import numpy as np

__all__ = ["drizzle"]


def drizzle(images: np.ndarray, severity: int, rng: np.random.Generator, *, length: int = 3) -> np.ndarray:
    """Streaks on 1 % of the pixels for each grade of severity, a third of the way to white.

    Args:
        images: uint8 (N, H, W, 3); they may be changed in place.
        severity: 1 to 5.
        rng: where all randomness comes from.
        length: pixels of a streak.
    """
    drops = rng.random(images.shape[:3]) < 0.01 * severity
    streaks = np.zeros_like(drops)
    for step in range(length):
        streaks |= np.roll(drops, step, axis=1)  # downwards
    wet = images + (255.0 - images) / 3
    return np.where(streaks[..., None], wet, images).round().astype(np.uint8)
