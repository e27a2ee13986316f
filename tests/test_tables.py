import io
import random
import re
import sys
import unicodedata

import numpy as np
import pytest

from datasets import tables
from datasets.tables import Columns, read_groups, read_labels, read_metadata, read_table, spelling
from misc_utils.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Writes a table; text as UTF-8."""

    def file(content, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return file


@pytest.fixture
def opened(write):
    """A table, and the lines of the images that its first column names by their id."""

    def read(content):
        file = write(content)
        table = read_table(file)
        ids = {spelling(cell): cell for cell in table.iloc[:, 0]}
        return file, table, tables.image_ids(file, table, table.columns[0], ids)[0]

    return read


def rows_of(file):
    table = read_table(file)
    return [list(table.columns), *table.to_numpy().tolist()]


PLAIN = [["Bild", "Diagnose"], ["a.jpg", "Nävus"], ["b.jpg", "Melanom"]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_delimiter_encoding_and_line_end(write, delimiter, encoding, end):
    text = "".join(delimiter.join(row) + end for row in PLAIN)
    assert rows_of(write(text, encoding=encoding)) == PLAIN
    assert rows_of(write(text.rstrip(end), encoding=encoding)) == PLAIN


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf16_of_either_byte_order(write, order):
    text = "\ufeff" + "".join("\t".join(row) + "\r\n" for row in PLAIN)
    assert rows_of(write(text, "Unicode text.txt", order)) == PLAIN


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nBild;Diagnose\r\na.jpg;Nävus\r\nb.jpg;Melanom\r\n",
        "SEP=,\nBild,Diagnose\na.jpg,Nävus\nb.jpg,Melanom\n",
        '"sep=\t"\rBild\tDiagnose\ra.jpg\tNävus\rb.jpg\tMelanom\r',
        "Bild;Diagnose;;\na.jpg;Nävus;;\nb.jpg;Melanom;;\n;;;\n;;;\n",  # columns and rows emptied
        "Bild;Diagnose\na.jpg;Nävus;\nb.jpg;Melanom;\n",
        "\n\n Bild ; Diagnose \n\n a.jpg ;Nävus\xa0\n  ;\nb.jpg;Melanom\n\n",
        '"Bild";"Diagnose"\n"a.jpg"; "Nävus"\n"b.jpg";"Melanom"\n',
        "Bild;Diagnose\na.jpg;Na\u0308vus\nb.jpg;Melanom",  # accents written apart
    ],
)
def test_what_excel_makes_of_a_table(write, text):
    assert rows_of(write(text)) == PLAIN


def test_lines_are_numbered_as_in_the_file(write):
    file = write('sep=,\n\nimage,note\na,"two\nlines"\n\nb,"with, comma and ""quotes"""\n')
    table = read_table(file)
    assert table.index.tolist() == [4, 7]
    assert table["note"].tolist() == ["two\nlines", 'with, comma and "quotes"']
    assert read_table(write("image,x\na,1\n\nb,2\n")).index.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("header", "row", "width"),
    [
        ("Bild;Diagnose (mel, nv, bcc)", "a;mel", 2),  # more commas in the header than semicolons
        ('"Bild, klein",Diagnose', "a,mel", 2),
        ('"a;b;c;d",Diagnose', "x,mel", 2),
        ("Bild;Alter (Jahre, etwa)", "a;45,5", 2),
        ("image|note", "a|x, y, z", 2),
        ("image", "a", 1),
        ("image;;", "a;;", 1),
    ],
)
def test_the_delimiter_is_that_of_header_and_lines(write, header, row, width):
    assert read_table(write(f"{header}\n{row}\n")).shape == (1, width)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found nothing"),
        (b"\n \n\t\n", "found nothing"),
        (b"image,label\n", "found only one line"),
        ("image,label\n".encode("utf-16"), "found only one line"),
        (b"image,label\na,mel,x\nb\nc,nv\n", r"2 cells.*line 2 \(3\), line 3 \(1\)\."),
        (b"image,label,\na,mel,x\n", r"2 cells.*line 2 \(3\)"),
        (b"image,label\na\n", r"2 cells.*line 2 \(1\)"),
        (b"image,label,age,label,age\na,mel,1,2,3\n", "names label, age twice"),
        (b"image,,label\na,1,mel\n", "none for column 2"),
        (b",image,label\n0,a,mel\n", "none for column 1.*only numbers the lines"),
        (b'image,label\na,mel\nb,"nv\nc,nv\n', "line 3: unexpected end of data"),
        (b'image,label\na,"mel" x\n', "line 2: ',' expected after '\"'"),
        (b'image;label\na;"' + b"x" * 200_000, "line 2: field larger than field limit"),
        (b"image,label\na,m\0el\n", r"line 2 holds '\\x00'"),
        (b"image\r\na\rb\nc\x01", r"line 4 holds '\\x01'"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "holds"),
        (b"\xff\xfei", "not a text in UTF-8, UTF-16"),
        (b"image,label\na,m\x81l\n", "not a text in UTF-8, UTF-16"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00\x00", "Save the table as CSV"),  # an old .xls
    ],
)
def test_what_is_no_table_is_refused_by_name(write, content, message):
    with pytest.raises(UserError, match=rf"table\.csv.*{message}"):
        read_table(write(content))


def test_folders_and_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"expected a file.*this is none"):
        read_table(tmp_path)
    with pytest.raises(UserError, match=r"gone\.csv: cannot be read \(No such file"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(UserError, match=r"cannot be read \(File name too long"):
        read_table(tmp_path / ("x" * 300))


def test_windows_text_is_said(write, caplog):
    caplog.set_level("INFO")
    read_table(write("image;Läsion\na;1", encoding="utf-8"))
    assert not caplog.text
    read_table(write("image;Läsion\na;1", encoding="cp1252"))
    assert "read as Windows-1252" in caplog.text


def test_excel_without_openpyxl_says_how_to_get_it(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=rf"{sys.executable} -m pip install openpyxl.*CSV"):
        read_table(write(b"PK\x03\x04", "table.xlsx"))
    assert rows_of(write("image,label\na,mel\n", "text.xlsx")) == [["image", "label"], ["a", "mel"]]
    with pytest.raises(UserError, match="not a text"):
        read_table(write(b"PK\x03\x04\x00\x00", "table.zip"))


def test_excel(write, caplog):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "nothing"
    sheet = book.create_sheet("images")
    for row in (
        [],
        ["image", "age", "sure", None],
        ["0001", 45, True],
        [],
        ["u\u0308 ", 45.5, None],
    ):
        sheet.append(row)
    sheet["D9"].number_format = "0.00"  # an empty cell
    stream = io.BytesIO()
    book.save(stream)
    table = read_table(write(stream.getvalue(), "table.XLSX"))
    assert table.to_numpy().tolist() == [["0001", "45", "True"], ["ü", "45.5", ""]]
    assert list(table.columns) == ["image", "age", "sure"]
    assert table.index.tolist() == [3, 5]
    assert not caplog.text
    book.create_sheet("more").append(["x"])
    stream = io.BytesIO()
    book.save(stream)
    read_table(write(stream.getvalue(), "table.xlsx"))
    assert "only the sheet images is read, not more" in caplog.text
    for content in (b"PK\x03\x04", stream.getvalue()[:-300], stream.getvalue().replace(b"<", b"&")):
        with pytest.raises(UserError, match="not a whole Excel file"):
            read_table(write(content, "table.xlsx"))
    stream = io.BytesIO()
    openpyxl.Workbook().save(stream)
    with pytest.raises(UserError, match="found nothing"):
        read_table(write(stream.getvalue(), "table.xlsx"))


@pytest.mark.parametrize(
    ("header", "told", "found"),
    [
        ("image_id,x", None, "image_id"),
        ("Image-ID,x", None, "Image-ID"),
        ("x,IMAGE NAME", None, "IMAGE NAME"),
        ("ISIC_ID,x", None, "ISIC_ID"),
        ("Dateiname,x", None, "Dateiname"),
        ("image,image_id,x", "IMAGE_ID", "image_id"),
        ("image,X", " x ", "X"),
        ("x,X", "X", "X"),
    ],
)
def test_columns_are_found(write, header, told, found):
    file = write(f"{header}\n{header}\n")
    assert tables.image_column(file, read_table(file), Columns(told)) == found


@pytest.mark.parametrize(
    ("header", "told", "message"),
    [
        ("image,name,x", None, "any of the columns image, name.*--image-column"),
        ("Image,image,x", None, "any of the columns Image, image"),
        ("Aa,aA,x", "aa", "any of the columns Aa, aA"),
        ("image,x", "y", "no column 'y'.*--image-column: image, x"),
        ("image,x", "", "no column ''"),
        ("image_id,x", "image id", "no column 'image id'"),
        ("picture number,x", None, "no column has a usual name.*picture number, x"),
    ],
)
def test_columns_that_are_not_clear_are_asked_for(write, header, told, message):
    file = write(f"{header}\n{header}\n")
    with pytest.raises(UserError, match=rf"table\.csv: .*{message}"):
        tables.image_column(file, read_table(file), Columns(told))


def test_a_column_that_is_not_there_is_none(write):
    file = write("image,x\na,1\n")
    found = tables.find_column(file, read_table(file), Columns(), tables.LABEL_COLUMNS, "label")
    assert found is None


@pytest.mark.parametrize(
    "text",
    [
        "a/Größe 1",
        " A/GRÖSSE 1.JPG ",
        "a\\größe 1.tiff",
        "./a//größe 1.heic",
        "/a/größe 1.DCM",
        unicodedata.normalize("NFD", "a/Größe 1.webp"),
    ],
)
def test_spellings_of_one_image(text):
    assert spelling(text) == "a/grösse 1"


@pytest.mark.parametrize(
    "suffix", ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "heic", "heif", "dcm"]
)
def test_suffixes_of_images_are_left_off_once(suffix):
    assert spelling(f"x.{suffix}") == spelling(f"x.{suffix.upper()}") == "x"
    assert spelling(f"x.png.{suffix}") == "x.png"
    assert spelling(f"x{suffix}") == f"x{suffix}"
    assert spelling(f"x.{suffix}2") == f"x.{suffix}2"


def test_images_of_a_table(write):
    file = write(
        "image,x\nc/B.png,1\n/data/a/1.jpg,2\n\nx/y/gone,3\nISIC_2,4\nx/3.tif,5\nb/1.JPG,6\n"
    )
    ids = {"a/1": "a__1", "b/1": "b__1", "b": "B", "isic_2": "ISIC_2", "a/3": "a/3", "3": "a/3"}
    found, strays = tables.image_ids(file, read_table(file), "image", ids)
    assert found == {"B": 2, "a__1": 3, "ISIC_2": 6, "b__1": 8}
    assert list(found) == ["B", "a__1", "ISIC_2", "b__1"]
    assert strays == ["x/y/gone", "x/3.tif"]  # of another folder than a


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1\nb,2\nA.jpg,3\n", r"'image' names it; keep one line of a \(lines 2 and 4\)"),
        ("a,1\n,2\n,3\n", "empty in line 3, 4"),
        (
            "x,1\ny,2\n",
            r"none of the 2 images. It holds x, y; expected such as a, b\..*--image-col",
        ),
    ],
)
def test_images_that_are_not_clear(write, rows, message):
    file = write(f"image,x\n{rows}")
    with pytest.raises(UserError, match=rf"table\.csv: .*{message}"):
        tables.image_ids(file, read_table(file), "image", {"a": "a", "b": "b"})


HOT = "image,MEL,NV,UNK\na,0.0,1.0,0.0\nb,1.0,0.0,0.0\nc,0,1,0\n"


@pytest.mark.parametrize(
    ("text", "options", "labels", "classes", "said"),
    [
        ("image,dx\na,nv\nb,mel\nc,nv\n", {}, [0, 1, 0], ("nv", "mel"),
         "column dx of table.csv; classes: 2."),
        ("image,dx\na,nv\nb,mel\nc,nv\n", {"classes": ["MEL", "NV", "DF"]}, [1, 0, 1],
         ("MEL", "NV", "DF"), "classes: 3, without an image: DF."),
        ("image,target\na,0\nb,1\nc,0\n", {}, [0, 1, 0], ("0", "1"), "column target"),
        ("image,target\na,1.0\nb,0.0\nc,0.\n", {}, [1, 0, 0], ("0", "1"), "column target"),
        ("image,target\na,1\nb,0\nc,0\n", {"classes": ["0.0", " 1"]}, [1, 0, 0], ("0", "1"),
         "target"),
        ("image,x,dx\na,p,nv\nb,q,nv\nc,p,nv\n", {"told": Columns(label="X")}, [0, 1, 0],
         ("p", "q"), "column x"),
        ("image,dx\na,nv\nb,NA\nc,nv\n", {"classes": ["nv ", "NA"]}, [0, 1, 0], ("nv", "NA"),
         "column dx"),
        ("image,dx\na,u\nb,v\nc,w\n", {"classes": ["u", "w", "v"]}, [0, 2, 1], ("u", "w", "v"),
         "column dx"),
        ("image,dx\na,nv\nb,NA\nc,nv\n", {"subset": True}, [0, None, 0], ("nv",),
         "classes: 1; images left out as they have no label: 1."),
        (HOT, {}, [1, 0, 1], ("MEL", "NV", "UNK"),
         "columns MEL, NV, UNK of table.csv; classes: 3, without an image: UNK."),
        (HOT, {"classes": ["nv", "mel"]}, [0, 1, 0], ("nv", "mel"), "columns NV, MEL of"),
        (HOT, {"classes": ["DF", "UNK", "NV", "MEL"]}, [2, 3, 2], ("DF", "UNK", "NV", "MEL"),
         "classes: 4, without an image: DF, UNK."),
        ("image,Patient_ID,MEL,NV,Age_approx\na,0,0,1,1\nb,1,1,0,0\nc,1,0,1,0", {}, [1, 0, 1],
         ("MEL", "NV"), "columns MEL, NV of"),
        ("image,MEL,NV,note\na,0,1,x\nb,,,\nc,0,1,\n", {"subset": True}, [1, None, 1],
         ("MEL", "NV"), "without an image: MEL; images left out as they have no label: 1."),
        ("image,who,MEL,NV\na,1,0,1\nb,0,1,0\nc,1,0,1", {"told": Columns(group="Who")}, [1, 0, 1],
         ("MEL", "NV"), "MEL, NV"),
        # columns of 0 and 1 that are no classes do not count beside a column of labels
        ("image,dx,hair,ruler\na,nv,0,0\nb,mel,1,1\nc,nv,0,1", {}, [0, 1, 0], ("nv", "mel"), "dx"),
        ("image,dx,hair\na,nv,0\nb,mel,1\nc,nv,0", {}, [0, 1, 0], ("nv", "mel"), "dx"),
        # what to tell where both are there
        ("image,dx,M,N\na,nv,0,1\nb,mel,1,0\nc,nv,0,1", {"told": Columns(label="dx")}, [0, 1, 0],
         ("nv", "mel"), "column dx"),
        ("image,dx,M,N\na,nv,0,1\nb,mel,1,0\nc,nv,0,1", {"classes": ["M", "N"]}, [1, 0, 1],
         ("M", "N"), "columns M, N"),
        ("image,Klasse\na,Nävus\nb,x\nc,x", {"classes": ["NA\u0308VUS", "X"]}, [0, 1, 1],
         ("NÄVUS", "X"), "column Klasse"),
    ],
)  # fmt: skip
def test_labels(opened, text, options, labels, classes, said):
    found, names, sentence = read_labels(*opened(text), **options)
    expected = {i: k for i, k in zip("abc", labels, strict=True) if k is not None}
    assert (found, names) == (expected, classes)
    assert list(found) == list(expected)
    assert said in sentence
    assert sentence.startswith("Labels are read from the ") and sentence.endswith(".")


def test_classes_are_those_of_the_images(opened):
    file, table, lines = opened("image,dx\na,vasc\nb,nv\nc,\nd,mel\ne,nv\n")
    lines = {image: lines[image] for image in "deb"}
    labels, classes, _ = read_labels(file, table, lines)
    assert (labels, classes) == ({"d": 1, "e": 0, "b": 0}, ("nv", "mel"))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("image,dx\na,nv\nb,\nc,n/a\n", {},
         r"column dx: expected a label.*line 3, line 4\..*--subset"),
        ("image,dx\na,\nb,\n", {"subset": True},
         "column dx: expected a label.*none in line 2, line 3"),
        ("image,dx\na,nv\nb,xx\nc,nv\n", {"classes": ["NV", "MEL"]},
         r"classes NV, MEL; found line 3 \(xx\).*--classes"),
        ("image,dx\na,nv\nb,mel\nc,NV\nd,nv\n", {},
         "one spelling of each class; found nv, mel, NV"),
        ("image,dx\na,nv\nb,mel\n", {"classes": ["nv", "mel", "NV"]}, "each class once"),
        ("image,dx\na,u\nb,v\nc,w\n", {}, r"3 names in 3 lines \(u, v, w\).*probably not classes"),
        ("image,dx\n" + "".join(f"{k},{k // 2}\n" for k in range(2002)), {}, "1001 names in 2002"),
        ("image,dx,target\na,nv,0\n", {}, "any of the columns dx, target.*--label-column"),
        ("isic_id,diagnosis_1,diagnosis_2,diagnosis_3,sex\na,Benign,x,y,male\n", {},
         "any of the columns diagnosis_1, diagnosis_2, diagnosis_3"),
        ("image,dx\na,nv\n", {"told": Columns(label="class")}, "no column 'class'.*image, dx"),
        ("image,melanoma\na,0\nb,1\n", {},
         "no column has a usual name.*--label-column: image, mel"),
        ("image,MEL,NV\na,0,1\nb,0,0\nc,1,1\nd,,1\n", {},
         r"single 1 .* MEL, NV; fix line 3 \(0 0\), line 4 \(1 1\), line 5 \( 1\)\."),
        ("image,MEL,NV\na,0,1\nb,,\n", {}, "columns MEL, NV: expected a label of each.*line 3"),
        ("image,MEL,NV\na,0.5,0.5\n", {"classes": ["NV", "MEL"]}, r"fix line 2 \(0.5 0.5\)"),
        (HOT, {"classes": ["NV", "UNK"]}, r"single 1 .* NV, UNK; fix line 3 \(0.0 0.0\)"),
        (HOT, {"classes": ["NV", "DF"]},
         r"expected one of the classes NV, DF; found line 3 \(MEL\)"),
        (HOT, {"classes": ["NV", "NV"]}, "each class once"),
        ("image,mel,MEL\na,0,1\n", {}, "one spelling of each class; found mel, MEL"),
        ("image,dx,M,N\na,nv,0,1\nb,mel,1,0\nc,nv,0,1", {},
         "column dx or in those of 0 and 1: M, N. Tell which: dx with --label-column, or "
         "the names of those columns with --classes"),
    ],
)  # fmt: skip
def test_labels_that_are_not_clear(opened, text, options, message):
    with pytest.raises(UserError, match=rf"(?s)table\.csv.*{message}"):
        read_labels(*opened(text), **options)


def test_two_hundred_classes_are_read(opened):
    text = "image,dx\n" + "".join(f"{k},{k // 2}\n" for k in range(400))
    assert len(read_labels(*opened(text))[1]) == 200


def test_other_lines_may_be_wrong(opened):
    file, table, lines = opened(HOT + "d,1,1,1\ne,x,y,z\nf,,,\n")
    labels, _, _ = read_labels(file, table, {image: lines[image] for image in "abc"})
    assert labels == {"a": 1, "b": 0, "c": 1}


@pytest.mark.parametrize(
    ("text", "told", "groups", "said"),
    [
        ("image,lesion_id\na,L1\nb,L2\nc,L1\n", None, ["L1", "L2", "L1"], "the column lesion_id"),
        ("image,Patient\na,P1\nb,P1\nc,P1\n", None, ["P1", "P1", "P1"], "the column Patient"),
        ("image,lesion_id,patient_id\na,L,P\nb,M,P\nc,N,Q\n", None, ["P", "P", "Q"], "patient_id"),
        ("image,lesion_id,patient_id\na,L,P\nb,L,-1\nc,N,Q\n", None, ["L", "L", "N"], "lesion_id"),
        ("image,lesion_id,patient_id\na,L,P\nb,,P\nc,,unknown\n", None, ["P", "P", None],
         "no patient_id, each counts as one of its own: 1: c"),
        ("image,lesion_id,patient_id\na,L,P\nb,M,P\nc,L,Q\n", "Lesion_id", ["L", "M", "L"],
         "lesion_id"),
        ("image,who\na,x\nb,NA\nc,x\n", "who", ["x", None, "x"], "no who, each .* 1: b"),
        ("image,who\na,x\nb,x\nc,x\n", None, [None] * 3, "no column of patients or lesions"),
    ],
)  # fmt: skip
def test_groups(opened, caplog, text, told, groups, said):
    caplog.set_level("INFO")
    found, _ = read_groups(*opened(text), Columns(group=told))
    assert found == dict(zip("abc", groups, strict=True))
    assert re.search(said, caplog.text)


def test_columns_of_another_table_that_hold_the_same(opened):
    def like(columns, column):
        return tables.like_column(opened(f"image,{columns}\na,1,2\n")[1], column)

    assert like("x,Patient", "patient_id") == "Patient" and like("x,WHO", "who") == "WHO"
    assert like("x,lesion_id", "patient_id") is None and like("x,lesion_id", "who") is None
    assert [tables.kind_of_group(name) for name in ("Patient-ID", "who", None)] == [
        "patient",
        "lesion",
        "lesion",
    ]


def test_messages_name_what_was_told_where_it_was_told(opened, write):
    columns = Columns(told_as=lambda key: f"key {key}")
    with pytest.raises(UserError, match="Tell which it is with key label_column"):
        read_labels(*opened("image,x\na,1\n"), columns)
    with pytest.raises(UserError, match="with key image_column: x, y"):
        tables.image_column(write("x,y\n1,2\n"), read_table(write("x,y\n1,2\n")), columns)
    with pytest.raises(UserError, match=r"names their classes too with|key classes"):
        read_labels(*opened("image,dx\na,nv\nb,x\n"), columns, classes=("nv", "mel"))


def test_groups_that_are_not_clear(opened):
    with pytest.raises(UserError, match=r"any of the columns patient, patient_id.*--group-col"):
        read_groups(*opened("image,patient,patient_id\na,1,1\n"))
    with pytest.raises(UserError, match="no column 'who'"):
        read_groups(*opened("image,patient\na,1\n"), Columns(group="who"))


def test_metadata(opened, caplog):
    caplog.set_level("INFO")
    file, table, lines = opened(
        "image,Age_approx,GENDER,site\n"
        'a,45.0,male,Lower Extremity\nb,85+,F,unknown\nc,,unknown,\nd,"45,5",Weiblich,NA\n'
        "e,> 90,M,head/neck\nf,NaN,x,?\ng,0,W,ear\nh,999,z,not looked at\n"
    )
    del lines["h"]
    metadata = read_metadata(file, table, dict(reversed(lines.items())))
    assert list(metadata.columns) == ["age", "sex", "site"]
    assert list(metadata.index) == list("gfedcba")
    metadata = metadata.loc[list("abcdefg")]
    assert metadata["age"].dtype == np.float64
    np.testing.assert_array_equal(metadata["age"], [45, 85, np.nan, 45.5, 90, np.nan, 0])
    assert metadata["sex"].tolist() == ["male", "female", "", "female", "male", "", "female"]
    assert metadata["site"].tolist() == ["lower extremity", "", "", "", "head/neck", "", "ear"]
    assert "table.csv: age: Age_approx; sex: GENDER; site: site" in caplog.text
    assert "neither male nor female, so unknown: 1: x" in caplog.text


def test_metadata_that_is_not_there_is_unknown_and_said(opened, caplog):
    caplog.set_level("INFO")
    metadata = read_metadata(*opened("image,site,anatom_site_general,Site\na,x,Y,z\nb,x,Y,z\n"))
    assert metadata["age"].isna().all() and metadata["age"].dtype == np.float64
    assert (metadata["sex"] == "").all() and (metadata["site"] == "y").all()
    said = "age: no column, so unknown; sex: no column, so unknown; site: anatom_site_general"
    assert said in caplog.text
    assert "neither" not in caplog.text


@pytest.mark.parametrize(
    "age", ["121", "-1", "x", "45 years", "4 5", "1e1", "inf", "120.5", "+", "٣"]
)
def test_ages_that_are_no_ages_are_named(opened, age):
    with pytest.raises(UserError, match=r"table\.csv, column age: .*0 to 120.*fix line 3 \("):
        read_metadata(*opened(f"image,age\na,120\nb,{age}\n"))


def test_the_published_metadata_of_ham10000(write):
    text = (
        "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp\n"
        "HAM_0000118,ISIC_0025030,bkl,histo,80.0,male,scalp\n"
        "HAM_0001396,ISIC_0025837,nv,consensus,,unknown,unknown\n"
    )
    file = write(text)
    table = read_table(file)
    column = tables.image_column(file, table)
    ids = {spelling(cell): cell for cell in table[column]}
    lines, strays = tables.image_ids(file, table, column, ids)
    assert (column, strays) == ("image_id", [])
    labels, classes, _ = read_labels(file, table, lines)
    assert (list(labels.values()), classes) == ([0, 0, 1], ("bkl", "nv"))
    assert list(read_groups(file, table, lines)[0].values()) == ["HAM_0000118"] * 2 + [
        "HAM_0001396"
    ]
    metadata = read_metadata(file, table, lines)
    assert metadata.iloc[0].tolist() == [80.0, "male", "scalp"]
    assert np.isnan(metadata["age"].iloc[2])
    assert metadata.iloc[2, 1:].tolist() == ["", ""]


def use(file):
    """Everything that is read from a table."""
    table = read_table(file)
    assert all(isinstance(cell, str) and cell == cell.strip() for cell in table.to_numpy().ravel())
    column = tables.image_column(file, table)
    ids = {spelling(cell): cell for cell in table[column]}
    lines, _ = tables.image_ids(file, table, column, ids)
    for read in (read_labels, read_groups, read_metadata):
        try:
            read(file, table, lines)
        except UserError:
            pass


@pytest.mark.parametrize("seed", range(40))
def test_no_other_error_comes_of_damaged_files(write, seed):
    random_ = random.Random(seed)
    rows = [
        f"i{k};{k % 2};{1 - k % 2};{random_.choice(['nv', 'mel', ''])};4{k};p{k}" for k in range(8)
    ]
    text = "\r\n".join(['"image";a;b;dx;age;patient_id', *rows, 'x;0;1;"ä;;";;'])
    good = text.encode(random_.choice(["utf-8", "cp1252", "utf-16"]))
    for _ in range(15):
        content = bytearray(good)
        for _ in range(random_.randrange(6)):
            kind, k = random_.randrange(4), random_.randrange(len(content))
            if kind == 0:
                content[k] = random_.choice(
                    b'"";,\t|\r\n \x00\xff01' + bytes([random_.randrange(256)])
                )
            elif kind == 1:
                del content[k : k + random_.randrange(9)]
            elif kind == 2:
                content[k:k] = random_.randbytes(random_.randrange(4))
            else:
                content = content[: k + 1]
        try:
            use(write(bytes(content)))
        except UserError as error:
            assert "table.csv" in str(error)
    try:
        use(write(random_.randbytes(random_.randrange(200))))
    except UserError as error:
        assert "table.csv" in str(error)


def test_of_patients_or_of_lesions(opened):
    for column in ("patient_id", "lesion_id"):
        assert read_groups(*opened(f"image,{column}\na,1\n")) == ({"a": "1"}, column)
    assert read_groups(*opened("image,WHO\na,1\n"), Columns(group="who"))[1] == "WHO"
    assert read_groups(*opened("image,dx\na,1\n"))[1] is None
