"""Draws dermoscopy-like lesions into a tree laid out like the released ISIC 2018 one.

Enters: a data folder, counts and a seed. Leaves: JPEG images (RGB), masks (8-bit, mode L, 0/255)
and tables, named as in the release, for the demo and the tests; nobody's skin is shown.
"""

from datasets.synthetic.lesions import LOOKS, Lesion, draw_lesion
from datasets.synthetic.photographs import draw_attributes, draw_photograph
from datasets.synthetic.plan import class_counts
from datasets.synthetic.tree import draw_dataset

__all__ = [
    "LOOKS",
    "Lesion",
    "class_counts",
    "draw_attributes",
    "draw_dataset",
    "draw_lesion",
    "draw_photograph",
]
