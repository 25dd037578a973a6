"""Sweeps and evaluations in TensorBoard, MLflow, and Weights & Biases."""
