"""Asks nets about many images: read ahead in threads, answered batch by batch.

Enters: a Predictor, images as bytes by name, one after another. Leaves: what a function makes of
each image and its answer, in the same order. An image that cannot be read has a reason instead of
an answer and stops no other.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np

from datasets.pictures import read_image
from deploy.predictor import Prediction, Predictor

Made = TypeVar("Made")


class Readable(Protocol):
    """An image whose bytes are read when they are wanted."""

    name: str
    shown: str  # its path as the user knows it

    def read(self) -> bytes:
        """Its bytes; OSError or ValueError where they cannot be had."""


@dataclass(frozen=True, eq=False)
class Asked:
    """An image and what the nets say of it."""

    source: Readable
    digest: str  # SHA-256 of its bytes; empty where there are none
    image: np.ndarray | None  # uint8 (H, W, 3)
    said: Prediction | None
    reason: str = ""  # why image and said are None


def ask(
    predictor: Predictor,
    sources: Iterable[Readable],
    batch_size: int,
    finish: Callable[[Asked], Made],
) -> Iterator[Made]:
    """What `finish` makes of each image.

    Images are taken from `sources` one batch ahead, in this thread; they are read and finished in
    other threads, while the nets compute. Errors of `read` that are neither OSError nor ValueError,
    and those of `finish`, end the work.
    """
    with ThreadPoolExecutor() as threads:
        left = iter(sources)
        following = list(threads.map(read, islice(left, batch_size)))
        finished: Iterator[Made] = iter(())
        while following:
            batch = following
            futures = [threads.submit(read, source) for source in islice(left, batch_size)]
            asked = _answered(predictor, batch, batch_size)
            yield from finished  # of the batch before, while the nets were asked for this one
            finished = threads.map(finish, asked)
            following = [future.result() for future in futures]
        yield from finished


def digest_of(content: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read(source: Readable) -> tuple[Readable, str, np.ndarray | str]:
    """The source, the digest of its bytes, and the image or why there is none."""
    digest = ""
    try:
        content = source.read()
        digest = digest_of(content)
        return source, digest, read_image(content)[0]
    except (OSError, ValueError) as error:
        return source, digest, str(error)


def _answered(predictor: Predictor, batch: Sequence[tuple], batch_size: int) -> list[Asked]:
    images = [image for _, _, image in batch if not isinstance(image, str)]
    answers: Iterator[Prediction] = iter(())
    if images:
        # filled up, so that the nets see batches of one size only
        filled = images + images[:1] * (batch_size - len(images))
        answers = iter(predictor.predict_batch(filled))
    return [
        Asked(source, digest, None, None, image)
        if isinstance(image, str)
        else Asked(source, digest, image, next(answers))
        for source, digest, image in batch
    ]
