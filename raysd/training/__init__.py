"""Classifiers: ingest of images, backbones, recipes, and the data-parallel train loop."""
