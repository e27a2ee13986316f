"""Logits and truth in; scores, intervals and tuned values out."""
