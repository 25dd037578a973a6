"""Clones and classifiers as repositories of the Hugging Face hub."""
