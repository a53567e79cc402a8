"""Who carries the messages: in this process, or Flower's own simulation runtime."""
