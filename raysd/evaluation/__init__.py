"""Evaluation of classifiers: real test images, transfer probes, and statistics."""
