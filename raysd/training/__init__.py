"""Training: ingest of images, recipes, and the data-parallel train loop."""
