"""What classifiers minimize beside cross-entropy."""
