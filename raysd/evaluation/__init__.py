"""How good a classifier is: real test images, transfer probes, and statistics."""
