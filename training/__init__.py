"""Batches and a net in, a run out; the only owner of model_data/."""
