"""Means and covariances of features."""

import numpy as np

ROWS = 8192
"""Images that are summed at once in float64."""


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean [D] and the covariance [D, D] (over N - 1) in float64."""
    num_images, dimensions = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((dimensions, dimensions))
    for start in range(0, num_images, ROWS):
        centered = features[start : start + ROWS] - mean
        covariance += centered.T @ centered
    return mean, covariance / (num_images - 1)
