"""Sample images of clones for a report."""
