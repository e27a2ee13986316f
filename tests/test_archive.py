"""predict_archive.py and merge_archive.py, with nets that are a line of numpy."""

import csv
import errno
import json
import os
import shutil
import tarfile
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import merge_archive
import numpy as np
import predict_archive
import pytest

from deploy import which_nets
from deploy.grad_cam import Head
from deploy.nets import ClassNet, MaskNet
from deploy.predictor import Predictor
from evaluation.calibration import blend
from inference.postprocess import PostProcessing
from misc_utils import command_line
from misc_utils.errors import UserError

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from archives import listing, merge, parts, shards  # noqa: E402
from deploy import archive  # noqa: E402

SIDE = 8  # of what the nets see


class Nets:
    """Bright pixels are lesion, bright images the second class; counts the images it is asked."""

    def __init__(self):
        self.asked, self.most = 0, np.inf
        self.weight_hashes = {"bright": "1234"}
        self.names = ["bright"]

    def find(self, root, settings):
        depends_on = {"weights": self.weight_hashes}
        return SimpleNamespace(names=self.names), lambda: depends_on, self.load

    def load(self):
        mask = MaskNet("bright", self.segment, SIDE)
        head = Head(np.eye(1, dtype=np.float32), np.zeros(1, np.float32), np.ones((1, 2)))
        classes = [ClassNet(f"light{k}", 0, partial(self.classify, k), SIDE, head) for k in (1, 2)]
        rules = PostProcessing(smoothing=0)
        return Predictor([mask], classes, ("dark", "light"), rules, blend)

    def segment(self, batch):
        if self.asked >= self.most:
            raise KeyboardInterrupt
        self.asked += len(batch)
        return batch[..., :1].astype(np.float32) - 127.5

    def classify(self, factor, batch):
        level = factor * (batch.mean(axis=(1, 2, 3), keepdims=True) - 127.5).astype(np.float32)
        logits = np.concatenate([-level, level], axis=-1)[:, 0, 0] / 100
        return logits, level[:, 0, 0], level


@pytest.fixture
def nets(tmp_path, monkeypatch):
    monkeypatch.setattr(command_line, "import_keras", lambda: None)  # seconds, for nothing
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    nets = Nets()
    monkeypatch.setattr(which_nets, "find_nets", nets.find)
    return nets


@pytest.fixture
def photos(tmp_path):
    """23 images in folders: a dark one, then brighter ones; two alike, one bad, one no image."""
    folder = tmp_path / "photos"
    for number in range(22):
        file = folder / f"{number // 8}" / f"ü {number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((6 + number, 10, 3), 250 if number == 21 else 10 * number, np.uint8)
        file.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    shutil.copyfile(folder / "0/ü 03.png", folder / "1/the same.png")
    (folder / "1/bad.jpg").write_text("no picture")
    (folder / "0/ü 00.png").unlink()
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def listed_names(folder):
    files = [file for file in folder.rglob("*") if file.suffix in (".png", ".jpg")]
    names = [str(file.relative_to(folder)) for file in files if not file.name.startswith(".")]
    return sorted(names)


def settings(place, **more):
    return predict_archive.Settings(str(place), **{"part_size": 5, "batch_size": 4} | more)


def results(tmp_path, name="archive"):
    return tmp_path / "root" / "submissions" / name


def rows_of(tmp_path, name="archive"):
    return pq.read_table(results(tmp_path, name) / "predictions.parquet").to_pylist()


def answer_and_merge(place, **more):
    predict_archive.main(settings(place, **more))
    name = {"name": more["name"]} if "name" in more else {}
    return merge_archive.main(merge_archive.Settings(**name))


def test_each_part_is_in_one_shard():
    for total in (0, 1, 7, 100):
        for count in (1, 2, 3, 8, 150):
            ranges = [shards.Shard(number, count).parts(total) for number in range(1, count + 1)]
            assert [part for one in ranges for part in one] == list(range(total))
            assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    assert str(shards.parse_shard("2/8")) == "2/8" and shards.parse_shard(None).count == 1
    for text in ("0/3", "4/3", "1/0", "1", "1/2/3", "a/b", ""):
        with pytest.raises(UserError, match=r"expected i/n with i from 1"):
            shards.parse_shard(text)


def test_a_folder_in_shards(nets, photos, tmp_path, run_script):
    for shard in ("3/3", "1/3", "2/3"):
        flags = (photos, "--part-size", 5, "--batch-size", 4, "--shard", shard)
        code, out, err = run_script(predict_archive, *flags)
        assert code == 0 and f"shard {shard}: " in out and "images/s" in out, err
        assert ("next: " in out) == (shard == "2/3")  # the last to end
    assert "1 files with other endings are left out" in out
    code, out, err = run_script(merge_archive, "--csv")
    assert code == 0 and "images: 23, answered: 22, not answered: 1" in out, err
    rows = rows_of(tmp_path)
    assert [row["name"] for row in rows] == listed_names(photos) and len(rows) == 23
    by_name = {row["name"]: row for row in rows}
    bad = by_name.pop("1/bad.jpg")
    assert "no picture" in bad["reason"] and bad["class"] is None and len(bad["sha256"]) == 64
    for row in by_name.values():
        image = cv2.imread(str(photos / row["name"]))
        assert (row["height"], row["width"]) == image.shape[:2] and row["reason"] is None
        bright = image.mean() > 127
        assert row["class"] == ("light" if bright else "dark")
        assert row["lesion_share"] == bright and row["path"] == str(photos / row["name"])
        assert row["probability_dark"] + row["probability_light"] == pytest.approx(1)
        level = (image.mean() - 127.5) / 100 * 1.5  # mean of the logits of both networks
        assert row["probability_light"] == pytest.approx(1 / (1 + np.exp(-2 * level)), abs=1e-5)
        assert row["agreement"] == 1 and row["spread"] > 0 and row["unlikeness"] is None
    assert by_name["0/ü 03.png"]["sha256"] == by_name["1/the same.png"]["sha256"]
    masks = {}
    for file in sorted((results(tmp_path) / "parts").glob("*.tar")):
        with tarfile.open(file) as tar:
            masks |= {one.name: tar.extractfile(one).read() for one in tar.getmembers()}
    assert set(masks) == {f"{name}.png" for name in by_name}
    mask = cv2.imdecode(np.frombuffer(masks["2/ü 21.png.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (27, 10) and (mask == 255).all()
    with (results(tmp_path) / "predictions.csv").open(newline="") as opened:
        assert [row["name"] for row in csv.DictReader(opened)] == [row["name"] for row in rows]
    page = (results(tmp_path) / "index.html").read_text()
    assert "Not for diagnosis" in page and "no picture" in page
    assert page.count("data:image/jpeg") == merge.EXAMPLES
    assert "1/the same.png" not in page  # neither least certain nor bad
    assert len(list(results(tmp_path).rglob("*.*"))) == 5 * 2 + 4  # parts, listing, tables, page

    # once more: nothing is asked
    asked = nets.asked
    code, out, _ = run_script(predict_archive, photos, "--part-size", 5)
    assert code == 0 and "23 of them answered before" in out and nets.asked == asked


def test_the_same_images_in_any_archive(nets, photos, tmp_path):
    names = listed_names(photos)
    for ending, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")):
        with tarfile.open(tmp_path / f"a.{ending}", mode) as tar:
            for name in names:
                tar.add(photos / name, name)
            tar.add(photos / "notes.txt", "notes.txt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for name in names:
            opened.write(photos / name, name)
    table = pa.table({"id": range(len(names)), "file": [f"photos/{name}" for name in names]})
    pq.write_table(table, tmp_path / "a.parquet")
    lines = ["id;not,file", *(f'"{k}",photos/{name}' for k, name in enumerate(names))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    answer_and_merge(photos)
    expected = rows_of(tmp_path)
    for ending in ("tar", "tar.gz", "tar.xz", "zip", "parquet", "csv"):
        place, name = tmp_path / f"a.{ending}", ending.replace(".", "_")
        nets.most = nets.asked + 12  # killed in the third part, and resumed
        with pytest.raises(KeyboardInterrupt):
            predict_archive.main(settings(place, name=name, image_column="file", masks=False))
        nets.most = np.inf
        answer_and_merge(place, name=name, image_column="file", masks=False)
        is_table = ending in ("parquet", "csv")
        for row, there in zip(rows_of(tmp_path, name), expected, strict=True):
            shown = f"{tmp_path if is_table else place}/{row['name']}"
            assert row.pop("path") == shown
            assert row.pop("name") == ("photos/" if is_table else "") + there["name"]
            assert row == {k: v for k, v in there.items() if k not in ("path", "name")}
        assert not list((results(tmp_path, name) / "parts").glob("*.tar"))


def test_a_killed_shard_goes_on_at_its_last_whole_part(nets, photos, tmp_path):
    answer_and_merge(photos, name="whole")
    asked, nets.asked, nets.most = nets.asked, 0, 12  # 5 of a part take two steps of 4
    with pytest.raises(KeyboardInterrupt):
        predict_archive.main(settings(photos))
    parts = results(tmp_path) / "parts"
    assert [file.name for file in sorted(parts.iterdir())] == [
        "part-000000.parquet",
        "part-000000.tar",
    ]
    (parts / ".partial_0123456789ab_part-000001.tar").touch()  # as a kill leaves it
    nets.asked, nets.most = 0, np.inf
    assert answer_and_merge(photos)["answered"] == 22
    assert nets.asked == asked - 8 and not list(parts.glob(".partial*"))
    assert rows_of(tmp_path) == rows_of(tmp_path, "whole")


def test_an_archive_that_changed_is_refused(nets, photos, tmp_path, run_script):
    flags = (photos, "--part-size", "5", "--shard", "1/2")
    assert run_script(predict_archive, *flags)[0] == 0
    first, more = photos / "0/ü 02.png", photos / "0/new.png"
    before = os.stat(first)

    def touch():
        os.utime(first, (1, 1))

    def restore():
        os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))

    for change, undo, said in (
        (touch, restore, "0/ü 02.png is another file than when it was listed"),
        (lambda: first.rename(tmp_path / "x"), lambda: (tmp_path / "x").rename(first), "02.png"),
        (more.touch, more.unlink, "where 0/ü 01.png was listed, there is now 0/new.png"),
    ):
        change()
        code, _, err = run_script(predict_archive, *flags)
        assert code == 1 and "the archive has changed" in err and said in err
        undo()
        assert run_script(predict_archive, *flags)[0] == 0
    # changed while it is answered for: after it was listed, before it is read
    begun = archive.open_archive(photos, "path")
    entries = list(begun.entries())
    touch()
    with pytest.raises(UserError, match="changed since the archive was listed"):
        [one.read() for one in archive.pictures(begun, entries)]
    restore()


def test_a_disk_that_fails_is_not_the_fault_of_an_image(nets, photos, monkeypatch):
    begun = archive.open_archive(photos, "path")
    one, *_ = archive.pictures(begun, list(begun.entries()))

    def failing(code, *_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", partial(failing, errno.EACCES))
        with pytest.raises(ValueError, match="Permission denied"):
            one.read()
        patch.setattr(Path, "read_bytes", partial(failing, errno.ETIMEDOUT))
        with pytest.raises(UserError, match=r"01\.png: Connection timed out. What was answered"):
            one.read()
    monkeypatch.setattr(archive.os, "stat", partial(failing, errno.EIO))
    with pytest.raises(UserError, match=r"01\.png: the disk reports an error"):
        one.read()


def test_other_settings_nets_and_archives_are_refused(nets, photos, tmp_path, run_script):
    assert run_script(predict_archive, photos, "--part-size", 5, "--shard", "1/2")[0] == 0
    (tmp_path / "others").mkdir()
    shutil.copy(photos / "0/ü 01.png", tmp_path / "others")
    for flags, said in (
        ((photos, "--part-size", 6), "settings.part_size: 5 there, 6 now"),
        ((photos, "--part-size", 5, "--no-masks"), "settings.masks: true there, false now"),
        ((tmp_path / "others", "--part-size", 5), "settings.archive"),
    ):
        code, _, err = run_script(predict_archive, *flags)
        assert code == 1 and said in err and "another --name" in err
    nets.weight_hashes = {"bright": "5678"}
    code, _, err = run_script(predict_archive, photos, "--part-size", 5)
    assert code == 1 and 'weights.bright: "1234" there, "5678" now' in err
    code, _, err = run_script(predict_archive, photos, "--shard", "1/2", "--overwrite")
    assert code == 1 and "give it without --shard" in err
    assert run_script(predict_archive, photos, "--part-size", 6, "--overwrite")[0] == 0
    assert len(list((results(tmp_path) / "parts").glob("*.parquet"))) == 4


def test_a_shard_that_is_missing_is_named(nets, photos, run_script, tmp_path):
    code, _, err = run_script(merge_archive)
    assert code == 1 and "there is no such file" in err
    for shard in ("5/5", "1/3"):  # divided otherwise when it was begun
        predict_archive.main(settings(photos, shard=shard))
    code, _, err = run_script(merge_archive)
    said = "15 of 23 images are not answered yet; these parts are missing: 1, 2, 3."
    assert code == 1 and said in err and "with --shard 2/3, --shard 3/3." in err
    for shard in ("2/3", "3/3"):
        predict_archive.main(settings(photos, shard=shard))
    code, out, _ = run_script(merge_archive)
    assert code == 0 and "images: 23" in out


@pytest.mark.parametrize("ending", ["parquet", "tar"])
def test_a_damaged_part_is_noticed_and_made_again(nets, photos, tmp_path, run_script, ending):
    answer_and_merge(photos)
    rows, asked = rows_of(tmp_path), nets.asked
    file = results(tmp_path) / f"parts/part-000002.{ending}"
    whole = file.read_bytes()
    middle = 600
    if ending == "parquet":  # a number, which reads as another one
        columns = pq.ParquetFile(file).metadata.row_group(0).to_dict()["columns"]
        (column,) = (one for one in columns if one["path_in_schema"] == "spread")
        middle = column["data_page_offset"] - 3  # in the values before it
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    code, _, err = run_script(merge_archive)
    assert code == 1 and f"part-000002.{ending}: damaged" in err and "Repeat the command" in err
    nets.asked = 0
    record = tmp_path / "root/submissions/archive.json"
    assert json.loads(record.read_text())["complete"]
    predict_archive.main(settings(photos))
    assert not json.loads(record.read_text())["complete"]
    assert nets.asked == 8 < asked and file.read_bytes() == whole
    assert merge_archive.main(merge_archive.Settings())["answered"] == 22
    assert json.loads(record.read_text())["complete"] and rows_of(tmp_path) == rows


def test_a_part_of_other_images_or_nets_does_not_count(nets, photos, tmp_path, run_script):
    predict_archive.main(settings(photos, masks=False))
    nets.weight_hashes = {"bright": "5678"}
    predict_archive.main(settings(photos, masks=False, name="other"))
    nets.weight_hashes = {"bright": "1234"}
    first, second = (results(tmp_path) / f"parts/part-00000{k}.parquet" for k in (0, 1))
    other = results(tmp_path, "other") / "parts/part-000000.parquet"
    kept = first.read_bytes()
    for wrong, said in ((second, "not of the images that were listed"), (other, "made by someth")):
        first.write_bytes(wrong.read_bytes())
        code, _, err = run_script(merge_archive)
        assert code == 1 and f"part-000000.parquet: {said}" in err
        predict_archive.main(settings(photos, masks=False))
        assert first.read_bytes() == kept


def test_two_processes_do_not_make_the_same_parts(nets, photos, run_script, tmp_path):
    predict_archive.main(settings(photos, shard="2/2"))
    begun, _, _ = shards.find_begun(tmp_path / "root/submissions", "archive")
    with shards.claimed(begun, shards.Shard(1, 2)) as numbers:
        assert list(numbers) == [0, 1]
        flags = (photos, "--part-size", 5)
        code, _, err = run_script(predict_archive, *flags, "--shard", "1/5")
        assert code == 1 and "another process makes the parts 0 to 1" in err
        assert run_script(predict_archive, *flags, "--shard", "2/2")[0] == 0
        for script, more in ((merge_archive, ()), (predict_archive, (*flags, "--overwrite"))):
            code, _, err = run_script(script, *more)
            assert code == 1 and "a process makes the parts 0 to 1" in err
    assert run_script(predict_archive, *flags, "--shard", "1/5")[0] == 0


def test_what_cannot_be_listed_is_said(nets, photos, tmp_path, run_script):
    names = listed_names(photos)[:3]
    with tarfile.open(tmp_path / "twice.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, inside in zip(names, ("a.png", "b.png", "b.png"), strict=True):
            tar.add(photos / name, inside)
    whole = (tmp_path / "twice.tar").read_bytes()
    second = 512 + -(-(photos / names[0]).stat().st_size // 512) * 512  # where its header begins
    assert whole[second:].startswith(b"b.png")
    (tmp_path / "header.tar").write_bytes(whole[:second] + b"?" + whole[second + 1 :])
    (tmp_path / "cut.tar").write_bytes(whole[: second + 100])
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(photos / names[0], "one.png")
    content = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[:-4])
    (tmp_path / "no.zip").write_text("nothing")
    (tmp_path / "itself").symlink_to("itself")
    with zipfile.ZipFile(tmp_path / "version.zip", "w") as opened:
        opened.writestr("a.png", b"")
    content = bytearray((tmp_path / "version.zip").read_bytes())
    content[content.index(b"PK\1\2") + 6] = 255  # later than there is
    (tmp_path / "version.zip").write_bytes(content)
    (tmp_path / "same.csv").write_text("path\na.png\n./a.png\n")
    (tmp_path / "no.csv").write_text("file,id\na.png,1\n")
    (tmp_path / "gap.csv").write_text("path,id\na.png,1\n,2\n")
    (tmp_path / "no.parquet").write_text("nothing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "round").mkdir()
    (tmp_path / "round/again").symlink_to(tmp_path / "round")
    for place, said in (
        ("twice.tar", "stand for more than one image: b.png"),
        ("header.tar", "damaged or cut off"),
        ("cut.tar", "cannot be read as an archive"),
        ("cut.tar.gz", "cannot be read as an archive"),
        ("no.zip", "cannot be read as an archive"),
        ("no.csv", "there is no column 'path'. Name the one"),
        ("gap.csv", "row 2 has nothing in the column"),
        ("no.parquet", "cannot be read as a table"),
        ("empty", "no image in it"),
        ("round", "leads back to a folder that it is in"),
        ("nowhere", "there is no such file or folder"),
        ("itself", "there is no such file or folder"),
        ("version.zip", "cannot be read as an archive"),
        ("same.csv", "stand for more than one image: a.png"),
        ("photos/notes.txt", "expected a folder, or a file ending in .tar"),
    ):
        code, _, err = run_script(predict_archive, tmp_path / place)
        assert code == 1 and said in err and "Traceback" not in err, (place, err)
    assert not (results(tmp_path) / "parts").exists()


def test_odd_images_are_rows_too(nets, tmp_path):
    folder = tmp_path / "odd"
    (folder / "far").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    for number, shape in enumerate([(1, 1, 3), (1, 3000, 3), (3000, 1, 3)]):
        content = cv2.imencode(".png", np.full(shape, 200, np.uint8))[1].tobytes()
        (tmp_path / "linked" / f"{number}.png").write_bytes(content)
    (folder / "link").symlink_to(tmp_path / "linked")
    (folder / "broken.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    (folder / os.fsdecode(b"\xff.png")).write_bytes(content)
    assert answer_and_merge(folder)["not_answered"] == 2
    rows = {row["name"]: row["reason"] for row in rows_of(tmp_path)}
    assert {name for name, reason in rows.items() if reason} == {"broken.png", "pipe.png"}
    assert "there is no such file" in rows["broken.png"]
    linked = [f"link/{number}.png" for number in range(3)]
    assert list(rows) == ["broken.png", *linked, "pipe.png", "\\xff.png"]


def test_names_that_are_no_text_are_spelt_out(nets, photos, tmp_path):
    odd = tmp_path / os.fsdecode(b"photos \xff")
    photos.rename(odd)
    answer_and_merge(odd)
    row = rows_of(tmp_path)[0]
    assert row["path"] == f"{tmp_path}/photos \\xff/{row['name']}"
    assert "photos \\xff" in (results(tmp_path) / "index.html").read_text("utf-8")


def test_masks_stay_in_their_folder_and_apart(nets, photos, tmp_path):
    image = photos / listed_names(photos)[-1]
    (tmp_path / "tables").mkdir()
    odd = ("../photos/a.png", str(tmp_path / "photos/a.png"), "a.png", ".//a.png", "%/a.png")
    (tmp_path / "tables/%").mkdir()
    for name in odd:
        shutil.copyfile(image, tmp_path / "tables" / name)
    (tmp_path / "tables/a.csv").write_text("\n".join(("path", *odd)))
    answer_and_merge(tmp_path / "tables/a.csv")
    assert (results(tmp_path) / "index.html").read_text().count("data:image/jpeg") == len(odd)
    (tmp_path / "unpacked/here").mkdir(parents=True)
    with tarfile.open(results(tmp_path) / "parts/part-000000.tar") as tar:
        assert tar.getnames()[0] == "%2E%2E/photos/a.png.png"
        tar.extractall(tmp_path / "unpacked/here")
    files = [file for file in (tmp_path / "unpacked").rglob("*") if file.is_file()]
    assert len(files) == len(odd) and all("here" in file.parts for file in files)
    assert parts.mask_name("./0/a.png") == "./0/a.png.png"  # as most tars have it


def test_half_the_nets_and_no_masks(nets, photos, tmp_path, monkeypatch):
    whole = nets.load()
    for halves, columns in (
        ((whole.mask_nets, [], ()), {"lesion_share", "mask_agreement"}),
        (([], whole.class_nets, whole.classes), {"class", "probability_light"}),
    ):
        some = Predictor(*halves, whole.rules, blend)
        monkeypatch.setattr(nets, "load", lambda some=some: some)
        name = sorted(columns)[0]
        mask = "lesion_share" in columns
        answer_and_merge(photos, name=name, mask=mask, classes=not mask)
        there = pq.read_schema(results(tmp_path, name) / "predictions.parquet").names
        assert columns <= set(there) and ("class" in there) != ("lesion_share" in there)
        assert bool(list((results(tmp_path, name) / "parts").glob("*.tar"))) == mask


def test_a_listing_holds_one_part_at_a_time(photos, tmp_path):
    there = listing.write_listing(tmp_path / "l", archive.open_archive(photos, "path"), 5)
    assert (there.images, there.parts, there.size(0), there.size(4)) == (23, 5, 5, 3)
    names = [entry.name for entry in there.entries()]
    assert names == listed_names(photos)
    assert [entry.name for entry in there.part(4)] == names[20:]
    assert pq.ParquetFile(there.file).num_row_groups == 5


def test_a_tar_is_listed_in_little_memory(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(2000):
            tar.addfile(tarfile.TarInfo(f"{number}.png"))
    opened = archive.open_archive(tmp_path / "a.tar", "path")
    tracemalloc.start()
    try:
        for count, _ in enumerate(opened.entries(), 1):
            if count == 1999:
                held = tracemalloc.take_snapshot()
        assert count == 2000
    finally:
        tracemalloc.stop()
    # by tarfile alone, as threads of other tests may be at work: 2000 headers would be 2 MB
    held = held.filter_traces([tracemalloc.Filter(True, tarfile.__file__)])
    assert sum(trace.size for trace in held.statistics("filename")) < 200_000


def test_without_pyarrow_one_line_says_so(nets, photos, run_script, monkeypatch):
    monkeypatch.setattr("misc_utils.messages.find_spec", lambda name: None)
    for script, flags in ((predict_archive, (photos,)), (merge_archive, ())):
        code, _, err = run_script(script, *flags)
        assert code == 1 and len(err.splitlines()) == 1, err
        assert "pip install -r" in err and "requirements-archive.txt" in err
        file = err.split("-r ")[1].strip()
        assert "pyarrow" in Path(file).read_text()
