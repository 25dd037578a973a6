"""Captions that a language model writes for classes, as a table of texts for prompts."""
