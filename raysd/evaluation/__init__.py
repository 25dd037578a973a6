"""How good a classifier is: real test pictures, transfer probes, and statistics."""
