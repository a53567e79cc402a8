"""What a step of a local update lowers, with labels or without. Knows logits, and labels that a camera has; not rounds
or the truth."""
