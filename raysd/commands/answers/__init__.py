"""What the commands return: objects with what was made, where it lies, and how to load it."""
