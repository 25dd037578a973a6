"""The classifier: its shape, its parts, and its folder on disk."""
