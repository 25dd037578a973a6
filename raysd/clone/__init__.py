"""Clones: the plan, the diffusion actor, the shards, the generation job and the data set card."""
