"""Low-rank algebra on tensors alone."""
