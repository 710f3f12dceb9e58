"""`fastdrop train`: what dropout does to a network on a data set, shown side by side."""
