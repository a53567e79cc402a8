"""A camera's side of a round."""
