"""What is drawn: class tables and prompt variants."""
