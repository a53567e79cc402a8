"""What crosses the radio: frames as bytes, and how large a message with one is."""
