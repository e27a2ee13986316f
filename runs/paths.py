"""Where everything lies. Edit root_dir, or set the environment variable ISIC_ROOT.

Importing this module puts the repository on sys.path, so that the scripts work from any directory,
and ends the process with one line where the packages of requirements.txt are not installed.
"""

import importlib.util
import os
import shlex
import sys
from pathlib import Path

repository = Path(__file__).resolve().parents[1]
root_dir = (
    repository  # data/, model_data/ and submissions/ lie under it; the code may lie elsewhere
)

if str(repository) not in sys.path:
    sys.path.insert(0, str(repository))

# tyro stands for all: no other project's environment is likely to have it
if importlib.util.find_spec("tyro") is None:
    environment = repository / ".venv"
    python, folder, requirements = (
        shlex.quote(str(path))
        for path in (sys.executable, environment, repository / "requirements.txt")
    )
    steps = []
    if not environment.is_dir():
        steps.append(f"{python} -m venv {folder}")
    if Path(sys.prefix).resolve() != environment:
        steps.append(f". {folder}/bin/activate")
    if len(steps) != 1:  # else the packages may be there, and the environment is not active
        steps.append(f"{folder}/bin/python -m pip install -r {requirements}")
    sys.exit(
        f"error: {sys.executable} does not have the packages of this project. Run "
        f"`{' && '.join(steps)}`, then the script again."
    )


def root() -> Path:
    """Folder that holds data/, model_data/ and submissions/."""
    return Path(os.environ.get("ISIC_ROOT") or root_dir).expanduser().resolve()


def data_dir() -> Path:
    """Released folders, and the cache built from them."""
    return root() / "data"


def model_data_dir() -> Path:
    """One folder per training run, and pretrained weights."""
    return root() / "model_data"


def pretrained_dir() -> Path:
    """ImageNet weights, for a machine without internet."""
    return model_data_dir() / "pretrained"


def submissions_dir() -> Path:
    """Masks, crops and class tables."""
    return root() / "submissions"
