"""Intervals, tests and what is within noise."""
