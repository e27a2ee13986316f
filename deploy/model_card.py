"""Model cards of bundles and of trainings: what the nets are, and for what they may be used.

Enters: the trainings, of a bundle the content of bundle.json, the files that the eval and tune
scripts wrote.
Leaves: `MODEL_CARD.md`, Markdown that begins with the metadata that the Hugging Face hub reads.
Nothing in it is known in advance but the licences of the data sets and the intended use.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from datasets.challenge import spelt_out
from datasets.synthetic.plan import LICENSE as DRAWN
from datasets.tasks import TASKS, script
from deploy.answers import NOT_FOR_DIAGNOSIS
from deploy.load import Trained
from deploy.nets import TAKES
from evaluation import tuned
from evaluation.scores import read_scores
from inference.ensemble import Ensemble
from inference.inputs import open_dataset_of
from inference.scope import Scope
from misc_utils.errors import UserError
from misc_utils.files import write_text
from reports import facts
from reports.pages import format_fact, readable

log = logging.getLogger(__name__)

NAME = "MODEL_CARD.md"
# {data set: {task: licence}}, as the pages of the data sets say; by the names of the hub
LICENCES = {
    "isic2018": {1: "cc0-1.0", 2: "cc0-1.0", 3: "cc-by-nc-4.0"},
    "isic2019": {3: "cc-by-nc-4.0"},
    "isic2020": {3: "cc-by-nc-4.0"},
    "ham10000": {1: "cc-by-nc-4.0", 3: "cc-by-nc-4.0"},
}
STRICTEST = ("cc-by-nc-4.0", "cc0-1.0")  # of several the first holds for the whole
UNKNOWN = "other"
SAID = ("LICENSE.txt", "ATTRIBUTION.txt")  # beside the images of a release
LONGEST = 4000  # characters of such a file that are quoted
EVALUATED = ("fold", "validation", "test")

INTENDED = (
    "Research on images of skin lesions taken with a dermatoscope: to compare methods, to study "
    "how such nets fail, to teach.",
    "Not for a decision about a patient, by anybody: neither to tell what a lesion is, nor to tell "
    "that nothing is wrong, nor to choose who is seen first.",
)
UNLIKE = (
    "Each image gets its distance to the nearest of the training images, in thresholds that 5 % of "
    "the images held out passed. Above 1 it is called unlike the training images: do not rely on "
    "the answer. Below 1 the answer can be wrong all the same. For this features of training "
    "images are kept with the nets: numbers, no pictures."
)
# of the files of a bundle, by their format: what the hub calls the library, and in words
FILES = {"onnx": ("onnx", "ONNX files"), "litert": ("tflite", "LiteRT files (.tflite)")}
KINDS = {1: "image-segmentation", 2: "image-segmentation", 3: "image-classification"}


class Licence(NamedTuple):
    """Under what the training data may be used."""

    name: str | None  # as the hub names it; None: not known here
    texts: Mapping[str, str]  # {name of a file beside the images: what it says}


def write_for(runs: Ensemble, root: Path) -> Path:
    """Write the card of trainings into their folder, beside their reports; its file.

    `root` is that of data/.
    """
    masks = TASKS[runs.task].kind == "masks"
    trained = Trained(runs, None) if masks else Trained(None, runs)
    return write(runs.folder, trained, None, find_licences(trained, root))


def write(
    folder: Path,
    trained: Trained,
    content: Mapping[str, Any] | None,
    licences: Mapping[str, Licence],
) -> Path:
    """Write the card of nets into a folder; its file.

    Args:
        folder: of the bundle or the trainings.
        trained: the trainings.
        content: of bundle.json; None: the card is of the trainings themselves.
        licences: see find_licences.
    """
    title = "Skin lesions: " + " and ".join(
        TASKS[runs.task].what.removeprefix("lesion ") for runs in trained.both
    )
    lines = [
        *_front_matter(trained, content, [licence.name for licence in licences.values()]),
        f"# {title}",
        f"**{NOT_FOR_DIAGNOSIS}**",
        *_nets(trained, content),
        "## Intended use",
        _listed(INTENDED),
        "## Training data",
    ]
    for runs in trained.both:
        lines += _data(runs, licences[runs.name])
    lines.append("## Scores")
    for runs in trained.both:
        lines += _scores(runs)
    lines.append("## Calibration and rules")
    for runs in trained.both:
        lines += _tuned(runs) if runs.task != 2 else ["Masks of attributes are not tuned."]
    if trained.classifier is not None:
        lines += ["## Images unlike those of the training", UNLIKE]
    lines += ["## What was not tested", _listed(_limits(trained)), "## How it was made"]
    lines += _made(trained, content)
    file = folder / NAME
    write_text(file, "\n\n".join(lines) + "\n")
    return file


def _front_matter(
    trained: Trained, content: Mapping[str, Any] | None, licences: Sequence[str | None]
) -> list[str]:
    """The metadata that the hub reads, YAML between two lines of dashes."""
    known = [name for name in STRICTEST if name in licences]
    licence = known[0] if known and None not in licences else UNKNOWN
    kinds = [KINDS[runs.task] for runs in trained.both]
    measures = [name for runs in trained.both for name in TASKS[runs.task].measures]
    rows: dict[str, Any] = {"license": licence}
    if licence == UNKNOWN:
        rows |= {"license_name": "see-training-data", "license_link": NAME}
    library = FILES[content["net_format"]][0] if content else "keras"
    rows |= {"library_name": library, "pipeline_tag": kinds[-1]}
    rows["tags"] = [*dict.fromkeys((*kinds, library, "keras"))]
    rows["tags"] += ["dermatology", "dermoscopy", "skin-lesion", "research"]
    rows["datasets"] = list(dict.fromkeys(runs.dataset for runs in trained.both))
    rows["metrics"] = measures
    lines = ["---"]
    for key, value in rows.items():
        if isinstance(value, str):
            lines.append(f"{key}: {_quoted(value)}")
        else:
            lines += [f"{key}:", *(f"- {_quoted(entry)}" for entry in value)]
    return ["\n".join([*lines, "---"])]


def _quoted(text: str) -> str:
    """A text as YAML takes it, which takes all that JSON does."""
    plain = text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return text if plain and not text[0].isdigit() else json.dumps(text)


def _nets(trained: Trained, content: Mapping[str, Any] | None) -> Iterator[str]:
    if content:
        yield (
            f"{FILES[content['net_format']][1]} of nets that were trained with Keras. Each takes "
            f"{TAKES}. `bundle.json` says what else an answer depends on; `runs/predict.py "
            f"--bundle` of the repository that wrote it, and `deploy/bundle.py` from Python, do "
            f"all of it."
        )
        halves = [(content[half] or {"nets": ()})["nets"] for half in ("masks", "classes")]
        nets = {net["name"]: net for nets in halves for net in nets}
    else:
        yield (
            f"Weights of Keras nets, each in the folder of its run. Each net takes {TAKES}. "
            f"`runs/predict.py` of the repository that wrote them, and `deploy/load.py` from "
            f"Python, build the nets and ask them about images."
        )
        nets = {
            run.name: {
                "image_size": run.image_size,
                "preprocessing": run.steps,
                "lesion_view": run.settings.get("lesion_view", "whole"),
                "file": f"{run.folder.name}/{run.weights.name}",
            }
            for runs in trained.both
            for run in runs.runs
        }
    rows = [
        (
            run.name,
            TASKS[runs.task].what,
            nets[run.name]["image_size"],
            nets[run.name]["preprocessing"],
            nets[run.name].get("lesion_view", "whole"),
            f"`{nets[run.name]['file']}`",
        )
        for runs in trained.both
        for run in runs.runs
    ]
    yield _table(("net", "says", "side in pixels", "preprocessing", "sees", "file"), rows)
    if trained.classifier is not None:
        classes = trained.classifier.classes
        yield "Classes, in the order of the outputs: " + "; ".join(
            _plain(_named(name, classes)) for name in classes
        )


def _named(name: str, classes: Sequence[str]) -> str:
    """A class, its abbreviation spelt out where that is known."""
    return ", ".join(filter(None, (name, spelt_out(classes).get(name))))


def find_licences(trained: Trained, root: Path) -> dict[str, Licence]:
    """The licence of the training data of each half, by its name."""
    return {runs.name: _licence(runs, root) for runs in trained.both}


def _licence(runs: Ensemble, root: Path) -> Licence:
    licence = LICENCES.get(runs.dataset, {}).get(runs.task)
    texts = {}
    try:
        folder = open_dataset_of(runs, root / "data").images_folder(runs.task, "training")
        for name in SAID:
            if (folder / name).is_file():
                texts[name] = (folder / name).read_text(encoding="utf-8", errors="replace").strip()
    except (UserError, OSError) as error:
        log.warning("the model card names no licence beside the images: %s", error)
    return Licence(None if DRAWN.strip() in texts.values() else licence, texts)


def _data(runs: Ensemble, licence: Licence) -> Iterator[str]:
    """Counts, split and licence of what a net was trained on."""
    first = runs.runs[0]
    folds = runs.folds[first.name]
    yield f"### {_plain(runs.name)}"
    about = dict(facts.about(Scope(runs, "fold", False), None, len(folds))["Data and folds"])
    about = {"images": f"{len(folds):,}"} | about
    if "lesion" in folds:
        about[f"{first.group}s"] = f"{folds['lesion'].nunique():,}"
    about["licence of the data"] = licence.name or "not known here"
    yield _table(("", ""), about.items())
    if "label" in folds:
        counts = folds["label"].value_counts()
        rows = [
            (_named(name, runs.classes), f"{counts.get(k, 0):,}")
            for k, name in enumerate(runs.classes)
        ]
        yield _table(("class", "images"), rows)
    for name, text in licence.texts.items():
        short = text if len(text) <= LONGEST else text[:LONGEST] + " ..."
        yield f"`{name}` beside the images says:"
        yield "\n".join(f"> {line}" for line in short.splitlines())


def _scopes(runs: Ensemble) -> Iterator[Scope]:
    """All that may have been scored: the whole on each set, and each run alone."""
    alone = [
        replace(
            runs,
            members=((run,),),
            folder=run.folder,
            name=run.name,
            k_folds=(run.k_fold,),
            weight_hashes={run.name: runs.weight_hashes[run.name]},
        )
        for run in runs.runs
        if run.name != runs.name
    ]
    for ensemble in (runs, *alone):
        for eval_set in EVALUATED:
            for tta in (False, True):
                yield Scope(ensemble, eval_set, tta)


def _scores(runs: Ensemble) -> Iterator[str]:
    """Scores with intervals, as the eval script wrote them."""
    found = False
    for scope in _scopes(runs):
        if not scope.ensemble.file(f"scores_{scope.ending}.json").exists():
            continue
        try:
            scores, table = read_scores(scope)
        except UserError as error:
            log.warning("the model card leaves out these scores: %s", error)
            continue
        found = True
        views = ", mean of 8 views" if scope.tta else ""
        held_out = facts.described(scope, sorted(table["fold"].unique()) if scope.held_out else [])
        yield f"### {_plain(scope.ensemble.name)}: {len(table):,} images, {held_out}{views}"
        rows = {name: [scores[name], *ends] for name, ends in scores["intervals_95"].items()}
        yield _measures(rows)
        yield f"In brackets: 95 % intervals, by resampling {_resampled(scope, table)}."
        per_class = scores.get("per_class")
        if per_class:
            measures = list(next(iter(per_class.values())))
            cells = [[_interval(row[name]) for name in measures] for row in per_class.values()]
            head = ("class", *map(readable, measures))
            yield _table(head, [(name, *row) for name, row in zip(per_class, cells, strict=True)])
    if not found:
        yield f"### {_plain(runs.name)}\n\nNot scored: `{script(runs.task, 'eval')}` was not run."


def _resampled(scope: Scope, table: pd.DataFrame) -> str:
    """What the intervals of these scores were found by: an image whose lesion is not known is one.

    `table` has a row per image; earlier ones of masks name no lesions.
    """
    known = "lesion" in table and (table["lesion"] != table.index).any()
    return f"{scope.ensemble.runs[0].group}s, with all their images" if known else "images"


def _measures(rows: Mapping[str, Sequence[float | None]]) -> str:
    pairs = [(readable(name), _interval(row)) for name, row in rows.items()]
    return _table(("measure", "value"), pairs)


def _interval(row: Sequence[float | None]) -> str:
    """Value, low and high as text; they may be missing."""
    value, low, high = (float("nan") if part is None else part for part in row)
    if value != value:
        return "none"
    return facts.interval_text(pd.Series({"value": value, "low": low, "high": high}))


def _tuned(runs: Ensemble) -> Iterator[str]:
    """What was tuned, and what it is worth on images it was not tuned on."""
    yield f"### {_plain(runs.name)}"
    if runs.k_folds is not None:
        yield "Tuned values hold for all folds of a training together: see the card of these."
        return
    what = "probabilities" if TASKS[runs.task].kind == "classes" else "rules for masks"
    for tta in (False, True):
        scope = Scope(runs, "fold", tta)
        views = "8 views" if tta else "1 view"
        try:
            found = tuned.load_tuned(scope)
        except UserError as error:
            log.warning("the model card leaves out tuned values: %s", error)
            yield f"What was tuned for {views} of an image is of other weights than there are now."
            continue
        if found is None:
            told = f"`{script(runs.task, 'tune')}` was not run for {views} of an image"
            yield f"Not tuned: {told}, so {what} are as the nets give them."
            continue
        yield f"Tuned for {views} of an image: {_plain(found)}."
        measures = list(dict.fromkeys(name for rows in found.worth.values() for name in rows))
        rows = [
            (
                how,
                *(
                    _interval(list(rows[name].values())) if name in rows else ""
                    for name in measures
                ),
            )
            for how, rows in found.worth.items()
        ]
        yield _table(("", *map(readable, measures)), rows)


def _limits(trained: Trained) -> list[str]:
    """What the scores say nothing about, of both halves; each once."""
    lines = [line for runs in trained.both for line in facts.limits(Scope(runs, "fold", False))]
    return list(dict.fromkeys(lines))


def _made(trained: Trained, content: Mapping[str, Any] | None) -> Iterator[str]:
    """Settings, versions, weights, and of a bundle how alike the files answer."""
    lists = {}
    if content:
        compared = {readable(key): value for key, value in content["compared"].items()}
        yield "Answers of these files compared with those of Keras:"
        yield _table(("", ""), compared.items())
        if content["half"]:
            yield "Weights are stored as float16."
        lists["Exported with"] = content["made_with"]
    for runs in trained.both:
        about = facts.about(Scope(runs, "fold", False), None, 0)
        about = {
            name: rows for name, rows in about.items() if name not in ("Scored", "Data and folds")
        }
        lists |= {f"{name} ({runs.name})": rows for name, rows in about.items()}
    for name, rows in lists.items():
        yield f"<details><summary>{_plain(name)}</summary>\n"
        yield _table(("", ""), rows.items())
        yield "</details>"


def _table(head: Sequence[str], rows) -> str:
    """A table of Markdown; cells are text or facts."""
    lines = [head, ["---"] * len(head)]
    lines += [[_plain(format_fact(cell)) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: object) -> str:
    """Text in which nothing is taken for Markdown's tables or for HTML."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
