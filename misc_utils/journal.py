"""A journal of the images that are done, so that a long piece of work can resume after a kill.

Enters: rows by image id. Leaves: a file of JSON lines, the first of which names what the work
depends on. A line that a kill or a power failure cut is dropped, and its image is done again.
"""

import json
from pathlib import Path
from typing import TextIO

from misc_utils.files import told_of, write_text


class Journal:
    """The rows of the images that are done, {image id: row}, and a file that each is added to.

    Args:
        file: the journal; nothing is written before the first row is added.
        key: names what the rows depend on; a journal with another key is replaced.
        from_scratch: replace the journal in any case.
    """

    def __init__(self, file: Path, key: str, from_scratch: bool = False) -> None:
        self.file, self.key, self.rows = file, key, {}
        self._whole = 0 if from_scratch else self._read()  # bytes of the lines that are valid
        self._opened: TextIO | None = None

    def add(self, image_id: str, row: dict) -> None:
        """Note that an image is done; numbers are read back exactly as they are written."""
        with told_of(self.file):
            if self._opened is None:
                self._opened = self._open()
            self._opened.write(self._line({"image": image_id} | row))
            self._opened.flush()
        self.rows[image_id] = row

    def close(self) -> None:
        """Rewrite the file in order of the ids; call it when everything is done."""
        if self._opened is not None:
            self._opened.close()
        lines = [{"key": self.key}, *({"image": i} | self.rows[i] for i in sorted(self.rows))]
        write_text(self.file, "".join(map(self._line, lines)))

    def _open(self) -> TextIO:
        if self._whole:
            with self.file.open("r+b") as opened:  # the next row begins on a new line
                opened.truncate(self._whole)
        else:
            write_text(self.file, self._line({"key": self.key}))
        return self.file.open("a", encoding="utf-8")

    def _read(self) -> int:
        """Read the rows up to the first line that is cut or damaged; returns their bytes."""
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return 0
        whole, first = 0, True
        for line in content.splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
                if first and row["key"] != self.key:
                    return 0
                if not first:
                    self.rows[row.pop("image")] = row
            except (ValueError, KeyError, TypeError, AttributeError):
                break
            whole, first = whole + len(line), False
        return whole

    @staticmethod
    def _line(row: dict) -> str:
        return json.dumps(row) + "\n"
