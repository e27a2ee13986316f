import re
import tracemalloc

import numpy as np
import pytest

from reports import browse
from reports.browse import Row

CLASSES = ["MEL", "<b>NV</b>", "BCC"]


def picture(seed: int = 0, size: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)


def rows(count: int, truth: str | None = None, crop: bool = False):
    for number in range(count):
        probability = np.array([0.7, 0.2, 0.1]) if number % 2 else np.array([0.1, 0.8, 0.1])
        image = np.full((12, 16, 3), number % 256, np.uint8)
        yield Row(f"ISIC_{number}", image, image if crop else None, probability, truth)


def read(file) -> str:
    return file.read_text(encoding="utf-8")


def ids(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_pages_hold_all_rows_in_order(tmp_path):
    index = browse.write_pages(tmp_path / "new", rows(7), CLASSES, "A title", per_page=3)
    assert index == tmp_path / "new" / "index.html"
    names = ["index.html", "page_002.html", "page_003.html"]
    assert sorted(file.name for file in index.parent.iterdir()) == names
    pages = [read(index.parent / name) for name in names]
    assert [ids(page) for page in pages] == [
        ["ISIC_0", "ISIC_1", "ISIC_2"],
        ["ISIC_3", "ISIC_4", "ISIC_5"],
        ["ISIC_6"],
    ]
    for place, page in enumerate(pages):
        links = set(re.findall(r'href="(.*?)"', page))
        assert links == set(names) - {names[place]}
        assert f'aria-current="page">{place + 1}<' in page
        previous = re.search(r'<a href="([^"]*)" rel="prev">', page)
        assert (previous.group(1) if previous else None) == ([None, *names])[place]
        assert "7 images in the order of the table" in page
        assert "Not for diagnosis" in page


def test_pages_need_nothing_else(tmp_path):
    browse.write_pages(tmp_path, rows(3, crop=True), CLASSES, "<i>title</i>", per_page=2)
    for file in tmp_path.iterdir():
        page = read(file)
        assert "<script" not in page and not re.search(r"https?:|url\(|@import", page)
        sources = re.findall(r'<img src="(.*?)" alt="(.+?)"', page)
        assert len(sources) == page.count("<img") == 2 * len(ids(page))
        assert all(source.startswith("data:image/jpeg;base64,") for source, _ in sources)
        assert "&lt;i&gt;title" in page and "<i>title" not in page


def test_names_are_escaped(tmp_path):
    row = Row("<u>x</u>", picture(), None, np.array([0.2, 0.5, 0.3]), "<s>DF</s>")
    page = read(browse.write_pages(tmp_path, [row], CLASSES, "A title"))
    assert ids(page) == ["&lt;u&gt;x&lt;/u&gt;"]
    assert not re.search(r"<u>|<s>|<b>NV", page)
    assert "wrong, truth &lt;s&gt;DF" in page and "<strong>&lt;b&gt;NV" in page


def test_bars_are_the_probabilities(tmp_path):
    row = Row("x", picture(), None, np.array([0.25, 0.625, 0.125]))
    page = read(browse.write_pages(tmp_path, [row], CLASSES, "A title"))
    assert re.findall(r"width:([\d.]+)%", page) == ["25.0", "62.5", "12.5"]
    assert re.findall(r"<span>(\.\d+)</span>", page) == [".250", ".625", ".125"]
    top = re.findall(r'<li class="top"><span>(.*?)</span>', page)
    assert top == ["&lt;b&gt;NV&lt;/b&gt;"]
    assert "right" not in re.findall(r'<span class="(\w+)">', page)  # no truth, no verdict


def test_right_wrong_and_undecided_are_told_and_counted(tmp_path):
    made = [
        Row("a", picture(), None, np.array([0.6, 0.2, 0.2]), "MEL"),
        Row("b", picture(), None, np.array([0.6, 0.2, 0.2]), "BCC"),
        Row("c", picture(), None, np.array([0.4, 0.4, 0.2]), "MEL"),
        Row("d", picture(), None, np.array([0.2, 0.2, 0.6])),
    ]
    page = read(browse.write_pages(tmp_path, made, CLASSES, "A title"))
    assert re.findall(r'<span class="(right|wrong)">', page) == ["right", "wrong", "wrong"]
    assert "right where the truth is known: 1 of 3 (33.3 %)" in page
    assert "decided as MEL 2, BCC 1, undecided 1" in page


def test_the_first_page_is_written_last(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(browse, "write_text", lambda file, text: written.append(file.name))
    browse.write_pages(tmp_path, rows(3), CLASSES, "A title", per_page=1)
    assert written == ["page_003.html", "page_002.html", "index.html"]


def test_an_empty_table_is_one_page(tmp_path):
    page = read(browse.write_pages(tmp_path, [], CLASSES, "A title"))
    assert "0 images" in page and "aria-current" not in page


def test_pages_of_a_longer_table_go_and_other_files_stay(tmp_path):
    (tmp_path / "notes.html").write_text("mine")
    browse.write_pages(tmp_path, rows(5), CLASSES, "A title", per_page=1)
    browse.write_pages(tmp_path, rows(2), CLASSES, "A title", per_page=1)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["index.html", "notes.html", "page_002.html"]


def test_old_pages_stay_when_a_row_is_wrong(tmp_path):
    browse.write_pages(tmp_path, rows(2), CLASSES, "Before", per_page=1)

    def broken():
        yield from rows(3)
        yield Row("ISIC_9", picture(), None, np.array([0.5, 0.5]))

    with pytest.raises(ValueError, match="ISIC_9: 3 probabilities"):
        browse.write_pages(tmp_path, broken(), CLASSES, "After", per_page=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "page_002.html"]
    assert all("Before" in read(file) for file in tmp_path.iterdir())


@pytest.mark.parametrize("probability", [[0.5, 0.6, 1.1], [np.nan, 0.5, 0.5], [-0.1, 0.5, 0.6]])
def test_what_is_no_probability_is_refused(tmp_path, probability):
    row = Row("x", picture(), None, np.array(probability))
    with pytest.raises(ValueError, match=r"probabilities 0\.\.1 expected"):
        browse.write_pages(tmp_path, [row], CLASSES, "A title")
    with pytest.raises(ValueError, match="per_page"):
        browse.write_pages(tmp_path, [], CLASSES, "A title", per_page=0)


def test_memory_does_not_grow_with_the_pages(tmp_path):
    def peak(pages: int) -> int:
        made = (
            Row(f"x{k}", picture(k), None, np.array([0.6, 0.2, 0.2])) for k in range(10 * pages)
        )
        tracemalloc.start()
        browse.write_pages(tmp_path, made, CLASSES, "A title", per_page=10)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(1)  # the templates
    few, many = peak(2), peak(12)
    size = (tmp_path / "index.html").stat().st_size
    assert many < few + size  # of ten more pages, less than one stays


def test_a_page_of_real_size_is_small(tmp_path):
    smooth = np.linspace(0, 255, 600 * 450 * 3).reshape(450, 600, 3).astype(np.uint8)
    made = [Row(f"x{k}", smooth, smooth[:300, :300], np.array([0.6, 0.2, 0.2])) for k in range(20)]
    index = browse.write_pages(tmp_path, made, CLASSES, "A title")
    styles = 12_000
    assert (index.stat().st_size - styles) / 20 * 1512 < 15e6
