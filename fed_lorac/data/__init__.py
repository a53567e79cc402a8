"""Images: where they come from, which pool each is in, and the weather on them. Knows files and arrays; not cameras."""
