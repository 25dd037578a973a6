"""Linear probes and nearest neighbors on frozen features."""
