"""A page on this machine that answers for an image that is chosen or dropped.

python3 runs/serve.py
python3 runs/serve.py --bundle submissions/bundle --port 8080

It can be reached from this machine alone, keeps nothing and sends nothing elsewhere. Research only:
not for diagnosis.
"""

import logging
import socket
from dataclasses import dataclass

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line

# of uvicorn; names of images are not logged, and headers that a proxy would set are not believed
SERVER = {
    "http": "deploy.page:Connection",
    "log_level": "error",
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "lifespan": "off",
    "ws": "none",
    "timeout_graceful_shutdown": 5,
}


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    segmenter: str | None = None
    """finds the lesion: backbone:version, several joined by +; None: the one that was trained"""
    classifier: str | None = None  # tells the class, named alike
    bundle: str | None = None  # a folder that export.py wrote: answers without Keras
    mask: bool = True  # find the lesion
    classes: bool = True  # tell the class
    tta: bool = False  # test-time augmentation: mean over 8 flips and quarter turns
    port: int = 8000  # of the address, http://127.0.0.1:8000; 0: any that is free
    dataset: command_line.Dataset = "isic2018"  # that the nets were trained on
    batch_size: int = 8  # images per step, where features of the training images are lacking


def main(settings: Settings) -> None:
    from deploy.which_nets import find_nets
    from misc_utils.errors import UserError
    from misc_utils.messages import lacking

    packages = ("starlette", "uvicorn", "python_multipart")
    if said := lacking(packages, "requirements-serve.txt"):
        raise UserError(f"for the page, {said}")
    import uvicorn

    from deploy.page import build_app

    # 1 the address and the nets
    nets, _, load_nets = find_nets(paths.root(), settings)
    with bind(settings.port) as listening:
        predictor = load_nets()
        app = build_app(predictor, nets.names)

        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # of damaged forms

        # 2 serve until Ctrl-C
        print(f"open http://127.0.0.1:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(app, **SERVER)).run(sockets=[listening])


def bind(port: int) -> socket.socket:
    """A socket that this machine alone reaches; UserError where the port is taken."""
    from misc_utils.errors import UserError

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(
            f"--port {port}: cannot be used ({error}). Choose another, or 0 for any that is free."
        ) from None
    return listening


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
