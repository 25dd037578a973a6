"""raysd: synthetic clones of image-classification data sets, generated, trained on and measured with Ray."""

__version__ = "0.1.0"
