"""Nets, losses, metrics and weight files of the segmenter and the classifier."""
