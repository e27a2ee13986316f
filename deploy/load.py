"""From trained runs to a Predictor.

Enters: the root of data/, model_data/ and submissions/, names of trainings. Leaves: a Predictor of
all folds that were trained, with the tuned values there are.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import lesion_crops
from datasets.tasks import DEFAULT, TASKS, flags, script
from deploy.kept_features import keep_features, load_reference
from deploy.nets import Cut, MaskNet, load_class_net, load_mask_net
from deploy.predictor import Predictor
from evaluation import calibration, tuned
from inference.ensemble import Ensemble, check_unchanged, find_ensemble, parse_label
from inference.inputs import classifier_inputs, open_dataset_of
from inference.postprocess import PostProcessing
from inference.scope import Scope
from misc_utils import command_line, provenance
from misc_utils.errors import UserError
from misc_utils.messages import command
from training import run_folder
from training.run_folder import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """The trainings that answer."""

    segmenter: Ensemble | None
    classifier: Ensemble | None

    @property
    def both(self) -> list[Ensemble]:
        """Those that there are."""
        return [one for one in (self.segmenter, self.classifier) if one is not None]

    @property
    def names(self) -> list[str]:
        """What is said to answer."""
        return [one.name for one in self.both]

    @property
    def weight_hashes(self) -> dict[str, str]:
        """SHA-256 of the weights of each run."""
        hashes = [one.weight_hashes.items() for one in self.both]
        return {name: digest for pairs in hashes for name, digest in pairs}


def find_trained(
    model_data: Path,
    segmenter: str | None,
    classifier: str | None,
    dataset: str = DEFAULT,
    mask: bool = True,
    classes: bool = True,
) -> Trained:
    """The trainings named `backbone:version`, or the only one there is; several joined by +.

    Raises UserError where there is none, or several and none is named; without `mask` or `classes`
    that half is not looked for.
    """
    return Trained(
        _find(model_data, 1, segmenter, dataset, "segmenter", "mask") if mask else None,
        _find(model_data, 3, classifier, dataset, "classifier", "classes") if classes else None,
    )


def _find(
    model_data: Path, task: int, named: str | None, dataset: str, flag: str, half: str
) -> Ensemble:
    runs = run_folder.list_runs(model_data, task, dataset)
    labels = list(dict.fromkeys(run.label for run in runs if run.weights.exists()))
    if named is None and len(labels) != 1:
        train = command(script(task, "train"), *flags(task, dataset))
        ways = f"Name one with --{flag}: {', '.join(labels)}." if labels else f"Train it ({train})."
        raise UserError(
            f"{model_data} holds {len(labels)} trainings of the {TASKS[task].what}. {ways} Or do "
            f"without: --no-{half}."
        )
    first, *more = (named or labels[0]).split("+")
    return find_ensemble(model_data, task, *parse_label(first), more, dataset=dataset)


def load_predictor(
    root: Path, trained: Trained, *, views: int = 1, batch_size: int = 16
) -> Predictor:
    """The nets of these trainings, with what was tuned for them; see Predictor.

    Features of training images that are not kept yet are predicted now, where the images are there.
    Raises UserError when a classifier needs the lesion and there is no segmenter, or its lesions
    are not cut any more as those that it was trained on.
    """
    command_line.import_keras()
    mask_nets, rules = _mask_nets(trained.segmenter, views)
    class_nets, blend, classes = [], calibration.blend, ()
    if trained.classifier is not None:
        runs = trained.classifier
        blend = partial(calibration.blend, how=choice_for(runs, views))
        classes = runs.classes
        views_seen = {member[0].settings["lesion_view"] for member in runs.members}
        if views_seen != {"whole"}:
            if trained.segmenter is None:
                raise UserError(
                    f"{runs.name} sees the lesion alone ({', '.join(sorted(views_seen))}), so it "
                    f"needs a segmenter to find it. Name one with --segmenter."
                )
        cuts = how_cut(root / "submissions", runs)
        references = _references(root, runs, batch_size)
        for number, member in enumerate(runs.members):
            for run in member:
                seen = references.get(run.name), cuts[run.name]
                class_nets.append(load_class_net(run, number, *seen))
        check_unchanged(runs, runs.weight_hashes)
    return Predictor(mask_nets, class_nets, classes, rules, blend, views)


def depends_on(root: Path, trained: Trained, views: int) -> dict[str, Any]:
    """What answers depend on beside the settings of a script, for provenance.check_maker.

    As it is now: load_predictor may add references. Raises UserError as it does.
    """
    chosen = {runs.name: choice_for(runs, views) for runs in trained.both}
    found: dict[str, Any] = {
        "weights": trained.weight_hashes,
        "tuned": {name: one.to_json() if one else "not tuned" for name, one in chosen.items()},
    }
    if trained.classifier is not None:
        cuts = how_cut(root / "submissions", trained.classifier)
        found["cut"] = {name: asdict(cut) for name, cut in cuts.items()}
        # of the same weights and images, which runs are checked for, they are the same
        found["knows_training_images"] = {
            run.name: load_reference(run) is not None for run in trained.classifier.runs
        }
    return found


def lacks_references(trained: Trained) -> bool:
    """Whether load_predictor would look for training images, to tell what is unlike them."""
    runs = trained.classifier.runs if trained.classifier else []
    return any(load_reference(run) is None for run in runs)


def _mask_nets(runs: Ensemble | None, views: int) -> tuple[list[MaskNet], PostProcessing]:
    if runs is None:
        return [], PostProcessing()
    chosen = choice_for(runs, views)
    nets = []
    for member, weight in zip(runs.members, tuned.member_weights(runs, chosen), strict=True):
        nets += [load_mask_net(run, weight / len(member)) for run in member]
    check_unchanged(runs, runs.weight_hashes)
    return nets, chosen.rules if chosen else PostProcessing()


def choice_for(runs: Ensemble, views: int) -> tuned.Choice | None:
    """What was tuned for these trainings and so many views of an image; None where nothing was."""
    found = tuned.load_tuned(Scope(runs, "fold", views > 1), has_flag=False)
    return found.chosen if found else None


def how_cut(submissions: Path, runs: Ensemble) -> dict[str, Cut]:
    """{name of a run: how the lesions that it was trained on were cut}.

    As the run says it; one of earlier code does not, so that the record of the crops is asked.
    Raises UserError where that is of other crops.
    """
    cuts = {}
    for member in runs.members:
        view = run_folder.shared_setting(member, "lesion_view")
        for run in member:
            if view == "whole":
                cuts[run.name] = Cut()
            elif run.crops_cut is not None:
                cuts[run.name] = _cut(run.crops_cut)
            else:
                cuts[run.name] = _recorded_cut(submissions, run, view)
    return cuts


def _recorded_cut(submissions: Path, run: Run, view: str) -> Cut:
    edge = "feather" if view == "feather" else "hard"
    name = lesion_crops.crop_folder(3, "training", edge, run.dataset)
    record = provenance.record_of(submissions, name)
    if not record.exists():
        log.warning("%s: not there, so lesions are cut without a margin", record)
        return Cut()
    made_by = provenance.read_record(record)["made_by"]
    alike = lesion_crops.without_lossless_format(made_by)
    try:
        run_folder.check_same_crops([run], provenance.fingerprint_of_maker(alike))
    except UserError as error:
        raise UserError(f"{record}: {error}") from None
    return _cut(lesion_crops.cut_of(made_by))


def _cut(settings: Mapping[str, float]) -> Cut:
    """Of settings of seg_predict.py; what is not said is as there."""
    kept = {"crop_margin": "margin", "edge_radius": "edge_radius"}
    return Cut(**{name: settings[key] for name, key in kept.items() if key in settings})


def _references(root: Path, runs: Ensemble, batch_size: int) -> dict:
    """{name of a run: its reference}, predicted now where they are not kept and can be."""
    found = {run.name: load_reference(run) for run in runs.runs}
    missing = [run for run in runs.runs if found[run.name] is None]
    if not missing:
        return found
    from inference.prediction import load_model

    try:
        dataset = open_dataset_of(runs, root / "data")
        needed = sorted(set().union(*(folds["image"] for folds in runs.folds.values())))
        submissions = root / "submissions"
        inputs, _ = classifier_inputs(dataset, submissions, runs, "training", needed)
    except UserError as error:
        log.warning("what is unlike the training images cannot be told without them: %s", error)
        return {name: reference for name, reference in found.items() if reference is not None}
    for run in missing:
        model = load_model(run)
        folds = runs.folds[run.name]
        found[run.name] = keep_features(run, model, inputs[run.name], folds, batch_size)
    return found
