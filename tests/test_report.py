import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from evaluation import class_evaluation
from evaluation.class_evaluation import Scored
from misc_utils import files
from reports import class_report, comparison_report, mask_report
from reports.parts import Frame, picture

NAN = float("nan")
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page holds: tags with attributes, the text, sections; refuses tags out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.open, self.tags, self.words = html, [], [], []
        self.feed(html)
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def sections(self) -> list[str]:
        return [attributes["id"] for attributes in self.all("section")]


def assert_needs_nothing_else(page: Page) -> None:
    """One file, no JavaScript, no network; a text for each picture."""
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "<script" not in page.html and not re.search(r"https?:|url\(|@import", page.html)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        if tag == "a":
            assert attributes["href"].startswith("#")
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.all("img"))
    targets = {attributes["href"][1:] for attributes in page.all("a")}
    assert targets == set(page.sections())
    assert "Not for diagnosis" in page.text
    policy = [it["content"] for it in page.all("meta") if it.get("http-equiv")]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def scores(**rows) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


GREY = np.full((30, 40, 3), 200, np.uint8)


SCORES = scores(
    jaccard=(0.828, 0.811, 0.845), dice=(NAN, NAN, NAN), threshold_jaccard=(0.79, 0.7, 0.8)
)
IMAGES = pd.DataFrame(
    {
        "jaccard": [0.2, 0.7, 0.9, 0.649],
        "threshold_jaccard": [0, 0.7, 0.9, 0],
        "dice": [0.3, 0.8, 0.95, 0.7],
        "lesion_share": [0.1, 0.2, 0.3, 0.0],
    },
    index=["ISIC_1", "ISIC_2", "<b>ISIC_3</b>", "ISIC_4"],
)
HISTORY = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "learning_rate": [1e-3] * 3,
        "loss": [3.0, 2.0, 1.0],
        "val_loss": [3.0, 1.5, 2.0],
        "val_jaccard": [0.1, 0.2, 0.3],
    }
)
ABOUT = {
    "Scored": {"images": 10015, "<i>set</i>": "fold"},
    "Settings": {f"setting_{number}": number for number in range(9)},
    "Nothing": {},
}


def framed(frame: dict, changed: dict) -> Frame:
    """A frame, its fields taken out of what is changed."""
    return Frame(**{name: changed.pop(name, value) for name, value in frame.items()})


def write_segmentation(file: Path, **changed) -> Page:
    frame = {"title": "Task 1 & more", "about": ABOUT, "histories": {"run_0": HISTORY}}
    frame = framed(frame | {"limits": [], "notes": []}, changed)
    content = {
        "scores": SCORES,
        "images": IMAGES,
        "galleries": {"Worst": [picture("<b>x</b>", 'a "caption"', GREY)], "Best": []},
    }
    mask_report.write_page(file, frame, **(content | changed))
    return Page(file.read_text(encoding="utf-8"))


def test_segmentation_report(tmp_path):
    columns = {"tuned on other folds": scores(jaccard=(0.9, NAN, NAN), accuracy=(0.95, 0.94, 0.96))}
    limits, notes = ["Not on <other> cameras."], ["A note."]
    page = write_segmentation(tmp_path / "a.html", columns=columns, limits=limits, notes=notes)
    assert_needs_nothing_else(page)
    assert page.sections() == [
        "scores",
        "what-this-was-not-tested-on",
        "distribution",
        "gallery",
        "every-image",
        "training",
        "settings-and-data",
    ]
    assert "<title>Task 1 &amp; more</title>" in page.html
    for text in (
        ".828 (.811 – .845)",
        "tuned on other folds",
        ".950 (.940 – .960)",
        "2 of 4 (50.0 %) lie below 0.65",  # .649 is below, too
        "The median is .674",
        "1 without lesion",
        "1.500 in epoch 2",
        ".300 in epoch 3",
        "Not on <other> cameras.",
        "A note.",
        "10,015",
        "None.",  # the empty gallery
        "All 4, worst first",
    ):
        assert text in page.text, text
    assert "<td>none</td>" in page.html  # dice
    assert "Nothing" not in page.text


def test_names_are_escaped(tmp_path):
    page = write_segmentation(tmp_path / "a.html", histories={"<u>run</u>": HISTORY})
    assert not {"b", "i", "u"} & {tag for tag, _ in page.tags}
    for name in ("<b>ISIC_3</b>", "<b>x</b>", "<i>set</i>", "<u>run</u>"):
        assert name in page.text
    assert '<b>x</b>: a "caption"' in [image["alt"] for image in page.all("img")]


def test_what_is_not_there_has_no_section(tmp_path):
    page = write_segmentation(tmp_path / "a.html", histories={}, galleries={}, about={})
    assert page.sections() == ["scores", "distribution", "every-image"]
    page = write_segmentation(tmp_path / "a.html", histories={"run": HISTORY[:0]})
    assert "training" not in page.sections()  # not a single epoch


def test_long_lists_are_folded(tmp_path):
    page = write_segmentation(tmp_path / "a.html")
    folded = re.findall(r"<summary>(.*?)</summary>", page.html)
    assert folded == ["All 4, worst first", 'Settings <span class="count">(9)</span>']


def test_worst_images_come_first_and_not_all_of_many(tmp_path):
    many = pd.concat([IMAGES] * 100)
    many.index = [f"ISIC_{number:03d}" for number in range(400)]
    page = write_segmentation(tmp_path / "a.html", images=many)
    assert "The worst 300 of 400" in page.text
    ids = re.findall(r'<th scope="row">(ISIC_\d+)</th>', page.html)
    assert len(ids) == 300 and ids[:2] == ["ISIC_000", "ISIC_004"]
    assert "200 of 400 (50.0 %)" in page.text


def test_no_learning_rate_among_the_curves(tmp_path):
    page = write_segmentation(tmp_path / "a.html")
    alts = [image["alt"] for image in page.all("img") if "of each epoch" in image["alt"]]
    assert [alt.split(" of ")[0] for alt in alts] == ["loss", "Jaccard"]


def test_wrong_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"missing: \['lesion_share'\]"):
        write_segmentation(tmp_path / "a.html", images=IMAGES.drop(columns="lesion_share"))
    with pytest.raises(ValueError, match="missing: rows"):
        write_segmentation(tmp_path / "a.html", images=IMAGES[:0])
    with pytest.raises(ValueError, match=r"missing: \['high'\]"):
        write_segmentation(tmp_path / "a.html", scores=SCORES.drop(columns="high"))
    assert list(tmp_path.iterdir()) == []


def test_report_is_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / "a.html"
    write_segmentation(file)
    before = file.read_bytes()

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_segmentation(file, title="another")
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


CLASSES = ["<b>MEL</b>", "NV", "BCC"]
TRUTH = np.array([0] * 5 + [1] * 10)
PROBABILITY = np.full((15, 3), 0.2)
PROBABILITY[np.arange(15), TRUTH] = 0.6
PROBABILITY[0] = [0.1, 0.8, 0.1]
CONFUSION = np.array([[3, 1, 0, 1], [0, 1500, 0, 0], [0, 0, 0, 0]])


def write_classification(file: Path, **changed) -> Page:
    both = [(name, measure) for name in CLASSES for measure in ("recall", "precision")]
    per_class = pd.DataFrame(
        {"value": 0.5, "low": 0.4, "high": 0.6}, index=pd.MultiIndex.from_tuples(both)
    )
    per_class.loc[("BCC", "recall")] = NAN
    scored = {
        "classes": CLASSES,
        "truth": TRUTH,
        "probability": PROBABILITY,
        "point": SimpleNamespace(confusion=CONFUSION),
        "overall": scores(accuracy=(0.8, 0.7, 0.9), balanced_accuracy=(0.709, 0.7, 0.72)),
        "per_class": per_class,
        "calibrated": None,
        "columns": {},
    }
    galleries = {"Confident mistakes": [picture("ISIC_1", "NV, truth MEL", GREY)]}
    frame = framed({"title": "Task 3", "about": ABOUT, "limits": []}, changed)
    class_report.write_page(file, frame, Scored(**(scored | changed)), galleries)
    return Page(file.read_text(encoding="utf-8"))


def test_classification_report(tmp_path):
    columns = {
        "uncalibrated": scores(
            balanced_accuracy=(0.709, 0.7, 0.72), negative_log_likelihood=(1.25, NAN, NAN)
        ),
        "calibrated": scores(negative_log_likelihood=(0.5, NAN, NAN), calibration_error=(NAN,) * 3),
    }
    page = write_classification(
        tmp_path / "a.html", columns=columns, calibrated=PROBABILITY, limits=["None at all."]
    )
    assert_needs_nothing_else(page)
    assert page.sections() == [
        "scores",
        "what-this-was-not-tested-on",
        "by-class",
        "confusion",
        "roc-and-calibration",
        "gallery",
        "settings-and-data",
    ]
    assert "b" not in {tag for tag, _ in page.tags}
    for text in (
        "Diagnoses (Task 3) of 15 images",
        ".709 (.700 – .720)",
        "<b>MEL</b> taken for NV: 1 of 5 (20.0 %)",
        "which counts as wrong: 1 of 1,505 (0.1 %)",
        "No image in the truth, thus no ROC curve: BCC.",
        "No image in the truth: BCC. As in the organisers' scorer",
        "negative log likelihood",
        "1.250",
    ):
        assert text in page.text, text
    row = re.search(r'<tr><th scope="row">BCC</th>(.*?)</tr>', page.html).group(1)
    assert row == "<td>0</td><td>none</td><td>.500 (.400 – .600)</td>"
    assert "Picture" not in page.text


def test_how_an_absent_class_counts_is_said_beside_its_number():
    """Sensitivity 1, as to the organisers, and no recall: both are in the text, with the reason."""
    table = pd.DataFrame({"lesion": list("abcd"), "fold": 0, "truth": ["MEL", "NV", "NV", "NV"]})
    probability = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    for name, column in zip(("MEL", "NV", "BCC"), probability.T, strict=True):
        table[name] = column
    truth = np.array([0, 1, 1, 1])
    scored = class_evaluation.score(table, truth, np.log(probability)[None], calibrate=False)
    text = class_report.text(scored, table)
    assert scored.per_class["value"]["BCC", "sensitivity"] == 1 and np.isnan(scored.point.recall[2])
    assert "No image in the truth: BCC. As in the organisers' scorer" in text
    assert class_report.conventions(dataclasses.replace(scored, truth=np.array([0, 1, 2, 2]))) == []


def test_no_mistake_is_named_where_none_was_made():
    right = np.array([[2, 0, 0], [0, 3, 0]])
    assert class_report.mistakes(right, ["MEL", "NV"]) == []


def two_way(rows: dict) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"]).set_axis(
        pd.MultiIndex.from_tuples(list(rows)) if rows else None
    )


def test_comparison_report(tmp_path):
    table = two_way(
        {
            ("<b>a</b>", "jaccard"): (0.8, 0.7, 0.9),
            ("b", "jaccard"): (0.81, 0.7, 0.9),
            ("b", "dice"): (0.9, NAN, NAN),
        }
    )
    differences = two_way(
        {
            ("b - <b>a</b>", "jaccard"): (0.01, -0.01, 0.03),
            ("b - <b>a</b>", "dice"): (0.02, 0.01, 0.03),
            ("c - b", "jaccard"): (-0.02, -0.03, -0.01),
            ("c - b", "dice"): (0.02, NAN, NAN),
        }
    )
    file = tmp_path / "a.html"
    frame = Frame("Compared", ABOUT, {"run_0": HISTORY})
    comparison_report.write_page(file, frame, table, differences)
    page = Page(file.read_text(encoding="utf-8"))
    assert_needs_nothing_else(page)
    assert page.sections() == ["scores", "differences", "training", "settings-and-data"]
    assert "b" not in {tag for tag, _ in page.tags}
    words = re.findall(r"<td>(above 0|below 0|holds 0: no difference shown|none)</td>", page.html)
    assert words == ["holds 0: no difference shown", "above 0", "below 0", "none"]
    assert ".010 (−.010 – .030)" in page.text
    assert "<td>.800 (.700 – .900)</td><td></td>" in page.html  # no dice of a
    assert len([it for it in page.all("img") if "with their intervals" in it["alt"]]) == 4


def test_comparison_without_pairs(tmp_path):
    file = tmp_path / "a.html"
    table = two_way({("a", "jaccard"): (0.8, 0.7, 0.9)})
    comparison_report.write_page(file, Frame("Compared"), table, table[:0])
    assert Page(file.read_text(encoding="utf-8")).sections() == ["scores"]
