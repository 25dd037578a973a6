"""Diffusion models: checkpoints and their families, tokenizers, prompt embeddings, guidance."""
