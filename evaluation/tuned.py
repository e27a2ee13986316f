"""What was tuned on held-out predictions, stored beside the runs it was tuned for.

Enters: values chosen by runs/seg_tune.py or runs/cls_tune.py. Leaves: `<name>_tuned.json` in the
folder of the training or ensemble, which names the weights it holds for; the rules for masks.
"""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from evaluation import calibration
from inference.ensemble import Ensemble
from inference.postprocess import PostProcessing
from misc_utils.errors import UserError
from misc_utils.files import write_text

FORMAT = 1
RULES = ("smoothing", "threshold", "fill_holes", "component")


def tuned_file(ensemble: Ensemble, views: int):
    """Where the values for 1 or 8 views lie."""
    return ensemble.file(f"tuned{'_tta' if views == 8 else ''}.json")


def write_tuned(
    ensemble: Ensemble, views: int, chosen: Mapping, worth: Mapping[str, pd.DataFrame]
) -> None:
    """Store the `chosen` values, and what they were found to be worth.

    `chosen` has `member_weights` in the order of the members, and for Task 1 the rules of
    PostProcessing, for Task 3 `temperature` and `decision_weights`. `worth` holds tables of scores
    (value, low, high for each measure), among them `tuned on other folds`.
    """
    tables = {name: _numbers(table) for name, table in worth.items()}
    content = {
        "format": FORMAT,
        "weights": dict(ensemble.weights),
        "chosen": dict(chosen),
        "worth": tables,
    }
    ensemble.folder.mkdir(parents=True, exist_ok=True)
    write_text(tuned_file(ensemble, views), json.dumps(content, indent=2) + "\n")


def _numbers(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """{measure: {value, low, high}}; None where a number does not exist, as JSON has no nan."""
    rows = table.astype(object).where(table.notna(), None)
    return {str(name): dict(row) for name, row in rows.to_dict("index").items()}


def load_tuned(ensemble: Ensemble, views: int) -> dict | None:
    """`chosen` and `worth` as written; None where nothing was tuned.

    Raises UserError when it was tuned for other weights: a fold was trained since, or anew.
    """
    file = tuned_file(ensemble, views)
    if not file.exists():
        return None
    script = "seg_tune.py" if ensemble.runs[0].record["task"] == 1 else "cls_tune.py"
    mend = f"Run runs/{script} again, or delete the file, or give --no-tuned."
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        weights, chosen, _ = content["weights"], content["chosen"], content["worth"]
        if len(chosen["member_weights"]) != len(ensemble.members):
            raise ValueError(f"weights of {len(chosen['member_weights'])} trainings")
        PostProcessing(**{name: chosen[name] for name in RULES if chosen.get(name) is not None})
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{file}: cannot be read as tuned values ({error!r}). {mend}") from None
    if weights != ensemble.weights:
        raise UserError(
            f"{file}: tuned for {', '.join(weights)} as they were then; now there are other folds "
            f"or weights. {mend}"
        )
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def load_for_eval(ensemble: Ensemble, views: int, wanted: bool, images: str) -> dict | None:
    """What an evaluation is to use; None where tuned values are not wanted.

    Raises UserError where they are wanted but not there, or for the folds they were tuned on.
    """
    if not wanted:
        return None
    script = "seg_tune.py" if ensemble.runs[0].record["task"] == 1 else "cls_tune.py"
    if images == "fold":
        raise UserError(
            f"the values were tuned on these held-out images, a score on them would be too high; "
            f"runs/{script} prints what they are worth on folds they were not tuned on."
        )
    content = load_tuned(ensemble, views)
    if content is None:
        raise UserError(
            f"{tuned_file(ensemble, views)} is not there: run runs/{script} first, and score all "
            f"folds together, as it tunes for them (--k-fold all)."
        )
    return content["chosen"]


def choose_rules(settings: Mapping, chosen: Mapping | None) -> PostProcessing:
    """Each rule from the settings where it is not None, else as tuned, else the default."""
    rules = {name: (chosen or {}).get(name) for name in RULES}
    rules |= {name: settings[name] for name in RULES if settings[name] is not None}
    return PostProcessing(**{name: value for name, value in rules.items() if value is not None})


def described(chosen: Mapping) -> str:
    """The values in a line, such as `smoothing 1.0, threshold 0.45`."""

    def shown(value: object) -> str:
        if isinstance(value, list):
            return " ".join(shown(part) for part in value)
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    pairs = [(name, value) for name, value in chosen.items() if value is not None]
    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in pairs)


def member_weights(ensemble: Ensemble, chosen: Mapping | None) -> list[float]:
    """Weight of each member: as tuned, else all the same."""
    return list(chosen["member_weights"]) if chosen else [1.0] * len(ensemble.members)


def class_probability(log_probability: np.ndarray, chosen: Mapping | None) -> np.ndarray:
    """Probabilities float64 (N, C) of an ensemble's log-probabilities (M, N, C).

    The plain mean of the members where nothing is `chosen`; else by the member weights, the
    temperature and, if any, the decision weights of cls_tune.
    """
    members = len(log_probability)
    if chosen is None:
        blend = calibration.Blend(np.full(members, 1 / members), 1.0)
        return calibration.blend(log_probability, blend)
    blend = calibration.Blend(np.asarray(chosen["member_weights"]), chosen["temperature"])
    probability = calibration.blend(log_probability, blend)
    decision = chosen["decision_weights"]
    return probability if decision is None else calibration.reweigh(probability, decision)
