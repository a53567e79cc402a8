"""What every strategy shares: frames, replies, the way down."""
