"""Scores in; text, charts and HTML pages out."""
