"""Scores as an evaluation stores them: `<name>_scores_<set>.json` and `.csv`, beside the runs.

Enters: settings, scores and a row per image. Leaves: both files; or what is in them, of the weights
there are now.
"""

import json

import pandas as pd

from inference.scope import Scope
from misc_utils.errors import UserError
from misc_utils.files import write_text

TEXT = ("image", "lesion", "truth")  # columns that stay text, also where they look like numbers


def write_scores(scope: Scope, settings: dict, scores: dict, table: pd.DataFrame) -> None:
    """Write settings and scores as JSON, and the table, with a row per image, as CSV."""
    ensemble, name = scope.ensemble, f"scores_{scope.ending}"
    ensemble.folder.mkdir(parents=True, exist_ok=True)
    content = {"weights": dict(ensemble.weight_hashes), "images": len(table)}
    text = json.dumps(content | {"settings": settings} | scores, indent=2)
    write_text(ensemble.file(f"{name}.csv"), table.sort_index().to_csv())
    write_text(ensemble.file(f"{name}.json"), text)


def read_scores(scope: Scope) -> tuple[dict, pd.DataFrame]:
    """What write_scores wrote, the rows indexed by image.

    Raises UserError, naming the command, when it is missing or of other weights.
    """
    files = [scope.ensemble.file(f"scores_{scope.ending}.{kind}") for kind in ("json", "csv")]
    fix = f"Score them: {scope.command('eval')}"
    try:
        content = json.loads(files[0].read_text(encoding="utf-8"))
        table = pd.read_csv(files[1], converters=dict.fromkeys(TEXT, str)).set_index("image")
        weights = content["weights"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{files[0]}: no scores to read ({error!r}). {fix}") from None
    if weights != scope.ensemble.weight_hashes:
        raise UserError(f"{files[0]}: of other folds or weights than there are now. {fix}")
    return content, table
