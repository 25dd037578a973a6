"""Clones: the plan, the generation actor, the shards, the generation job and the data set card."""
