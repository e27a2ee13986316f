"""What was tuned on held-out predictions, stored beside the runs it was tuned for.

Enters: values chosen by runs/seg_tune.py or runs/cls_tune.py. Leaves: `<name>_tuned.json` in the
folder of the training or ensemble, which names the weights it holds for; rules for masks and
probabilities of classes, as tuned.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd

from datasets.tasks import TASKS
from evaluation.calibration import ClassChoice
from evaluation.mask_tuning import MaskChoice
from inference.ensemble import Ensemble
from inference.postprocess import DEFAULT_RULES, PostProcessing
from inference.scope import Scope
from misc_utils.errors import UserError
from misc_utils.files import write_text

FORMAT = 1
Choice = MaskChoice | ClassChoice
RULES = tuple(field.name for field in fields(PostProcessing))


@dataclass(frozen=True, eq=False)
class Tuned:
    """Stored values and what they were found to be worth."""

    file: Path
    chosen: Choice
    worth: Mapping[str, Mapping]  # {how tuned: {measure: {value, low, high}}}

    def __str__(self) -> str:
        pairs = [(key, value) for key, value in self.chosen.to_json().items() if value is not None]
        return ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in pairs)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _from_json(chosen: Mapping, task: int) -> Choice:
    weights = tuple(map(float, chosen["member_weights"]))
    if TASKS[task].kind == "masks":
        rules = {name: chosen[name] for name in RULES if chosen.get(name) is not None}
        return MaskChoice(weights, PostProcessing(**rules))
    factors = chosen["decision_weights"]
    return ClassChoice(
        weights, float(chosen["temperature"]), None if factors is None else tuple(factors)
    )


def keep_gain(
    worth: Mapping[str, pd.DataFrame], measure: str, chosen: Choice, default: Choice
) -> tuple[Choice, dict[str, pd.DataFrame], str]:
    """What is chosen if it gained on folds it was not chosen on, else the default.

    Args:
        worth: see write_tuned; `difference` is that of `tuned on other folds` to `not tuned`.
        measure: what must have gained; the 95 % interval of its difference must not hold 0.
        chosen: from all images.
        default: what holds without a gain.

    Returns:
        the choice; what it is worth, in which what was tried and dropped is named so; and a
        sentence where it was dropped, else "".
    """
    row = worth["difference"].loc[measure]
    gained = row.high < 0 if measure == "negative_log_likelihood" else row.low > 0
    if gained:
        return chosen, dict(worth), ""
    kept = {name.replace("tuned on", "tried on"): table for name, table in worth.items()}
    kept = {"not tuned": kept.pop("not tuned"), "tuned on other folds": worth["not tuned"]} | kept
    said = (
        f"{measure.replace('_', ' ')} did not gain on other folds beyond its interval ("
        f"{row.value:+.3f}, {row.low:+.3f} to {row.high:+.3f}): the defaults stay"
    )
    return default, kept, said


def tuned_file(scope: Scope) -> Path:
    """Where the values for its runs and views lie, whatever set is scored."""
    return scope.ensemble.file(f"tuned{'_tta' * scope.tta}.json")


def write_tuned(scope: Scope, chosen: Choice, worth: Mapping[str, pd.DataFrame]) -> None:
    """Store the values chosen, and tables of what they are worth, in tuned_file.

    Args:
        scope: what they were tuned on.
        chosen: its weights in the order of the members.
        worth: {how tuned: scores (value, low, high) by measure}, among them `tuned on other folds`.
    """
    ensemble = scope.ensemble
    content = {
        "format": FORMAT,
        "weights": dict(ensemble.weight_hashes),
        "chosen": chosen.to_json(),
        "worth": {name: _numbers(table) for name, table in worth.items()},
    }
    ensemble.folder.mkdir(parents=True, exist_ok=True)
    write_text(tuned_file(scope), json.dumps(content, indent=2) + "\n")


def _numbers(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """{measure: {value, low, high}}; None where a number does not exist, as JSON has no nan."""
    rows = table.astype(object).where(table.notna(), None)
    return {str(name): dict(row) for name, row in rows.to_dict("index").items()}


def load_tuned(scope: Scope, wanted: bool = True, has_flag: bool = True) -> Tuned | None:
    """What write_tuned stored; None where nothing was tuned, or nothing is wanted.

    `has_flag`: the script that asks has the flag --no-tuned, which messages then name.

    Raises UserError when it was tuned for other weights: a fold was trained since, or again.
    """
    ensemble, file = scope.ensemble, tuned_file(scope)
    if not wanted or not file.exists():
        return None
    ways = ["delete the file", *(["give --no-tuned"] if has_flag else [])]
    fix = f"Tune again ({scope.command('tune')}), or {' or '.join(ways)}."
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        chosen = _from_json(content["chosen"], ensemble.task)
        found = Tuned(file, chosen, content["worth"])
        if len(chosen.weights) != len(ensemble.members):
            raise ValueError(f"weights of {len(chosen.weights)} trainings")
        weights = content["weights"]
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{file}: cannot be read as tuned values ({error!r}). {fix}") from None
    if weights != ensemble.weight_hashes:
        raise UserError(
            f"{file}: the weights have changed since it was tuned for {', '.join(weights)}, or "
            f"there are other folds. {fix}"
        )
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def load_for_eval(scope: Scope, wanted: bool) -> Choice | None:
    """What an evaluation is to use; None where tuned values are not wanted.

    Raises UserError where they are wanted but missing, or for the folds they were tuned on.
    """
    if not wanted:
        return None
    if scope.ensemble.task == 2:
        raise UserError("masks of attributes (Task 2) cannot be tuned. Leave --tuned out.")
    tune = scope.command("tune")
    if scope.held_out:
        raise UserError(
            f"the values were tuned on these held-out images, so a score on them would be too "
            f"high. What they are worth on folds they were not tuned on: {tune}"
        )
    found = load_tuned(scope)
    if found is None:
        raise UserError(
            f"{tuned_file(scope)} does not exist. Tune first ({tune}), and "
            f"score all folds together, as it tunes for them (--k-fold all)."
        )
    return found.chosen


def choose_rules(settings: Mapping, chosen: MaskChoice | None, task: int = 1) -> PostProcessing:
    """Each rule from the settings where it is not None, else as tuned, else the task's default."""
    flags = {name: settings[name] for name in RULES if settings[name] is not None}
    return replace(chosen.rules if chosen else DEFAULT_RULES[task], **flags)


def member_weights(ensemble: Ensemble, chosen: Choice | None) -> Sequence[float]:
    """Weight of each member: as tuned, else all the same."""
    return list(chosen.weights) if chosen else [1.0] * len(ensemble.members)
