"""Curation: scores of a clone's images, near-duplicates, and the filters that choose among them."""
