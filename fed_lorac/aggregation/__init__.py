"""What a server computes of deltas: pure arithmetic."""
