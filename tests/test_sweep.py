"""Grids of trainings: names, states, scripts for Slurm, and the engine of this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cls_train
import cluster
import pandas as pd
import pytest
import seg_train
import sweep
from drawn_results import create_run

from misc_utils import files
from misc_utils.errors import UserError
from reports import sweep_report
from sweeps import local_engine, ray_engine, states
from sweeps.grid import Job, plan_trainings
from sweeps.job import run_job
from sweeps.slurm_engine import SlurmEngine
from training import run_folder

SCRIPTS = {1: seg_train, 2: seg_train, 3: cls_train}


def plan(*grid, task=1, fixed=(), version="0", folds="all"):
    return plan_trainings(SCRIPTS[task].Settings, task, grid, fixed, version, folds)


# --- the grid


def test_each_combination_is_a_training_with_a_name_and_a_command():
    trainings = plan("seed=1,2", "backbone=vgg16,tiny", fixed=("epochs=7", "batch-norm=false"))
    assert [t.label for t in trainings] == [
        "vgg16:0-seed-1",
        "vgg16:0-seed-2",
        "tiny:0-seed-1",
        "tiny:0-seed-2",
    ]
    settings = trainings[1].settings
    assert (settings.backbone, settings.seed, settings.epochs) == ("vgg16", 2, 7)
    assert settings.batch_norm is False
    job = trainings[1].job(1, "name", 3)
    assert job.run == "name" and job.epochs == 7 and job.command[0] == sys.executable
    assert job.command[1].endswith("runs/seg_train.py")
    flags = " ".join(job.command[2:])
    assert flags == (
        "--epochs 7 --no-batch-norm --backbone vgg16 --seed 2 --version 0-seed-2 --folds 3 --wait"
    )


def test_recipes_are_varied_or_shared_as_settings_are():
    quick, strong = plan("recipe=quick,strong", task=3)
    assert quick.label == "efficientnet_lite0:0-recipe-quick" and quick.settings.image_size == 160
    assert strong.settings.backbone == "densenet121"
    assert quick.job(3, "name", 0).command[2:4] == ("--recipe", "quick")
    (one,) = plan("epochs=3", fixed=("recipe=quick",))
    assert one.settings.epochs == 3 and one.settings.decoder_filters == 16


def test_versions_do_not_depend_on_the_order_of_the_grid():
    one, other = (plan(*grid) for grid in (("seed=1", "up=deconv"), ("up=deconv", "seed=1")))
    assert one[0].label == other[0].label == "densenet169:0-up-deconv-seed-1"


@pytest.mark.parametrize(
    ("grid", "version"),
    [
        ("dropout=0.3", "0-dropout-0-3"),
        ("learning_rate=1e-4", "0-learning-rate-1e-4"),
        ("preprocess=shades_of_grey remove_hair", "0-preprocess-shades-of-grey-remove-hair"),
        ("preprocess=,remove_hair", "0-preprocess-none"),
        ("weights=model_data/a/task3_x.weights.h5", "0-weights-task3-x"),
        ("metadata=true", "0-metadata-true"),
    ],
)
def test_what_versions_are_made_of(grid, version):
    training = plan(grid, task=3)[0]
    assert training.settings.version == version
    assert run_folder.run_name(3, "tiny", 0, version)
    if grid.startswith("pre"):
        assert len(training.settings.preprocess) == (2 if "shades" in grid else 0)


def test_task_2_is_said_to_the_script():
    assert plan(task=2)[0].settings.task == 2
    assert plan("seed=1", fixed=("weights=none",), folds=(0, 1))[0].settings.folds == (0, 1)


@pytest.mark.parametrize(
    ("grid", "fixed", "said"),
    [
        (["seed"], [], "--grid seed: expected setting=value"),
        (["sead=1"], [], "there is no setting sead"),
        (["seed=1", "seed=2"], [], "names seed twice"),
        (["seed=1,1"], [], "seed=1 and seed=1 would both be densenet169:0-seed-1"),
        (["weights=x/a.weights.h5,y/a.weights.h5"], [], "would both be"),
        (["seed=1"], ["seed=2"], "in --grid and in --train"),
        ([], ["overwrite=true"], "another --version"),
        ([], ["folds=1"], "Say --folds"),
        (["num-folds=2,5"], [], "Say --train num_folds"),
        ([], ["batch-size=0"], "--batch-size 0: expected a number"),
    ],
)
def test_grids_that_cannot_be_are_refused(grid, fixed, said):
    with pytest.raises(UserError) as error:
        plan(*grid, fixed=fixed)
    assert said in str(error.value)


def test_a_value_that_the_script_does_not_take_is_refused_as_there(capsys):
    with pytest.raises(SystemExit) as stop:
        plan("backbone=vgg17")
    assert stop.value.code == 2 and "vgg17" in capsys.readouterr().err


# --- states

SETTINGS = {"backbone": "tiny", "version": "0", "num_folds": 2, "image_size": 32, "epochs": 3}
SETTINGS |= {"schedule": "plateau", "monitor": "val_jaccard"}
FOLDS = pd.DataFrame({"image": ["a", "b", "c", "d"], "fold": [0, 1, 0, 1]})
PROCESS = {"host": "node7", "pid": 42, "slurm_job": "12_3"}


def job_of(fold, epochs=3, command=()):
    return Job(f"task1_tiny_k{fold}_v0", epochs, tuple(command))


def begun(model_data, fold, epochs, **record):
    facts = {"data_fingerprint": "d" * 64, "process": PROCESS}
    run = create_run(model_data, 1, fold, SETTINGS, FOLDS, facts)
    rows = "".join(f"{epoch},0.5\n" for epoch in range(epochs))
    run.history.write_text(f"epoch,val_jaccard\n{rows}")
    run.state.write_text("s")
    run_folder.write_record(run_folder.Run(run.folder, run.record | record))
    return run


def state_of(tmp_path, fold=0, epochs=3, log=None):
    job, logs = job_of(fold, epochs), tmp_path / "logs"
    if log is not None:
        logs.mkdir(exist_ok=True)
        states.log_of(logs, job).write_text(log)
    return states.read_states(tmp_path, 1, "isic2018", logs, [job])[0]


def test_states_are_read_from_folders_locks_and_logs(tmp_path):
    assert state_of(tmp_path).what == "waiting"
    queued, started = f"{states.QUEUED}\n", f"{states.started('node7')}\n"
    assert state_of(tmp_path, log=queued).what == "waiting"
    found = state_of(tmp_path, log=queued + started)
    assert found.what == "started" and "on node7" in found.where
    begun(tmp_path, 0, epochs=1)
    with files.locked(tmp_path, "task1_tiny_k0_v0"):
        found = state_of(tmp_path)
    assert (found.what, found.epochs) == ("running", 1)
    assert found.where == "node7, process 42, Slurm job 12_3"
    ended = f"{queued}{started}Epoch 2/3\nerror: no disk\n{states.ENDED} "
    found = state_of(tmp_path, log=f"{ended}1\n")
    assert found.what == "failed" and found.line[3] == "exit code 1: error: no disk"
    assert state_of(tmp_path, log=f"{ended}143\n").what == "stopped"
    assert state_of(tmp_path, log=f"{ended}0\n").what == "failed"  # but there is no end of it
    assert state_of(tmp_path, log=f"{ended}1\n{queued}").what == "waiting"


def test_what_is_finished_says_its_score_and_may_be_asked_for_more(tmp_path):
    begun(tmp_path, 1, epochs=3, finished=True, best={"val_jaccard": 0.8125})
    found = state_of(tmp_path, fold=1)
    assert (found.what, found.epochs, found.score) == ("finished", 3, "jaccard 0.812")
    assert state_of(tmp_path, fold=1, epochs=5).what == "stopped"


def test_who_trained_last_is_named(tmp_path):
    later = PROCESS | {"host": "node9"}
    run = begun(tmp_path, 0, epochs=1, resumed=[{"process": later}, {"device": "gpu"}])
    assert run_folder.read_run(run.folder / "settings.json").process == later


def test_the_table_has_a_line_for_each_and_counts(tmp_path):
    begun(tmp_path, 1, epochs=3, finished=True, best={"val_jaccard": 0.8})
    found = states.read_states(tmp_path, 1, "isic2018", tmp_path, [job_of(0), job_of(1)])
    assert states.table(found).splitlines() == [
        "run               state     epochs",
        "task1_tiny_k0_v0  waiting   0 of 3",
        "task1_tiny_k1_v0  finished  3 of 3  jaccard 0.800",
        "1 waiting, 1 finished",
    ]


# --- one job

FLAKY = "import os, sys; p = sys.argv[1]; n = len(open(p).read()) if os.path.exists(p) else 0; "
FLAKY += "open(p, 'a').write('x'); n < {} and os.kill(os.getpid(), {})"


def flaky(tmp_path, times, number=9):
    code = FLAKY.format(times, number)
    return job_of(0, command=[sys.executable, "-c", code, str(tmp_path / "count")])


@pytest.mark.parametrize(("times", "code", "starts"), [(0, 0, 1), (2, 0, 3), (9, 137, 3)])
def test_what_a_signal_ended_is_started_again_a_few_times(tmp_path, times, code, starts):
    log = tmp_path / "logs" / "log"
    assert run_job(flaky(tmp_path, times), log, retries=2, environment={}) == code
    assert (tmp_path / "count").read_text() == "x" * starts
    assert log.read_text().count(states.STARTED) == starts
    assert log.read_text().endswith(f"{states.ENDED} {code}\n")


def test_an_error_is_not_tried_again(tmp_path):
    job = job_of(0, command=[sys.executable, "-c", "raise SystemExit('no such file')"])
    assert run_job(job, tmp_path / "log", retries=2, environment={}) == 1
    text = (tmp_path / "log").read_text()
    assert text.count(states.STARTED) == 1 and "no such file" in text


# --- the engine of this machine


def test_gpus_are_dealt_out(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code = "import os, sys, time; time.sleep(.3); print('GPU', os.environ['CUDA_VISIBLE_DEVICES'])"
    jobs = [job_of(fold, command=[sys.executable, "-c", code]) for fold in range(2)]
    engine = local_engine.LocalEngine(tmp_path, tmp_path, None, 0)
    engine.start(jobs)
    while engine.working():
        time.sleep(0.05)
    engine.close()
    said = "".join(states.log_of(tmp_path, job).read_text() for job in jobs)
    assert "GPU 3" in said and "GPU 5" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_engine.list_gpus() == []


WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("ready", flush=True)
time.sleep(60)
"""


def test_ctrl_c_ends_what_runs_and_begins_nothing_more(tmp_path):
    jobs = [job_of(fold, command=[sys.executable, "-c", WAITS]) for fold in range(2)]
    engine = local_engine.LocalEngine(tmp_path, tmp_path, 1, 0)
    engine.start(jobs)
    first, second = (states.log_of(tmp_path, job) for job in jobs)
    while "ready" not in first.read_text():
        time.sleep(0.05)
    engine.interrupt(cancel=False)
    assert first.read_text().endswith(f"{states.ENDED} 143\n")
    assert second.read_text() == f"{states.QUEUED}\n"


def test_a_sweep_trains_what_is_not_finished_scores_and_compares(
    tmp_path, trained_root, monkeypatch, run_script, blank_charts
):
    """One fold is left to be finished, of copies of the shared runs under another version."""
    root = tmp_path / "root"
    shutil.copytree(trained_root, root)
    monkeypatch.setenv("ISIC_ROOT", str(root))
    model_data = root / "model_data"
    for run in run_folder.list_runs(model_data, 1):
        record = run.record | {"settings": run.settings | {"version": "0-up-deconv"}}
        text = json.dumps(record | {"finished": run.k_fold == 0})
        copy = model_data / run.folder.name.replace("_v0", "_v0-up-deconv")
        shutil.copytree(run.folder, copy)
        for file in copy.glob("*_v0*"):
            file.rename(copy / file.name.replace("_v0", "_v0-up-deconv"))
        (copy / "settings.json").write_text(text)
    flags = ["--train", "backbone=tiny", "weights=none", "image-size=32", "batch-size=8"]
    flags += ["num-folds=2", "epochs=1"]
    code, out, _ = run_script(sweep, "--grid", "up=deconv", *flags, "--status")
    assert code == 0 and "1 stopped, 1 finished" in out
    code, out, err = run_script(sweep, "--grid", "up=deconv", *flags)
    assert code == 0, err
    assert "2 runs, 1 of them to be trained" in out and "2 finished" in out
    page = (model_data / "sweeps" / "task1_v0" / "report.html").read_text()
    report = "../../task1_tiny_v0-up-deconv/task1_tiny_v0-up-deconv_report_fold.html"
    assert f'href="{report}"' in page and (model_data / "sweeps" / "task1_v0" / report).exists()
    assert list((model_data / "task1_tiny_v0-up-deconv").glob("*_tuned.json"))
    code, _, err = run_script(sweep, "--grid", "up=deconv", *flags, "learning-rate=2")
    assert code == 1 and "was trained with other settings: learning_rate 0.001 then" in err


# --- the page


def row(seed, score, backbone="tiny"):
    values = {"backbone": backbone, "seed": str(seed)}
    scores = {"jaccard": (score, score - 0.1, score + 0.1)}
    report = Path("/root/model_data/x/report.html")
    return sweep_report.Row(f"{backbone}:0-seed-{seed}", values, scores, report)


def test_over_seeds_the_page_gives_mean_and_spread():
    rows = [row(1, 0.5), row(2, 0.7), row(1, 0.9, "unet")]
    # deviations of -.1 and .1 from .6: sqrt(.02 / 1)
    assert sweep_report.repeated(rows) == [("backbone tiny", 2, [".600 ± .141"])]


def test_the_page_escapes_names_and_links_beside_itself(tmp_path):
    file = Path(tmp_path / "report.html")
    states, said = [["<run>", "failed", "1 of 3", "exit code 1"]], {"<run>": "failed\n<b>"}
    comparisons = {"a against b": tmp_path.parent / "comparisons" / "a.html"}
    sweep_report.write(file, "<t>", "python3 x", [row(1, 0.5)], states, comparisons, said)
    page = file.read_text()
    assert "<run>" not in page and "<b>" not in page and "&lt;t&gt;" in page
    assert 'href="../comparisons/a.html"' in page and ".500 (.400 – .600)" in page


# --- Ray


def test_ray_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -r \S+/requirements-ray\.txt$"):
        ray_engine.check_ray()


# --- Slurm

FAKES = {  # name -> what it does; each notes its words
    "sbatch": "echo 71",
    "squeue": 'cat "$FAKES/queue" 2>/dev/null || true',
    "scancel": "true",
    "scontrol": "true",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm that note how they were called; `queue` is what squeue prints."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, what in FAKES.items():
        file = folder / name
        file.write_text(f'#!/bin/bash\necho "{name} $*" >> "$FAKES/called"\n{what}\n')
        file.chmod(0o755)
    (folder / "called").touch()
    monkeypatch.setenv("FAKES", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def slurm_engine(tmp_path, at_once=None, submit=True, retries=2):
    options = ("gres=gpu:1", "--time=8:00:00")
    lines = ("module load cuda",)
    folder = tmp_path / "sweeps" / "task1_v0"
    logs = tmp_path / "my logs"
    root = Path("/my disk")
    return SlurmEngine("task1_v0", folder, logs, root, at_once, retries, options, lines, submit)


def test_the_script_for_slurm(tmp_path):
    command = ["python3", "runs/seg_train.py", "--images", "my photos"]
    jobs = [job_of(fold, command=command) for fold in range(3)]
    text = slurm_engine(tmp_path, at_once=2).text(jobs)
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]
    assert options == [
        "--job-name=task1_v0",
        "--array=0-2%2",
        "--requeue",
        "--open-mode=append",
        "--signal=B:USR1@120",
        f"--output={tmp_path}/my logs/slurm-%A_%a.out",
        "--gres=gpu:1",
        "--time=8:00:00",
    ]
    assert text.index("module load cuda") < text.index("runs=(")
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def run_array_job(tmp_path, job, until="", number=None, retries=2):
    """Run the script as Slurm would; where `until` is in the log, send the script a signal."""
    script = tmp_path / "slurm.sh"
    text = slurm_engine(tmp_path, retries=retries).text([job])
    script.write_text(text.replace("module", "#").replace("'/my disk'", str(tmp_path)))
    variables = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "71", "SLURM_JOB_ID": "72"}
    log = states.log_of(tmp_path / "my logs", job)
    process = subprocess.Popen(["bash", str(script)], env=os.environ | variables)
    while number and not (log.exists() and until in log.read_text()):
        time.sleep(0.02)
    if number:
        process.send_signal(number)
    return process.wait(20), log.read_text()


@pytest.mark.parametrize(("times", "code", "starts"), [(1, 0, 2), (9, 137, 3)])
def test_a_job_of_slurm_starts_a_killed_training_again(tmp_path, slurm, times, code, starts):
    found, log = run_array_job(tmp_path, flaky(tmp_path, times))
    assert found == code and log.count("=== started") == starts
    assert "Slurm job 71_0" in log and "requeue" not in (slurm / "called").read_text()
    assert states.MARK.search(log.splitlines()[0]) and states.MARK.search(log.splitlines()[-1])


@pytest.mark.parametrize(
    ("number", "epochs", "code", "requeued"),
    [
        (signal.SIGUSR1, 1, 143, True),
        (signal.SIGUSR1, 0, 1, False),  # it would never get on
        (signal.SIGTERM, 1, 143, False),  # cancelled or preempted: Slurm sees to that
    ],
)
def test_before_the_time_limit_a_job_requeues_itself(
    tmp_path, slurm, number, epochs, code, requeued
):
    history = tmp_path / "model_data" / "task1_tiny_k0_v0" / "task1_tiny_k0_v0.csv"
    history.parent.mkdir(parents=True)
    waits = WAITS.replace(
        "import", f"open({str(history)!r}, 'a').write({epochs} * 'x\\n')\nimport", 1
    )
    job = job_of(0, command=[sys.executable, "-c", waits])
    found, log = run_array_job(tmp_path, job, "ready", number)
    assert found == code and "=== ended with exit code 143\n" in log
    assert ("no epoch was done" in log) is (code == 1)
    assert ("scontrol requeue 72" in (slurm / "called").read_text()) is requeued


def test_a_job_that_is_in_the_queue_is_not_submitted_again(tmp_path, slurm, capsys, caplog):
    caplog.set_level("INFO")
    jobs = [job_of(fold, command=["true"]) for fold in range(3)]
    engine = slurm_engine(tmp_path)
    assert not engine.working()
    engine.start(jobs[:2])
    (slurm / "queue").write_text("71 1 Priority\n70 0 Resources\n")
    assert engine.working() and "Slurm lets jobs wait: Priority" in caplog.text
    again = slurm_engine(tmp_path)
    again.start([jobs[1]])
    assert (slurm / "called").read_text().count("sbatch") == 1
    again.start(jobs)
    assert "_k1_" not in again.script.read_text().split("runs=(")[1].split(")")[0]
    assert (slurm / "called").read_text().count("sbatch") == 2
    again.interrupt(cancel=False)
    assert "scancel 71" in capsys.readouterr().out
    again.interrupt(cancel=True)
    assert (slurm / "called").read_text().endswith("scancel 71\n")


def test_a_script_is_written_and_not_submitted(tmp_path, slurm, capsys):
    engine = slurm_engine(tmp_path, submit=False)
    engine.start([job_of(0, command=["true"])])
    assert not engine.working() and engine.script.exists()
    assert f"sbatch {engine.script}" in capsys.readouterr().out
    assert (slurm / "called").read_text() == ""


def test_slurm_that_is_not_there_or_away_for_a_while(tmp_path, slurm, monkeypatch, caplog):
    engine = slurm_engine(tmp_path)
    engine.start([job_of(0, command=["true"])])
    (slurm / "squeue").write_text("#!/bin/bash\necho 'Unable to contact slurm' >&2; exit 1\n")
    caplog.set_level("INFO")
    assert engine.working() and engine.working()
    assert caplog.text.count("Unable to contact slurm") == 1
    monkeypatch.setenv("PATH", "/nowhere")
    from sweeps.slurm_engine import check_slurm

    with pytest.raises(UserError, match="there is no sbatch here"):
        check_slurm()


# --- that tests/cluster.py would see what it looks for

BEGIN, END = "Epoch {}/2\n", "4/4 - 1s - loss: 0.1 - val_loss: 0.2\n"
FIRST, SECOND = (BEGIN.format(epoch) + END for epoch in (1, 2))
START = "=== started now on a\n"


@pytest.mark.parametrize(
    ("log", "right"),
    [
        (START + FIRST + SECOND, True),
        (START + FIRST + BEGIN.format(2) + START + SECOND, True),  # killed in epoch 2
        (START + FIRST, False),
        (START + FIRST + START + FIRST + SECOND, False),  # did not resume
        (START + FIRST + BEGIN.format(2) + BEGIN.format(2) + END + END, False),  # two at once
        (START + FIRST + BEGIN.format(2) + SECOND, False),  # begun again by nobody
    ],
)
def test_an_epoch_that_is_lost_or_trained_twice_is_seen(log, right):
    assert (cluster.check_epochs(log, 2) == []) is right
