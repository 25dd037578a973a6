"""Generation: the pipeline, the actors that run it, and the job that generates the missing shards of a clone."""
