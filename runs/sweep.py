"""Train a grid of settings on every fold, here, on Ray or on Slurm; score, tune and compare.

python3 runs/sweep.py --grid backbone=densenet121,vgg16 loss=auto,dice --train epochs=12
python3 runs/sweep.py --task 3 --grid seed=1,2,3 --train lesion-view=whole --engine slurm
python3 runs/sweep.py --task 3 --grid seed=1,2,3 --train lesion-view=whole --status

Repeated, the command goes on where it was. How to use a cluster: docs/clusters.md.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import paths  # isort: skip  (the repository on sys.path)
import cls_eval
import cls_train
import cls_tune
import compare
import seg_eval
import seg_train
import seg_tune

from misc_utils import command_line
from misc_utils.errors import UserError

TRAIN = {1: seg_train, 2: seg_train, 3: cls_train}
EVALUATE = {1: seg_eval, 2: seg_eval, 3: cls_eval}
TUNE = {1: seg_tune, 3: cls_tune}
PAUSE = {"local": 1, "ray": 2, "slurm": 10}  # seconds between two looks at the trainings


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    task: Literal[1, 2, 3] = 1  # 1, 2: seg_train.py; 3: cls_train.py
    grid: command_line.Pairs = ()
    """settings of the train script, each with its values: seed=1,2 loss=auto,dice; every
    combination is a training of all folds"""
    train: command_line.Pairs = ()  # settings that all trainings share: epochs=12 image-size=96
    folds: command_line.Folds = "all"  # which to hold out; each is a job of its own
    version: str = "0"  # what each --version begins with; what is varied is added: 0-seed-1
    engine: Literal["local", "ray", "slurm"] = "local"
    """what starts the trainings; local: this machine; ray: needs requirements-ray.txt"""
    jobs: command_line.Limit = None
    """trainings at once; None: local: one for each GPU, or one; ray, slurm: as many as start"""
    retries: int = 3  # starts of a training that was killed, as when memory runs out
    on_interrupt: Literal["leave", "cancel"] = "leave"
    """what becomes of the trainings on Ctrl-C; leave: Slurm, or the cluster of --address, goes on;
    those of this machine end in any case"""
    address: str | None = None  # ray: of a cluster; None: RAY_ADDRESS, else this machine
    cpus: int = 1  # ray: processor cores for each training, where the cluster has no GPU
    sbatch: command_line.Pairs = ()  # slurm: options of sbatch: gres=gpu:1 time=8:00:00
    before: tuple[str, ...] = ()  # slurm: lines before the training: "module load cuda"
    submit: bool = True  # slurm: --no-submit only writes the script
    tune: bool = True  # choose thresholds or temperatures on held-out predictions
    status: bool = False  # only say how far all trainings are


def main(settings: Settings) -> dict[str, float]:
    from datasets.folds import check_fold_numbers
    from datasets.tasks import prefix
    from sweeps import states
    from sweeps.grid import plan_trainings
    from training.run_folder import run_name

    # 1 which trainings
    task, model_data = settings.task, paths.model_data_dir()
    trainings = plan_trainings(
        TRAIN[task].Settings, task, settings.grid, settings.train, settings.version, settings.folds
    )
    jobs = {}  # {training: its jobs}
    for training in trainings:
        it = training.settings
        k_folds = check_fold_numbers(it.folds, it.num_folds)
        name = partial(run_name, task, it.backbone, version=it.version, dataset=it.dataset)
        jobs[training] = [training.job(task, name(k_fold=k), k) for k in k_folds]
    dataset = trainings[0].settings.dataset
    name = f"{prefix(dataset)}task{task}_v{settings.version}"
    folder = model_data / "sweeps" / name
    every = [job for of_one in jobs.values() for job in of_one]
    read = partial(states.read_states, model_data, task, dataset, folder / "logs", every)
    if settings.status:
        print(states.table(read()))
        return {}

    # 2 what can be checked before hours of work
    check(settings, trainings)
    engine = open_engine(settings, name, folder)

    # 3 train; score what is finished meanwhile
    sweep = Sweep(settings, jobs, folder)
    try:
        left = [state.job for state in read() if state.what != "finished"]
        print(f"{len(every)} runs, {len(left)} of them to be trained; logs: {folder / 'logs'}")
        if left:
            engine.start(left)
        follow(engine, read, sweep, PAUSE[settings.engine])
    except BaseException:
        engine.interrupt(settings.on_interrupt == "cancel")
        raise
    engine.close()

    # 4 compare, and say what there is
    found = read()
    file = sweep.write(found)
    print(states.table(found))
    for row in sweep.rows.values():
        print(f"{row.label}: {row.text}")
    print(f"report: {file}")
    if sweep.problems and settings.submit:
        told = "\n".join(f"{name}: {why}" for name, why in sweep.problems.items())
        raise UserError(
            f"{len(sweep.problems)} not finished:\n{told}\nThe logs in {folder / 'logs'} say more. "
            f"The same command trains again what is not finished."
        )
    return {row.label: next(iter(row.scores.values()))[0] for row in sweep.rows.values()}


def check(settings: Settings, trainings: list) -> None:
    """UserError where a training cannot begin, or contradicts an earlier one of its name."""
    from datasets import lesion_crops
    from datasets.catalogue import open_dataset
    from misc_utils.messages import command
    from models.backbones import backbone, weights_in_force
    from training import run_folder

    command_line.import_keras()
    from models.encoder import weight_file
    from training.loop import plan_folds

    task, model_data = settings.task, paths.model_data_dir()
    lacking = set()
    for training in trainings:
        it = training.settings
        dataset = open_dataset(paths.data_dir(), it.dataset, it.own)
        dataset.list_images(task, "training")
        if it.devices == "hosts":
            raise UserError(
                "--train devices=hosts: a training of a sweep has one process. Start it by itself, "
                "see docs/guide.md."
            )
        # devices are those of the machine that trains, which need not be this one
        plan_folds(model_data, task, replace(it, devices=1))
        weights = weights_in_force(it.backbone, it.weights)
        if (
            weights == "imagenet"
            and not weight_file(backbone(it.backbone), paths.pretrained_dir()).is_file()
        ):
            lacking.add(it.backbone)
        if task == 3:
            flags = run_folder.segmenter_flags(model_data, it.limit, dataset.name)
            view = it.lesion_view
            lesion_crops.load_view_crops(
                paths.submissions_dir(), "training", view, flags, dataset.name
            )
    if lacking:
        fetch = command("fetch_weights.py", "--backbones", *sorted(lacking))
        raise UserError(
            f"There are no ImageNet weights of {', '.join(sorted(lacking))} in "
            f"{paths.pretrained_dir()}: every training would download them at once, or find no "
            f"internet. Write them first: {fetch}; or say --train weights=none."
        )


def open_engine(settings: Settings, name: str, folder: Path) -> Any:
    """The engine that the settings name."""
    logs, root, retries = folder / "logs", paths.root(), settings.retries
    if settings.engine == "local":
        from sweeps.local_engine import LocalEngine

        return LocalEngine(logs, root, settings.jobs, retries)
    if settings.engine == "ray":
        from sweeps.ray_engine import RayEngine, check_ray

        check_ray()
        return RayEngine(name, logs, root, settings.address, settings.jobs, retries, settings.cpus)
    from sweeps.slurm_engine import SlurmEngine, check_slurm

    if settings.submit:
        check_slurm()
    lines = settings.sbatch, settings.before, settings.submit
    return SlurmEngine(name, folder, logs, root, settings.jobs, retries, *lines)


def follow(engine, read, sweep, pause: float) -> None:
    """Look at the trainings until none is left, tell what changes, score what is finished."""
    from tqdm import tqdm

    from sweeps.states import counts

    before = {}
    with tqdm(desc="trainings", unit="epoch", total=0) as bar:
        while True:
            working, found = engine.working(), read()
            done = [s.job.epochs if s.what == "finished" else s.epochs for s in found]
            bar.total, bar.n = sum(s.job.epochs for s in found), sum(done)
            bar.initial = bar.n if not before else bar.initial  # that others took the time for
            bar.set_postfix_str(counts(found))
            for state in found:
                if before.get(state.job, state).what != state.what:
                    run, what, _, more = state.line
                    bar.write(f"{run}: {what}" + (f", {more}" if more else ""))
            before = {state.job: state for state in found}
            for line in sweep.score_finished(found):
                bar.write(line)
            if not working:
                return
            time.sleep(pause)


class Sweep:
    """What has come of the trainings so far."""

    def __init__(self, settings: Settings, jobs: dict, folder: Path) -> None:
        self.settings, self.jobs, self.folder = settings, jobs, folder
        self.rows, self.scopes, self.problems = {}, {}, {}  # by training, the last by name

    def score_finished(self, states) -> Iterator[str]:
        """Score and tune what is finished on every fold, each once; a line about each."""
        finished = {state.job for state in states if state.what == "finished"}
        for training, jobs in self.jobs.items():
            if training in self.rows or training.label in self.problems:
                continue
            if finished >= set(jobs):
                try:
                    with self._quietly():
                        row = self._score(training)
                except UserError as error:
                    self.problems[training.label] = f"not scored: {error}"
                    yield f"{training.label}: {self.problems[training.label]}"
                    continue
                self.rows[training] = row
                yield f"{row.label}: {row.text}; report: {row.report}"

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """What other scripts print goes to a log."""
        file = self.folder / "logs" / "scores.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
            yield

    def _score(self, training):
        from datasets.tasks import TASKS
        from evaluation import scores, tuned
        from inference.scope import find_scope
        from reports.sweep_report import Row

        task, it, k_fold = self.settings.task, training.settings, self.settings.folds
        which = {"backbone": it.backbone, "version": it.version, "dataset": it.dataset}
        of_task = {"task": task} if task != 3 else {}
        evaluation = EVALUATE[task].Settings(k_fold=k_fold, **which, **of_task)
        scope = find_scope(paths.model_data_dir(), task, evaluation, k_fold)
        try:
            content, _ = scores.read_scores(scope)
        except UserError:  # not there, or of other weights
            EVALUATE[task].main(evaluation)
            content, _ = scores.read_scores(scope)
        measures = TASKS[task].measures
        values = {m: (content[m], *content["intervals_95"][m]) for m in measures}
        chosen = ""
        if self.settings.tune and task in TUNE:
            whole = find_scope(paths.model_data_dir(), task, evaluation)
            try:
                found = tuned.load_tuned(whole)
            except UserError:  # of other weights
                found = None
            if found is None:
                TUNE[task].main(TUNE[task].Settings(**which))
                found = tuned.load_tuned(whole)
            chosen = str(found)
        self.scopes[training] = scope
        report = scope.ensemble.file(f"report_{scope.ending}.html")
        return Row(training.label, training.values, values, report, chosen)

    def write(self, states) -> Path:
        """Compare what can be paired, and write the page; what has not finished is a problem."""
        from misc_utils.messages import command
        from reports import comparison_report, sweep_report
        from training.run_folder import folds_fingerprint

        for state in states:
            if state.what != "finished":
                self.problems[state.job.run] = "\n  ".join([state.what, *state.why.splitlines()])
        alike: dict[str, list] = {}  # trainings of one split
        for training, scope in self.scopes.items():
            split = folds_fingerprint(next(iter(scope.ensemble.folds.values())))
            alike.setdefault(split, []).append(training)
        comparisons = {}
        for group in alike.values():
            if len(group) < 2:
                continue
            labels, scopes = [t.label for t in group], [self.scopes[t] for t in group]
            it, name = self.settings, " against ".join(labels)
            try:
                dataset = group[0].settings.dataset
                which = compare.Settings(tuple(labels), it.task, it.folds, dataset=dataset)
                with self._quietly():
                    compare.main(which)
            except UserError as error:
                self.problems[name] = f"not compared: {error}"
                continue
            model_data = paths.model_data_dir()
            comparisons[name] = comparison_report.report_file(model_data / "comparisons", scopes)
        file = self.folder / "report.html"
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_report.write(
            file,
            f"Sweep {self.folder.name}",
            command("sweep.py", *words_of(self.settings)),
            [self.rows[t] for t in self.jobs if t in self.rows],
            [state.line for state in states],
            comparisons,
            self.problems,
        )
        return file


def words_of(settings: Settings) -> list[str]:
    """The flags that say which trainings these are."""
    words = ["--task", str(settings.task), "--version", settings.version]
    folds = [settings.folds] if settings.folds == "all" else settings.folds
    for flag, values in (("grid", settings.grid), ("train", settings.train), ("folds", folds)):
        words += [f"--{flag}", *map(str, values)] if values else []
    return words


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
