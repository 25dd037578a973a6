"""Real data sets: the catalog, readers, splits, class maps, and the images of a data set as they are read."""
