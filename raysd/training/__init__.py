"""Classifiers: images to learn from, backbones, recipes, and the data-parallel train loop."""
