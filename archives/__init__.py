"""Answers for up to a million images: in parts, by several processes, joined to one table."""
