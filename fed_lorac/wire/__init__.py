"""What crosses the radio: frames as bytes, and what a message with one weighs."""
