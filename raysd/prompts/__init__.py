"""What is sampled: class tables and prompt variants."""
