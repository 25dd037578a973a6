"""Generation: the pipeline, the actors that run it, and the job that works off the missing shards of a clone."""
