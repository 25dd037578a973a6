"""Data sets: the catalog of real ones, readers, splits, class maps, and the images that training reads."""
