"""Download ImageNet weights into model_data/pretrained, also for machines without internet access.

python3 runs/fetch_weights.py --backbones efficientnet_lite0 densenet121
"""

from dataclasses import dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbones: tuple[Literal[*BACKBONES], ...] = ("densenet169", "densenet201")
    """whose weights to write; a file that is there is left alone"""


def main(settings: Settings) -> None:
    from models.pretrained import fetch_weights

    for backbone in settings.backbones:
        print(fetch_weights(backbone, paths.pretrained_dir()))


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
