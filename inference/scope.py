"""What an evaluation or a tuning is of: which runs, which set of images, how many views of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets.tasks import script
from inference.ensemble import Ensemble, check_alike, find_ensemble
from inference.tta import VIEWS
from misc_utils.messages import command


@dataclass(frozen=True, eq=False)
class Scope:
    """Runs that were found to be alike, and what they are scored on."""

    ensemble: Ensemble
    eval_set: Literal["fold", "validation", "test"]  # fold: what each run held out
    tta: bool  # the mean over 8 views; else 1 view

    @property
    def held_out(self) -> bool:
        """Whether the images are those that the runs held out."""
        return self.eval_set == "fold"

    @property
    def images_set(self) -> str:
        """The released set that the images are from."""
        return "training" if self.held_out else self.eval_set

    @property
    def views(self) -> int:
        """Views of each image."""
        return VIEWS if self.tta else 1

    @property
    def ending(self) -> str:
        """What the names of its files end in: `fold`, `test_tta` ..."""
        return self.eval_set + "_tta" * self.tta

    def command(self, verb: str) -> str:
        """The command that evaluates (`eval`) or tunes (`tune`) the same runs."""
        flags = [*self.ensemble.flags, *(["--tta"] if self.tta else [])]
        if verb == "eval":
            flags += ["--k-fold", *(self.ensemble.k_folds or ["all"])]
            flags += [] if self.held_out else ["--eval-set", self.eval_set]
        return command(script(self.ensemble.task, verb), *flags)


def find_scope(
    model_data: Path, task: int, settings: Any, k_fold="all", eval_set: str = "fold"
) -> Scope:
    """The scope that a script's settings (dataset, backbone, version, ensemble, tta) name.

    Raises UserError when a run is missing, or when runs differ in folds or data.
    """
    ensemble = find_ensemble(
        model_data,
        task,
        settings.backbone,
        settings.version,
        settings.ensemble,
        k_fold,
        settings.dataset,
    )
    check_alike(ensemble)
    return Scope(ensemble, eval_set, settings.tta)
