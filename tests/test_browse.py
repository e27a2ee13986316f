import re
import tracemalloc

import numpy as np
import pytest

from reports import browse

CLASSES = ["MEL", "<b>NV</b>", "BCC"]


@pytest.fixture(autouse=True)
def few_per_page(monkeypatch):
    monkeypatch.setattr(browse, "PER_PAGE", 3)


def picture(seed: int = 0, size: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)


def write(folder, probability, names=None, truth=None, title="A title", read=None):
    names = names or [f"ISIC_{number}" for number in range(len(probability))]
    read = read or (lambda image_id: (np.full((12, 16, 3), 7, np.uint8), None))
    return browse.write_pages(
        folder, title, names, np.array(probability), CLASSES, truth or {}, read
    )


def many(folder, count, **named):
    """The pages of rows that two classes take turns in."""
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]] * 20)
    return write(folder, rows[:count], **named)


def read(file) -> str:
    return file.read_text(encoding="utf-8")


def ids(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_pages_hold_all_rows_in_order(tmp_path):
    index = many(tmp_path / "new", 7)
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
    many(tmp_path, 4, title="<i>title</i>", read=lambda image_id: (picture(), picture(1)))
    for file in tmp_path.iterdir():
        page = read(file)
        assert "<script" not in page and not re.search(r"https?:|url\(|@import", page)
        sources = re.findall(r'<img src="(.*?)" alt="(.+?)"', page)
        assert len(sources) == page.count("<img") == 2 * len(ids(page))
        assert all(source.startswith("data:image/jpeg;base64,") for source, _ in sources)
        assert "&lt;i&gt;title" in page and "<i>title" not in page


def test_every_image_has_its_own_picture(tmp_path):
    shades = {"ISIC_0": 10, "ISIC_1": 200}
    many(tmp_path, 2, read=lambda i: (np.full((9, 9, 3), shades[i], np.uint8), None))
    sources = re.findall(r'<img src="(.*?)" alt="(ISIC_\d)"', read(tmp_path / "index.html"))
    grey = {i: browse.embed(np.full((9, 9, 3), v, np.uint8), 160, 72) for i, v in shades.items()}
    assert {image_id: source for source, image_id in sources} == grey


def test_names_are_escaped(tmp_path):
    truth = {"<u>x</u>": "<s>DF</s>"}
    page = read(write(tmp_path, [[0.2, 0.5, 0.3]], ["<u>x</u>"], truth))
    assert ids(page) == ["&lt;u&gt;x&lt;/u&gt;"]
    assert not re.search(r"<u>|<s>|<b>NV", page)
    assert "wrong, truth &lt;s&gt;DF" in page and "<strong>&lt;b&gt;NV" in page


def test_bars_are_the_probabilities(tmp_path):
    page = read(write(tmp_path, [[0.25, 0.625, 0.125]]))
    assert re.findall(r"width:([\d.]+)%", page) == ["25.0", "62.5", "12.5"]
    assert re.findall(r"<span>(\.\d+)</span>", page) == [".250", ".625", ".125"]
    top = re.findall(r'<li class="top"><span>(.*?)</span>', page)
    assert top == ["&lt;b&gt;NV&lt;/b&gt;"]
    assert "right" not in re.findall(r'<span class="(\w+)">', page)  # no truth, no verdict


def test_right_wrong_and_undecided_are_told_and_counted(tmp_path):
    probability = [[0.6, 0.2, 0.2], [0.6, 0.2, 0.2], [0.4, 0.4, 0.2], [0.2, 0.2, 0.6]]
    truth = {"a": "MEL", "b": "BCC", "c": "MEL", "other": "MEL"}
    write(tmp_path, probability, list("abcd"), truth)
    page = read(tmp_path / "index.html")
    assert re.findall(r'<span class="(right|wrong)">', page) == ["right", "wrong", "wrong"]
    assert "right where the truth is known: 1 of 3 (33.3 %)" in page
    assert "decided as MEL 2, BCC 1, undecided 1" in page


def test_the_first_page_is_written_last(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(browse, "write_text", lambda file, text: written.append(file.name))
    many(tmp_path, 7)
    assert written == ["page_003.html", "page_002.html", "index.html"]


def test_an_empty_table_is_one_page(tmp_path):
    page = read(many(tmp_path, 0))
    assert "0 images" in page and "aria-current" not in page


@pytest.mark.parametrize(
    "probability", [[0.5, 0.6, 1.1], [np.nan, 0.5, 0.5], [-0.1, 0.5, 0.6], [0.5, 0.5]]
)
def test_what_is_no_probability_is_refused(tmp_path, probability):
    with pytest.raises(ValueError, match=r"3 probabilities 0\.\.1 expected"):
        write(tmp_path, [probability])
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_pages(tmp_path):
    def peak(pages: int) -> int:
        tracemalloc.start()
        many(tmp_path, 3 * pages, read=lambda image_id: (picture(), None))
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(1)  # the templates
    few, more = peak(2), peak(12)
    size = (tmp_path / "index.html").stat().st_size
    assert more < few + size  # of ten more pages, less than one stays


def test_a_page_of_real_size_is_small(tmp_path, monkeypatch):
    monkeypatch.setattr(browse, "PER_PAGE", 20)
    smooth = np.linspace(0, 255, 600 * 450 * 3).reshape(450, 600, 3).astype(np.uint8)
    index = many(tmp_path, 20, read=lambda image_id: (smooth, smooth[:300, :300]))
    styles = 12_000
    assert (index.stat().st_size - styles) / 20 * 1512 < 15e6
