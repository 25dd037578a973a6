"""What guides each image: the guider, weaker predictions, and noise on the prompts' embeddings."""
