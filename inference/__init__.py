"""Trained runs in; logits, masks and class tables out."""
