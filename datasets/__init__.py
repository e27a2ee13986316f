"""Data sets: released or drawn pictures in, batches of arrays for training out."""
