"""raysd: synthetic clones of image-classification data sets, drawn, trained on and measured with Ray."""

__version__ = "0.1.0"
