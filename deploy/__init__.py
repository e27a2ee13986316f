"""Trained nets for images of one's own: answers, how sure they are, pages to look at."""
