"""Training and scoring networks."""
