"""Reads any table about images: which line is of which image, and its class, group, age, sex, site.

Enters: a CSV or Excel file as people keep them, names of columns where told, and image ids by their
spellings. Leaves: the table as text; labels, groups and metadata keyed by image id. What cannot be
understood is a UserError that names the lines.
"""

import codecs
import csv
import io
import logging
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from misc_utils.errors import UserError
from misc_utils.messages import counted, listed, pip_install

log = logging.getLogger(__name__)

# Names of columns; upper case, spaces, underscores and hyphens in them do not count
IMAGE_COLUMNS = (
    *("image", "image_id", "image_name", "image_file", "image_path", "isic_id", "img", "img_id"),
    *("file", "filename", "file_name", "file_path", "path", "picture", "photo", "id", "name"),
    *("bild", "bildname", "datei", "dateiname"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "category", "target", "ground_truth"),
    *("dx", "diagnosis", "diagnostic", "disease", "benign_malignant", "diagnose", "klasse"),
    *(f"diagnosis_{level}" for level in range(1, 6)),
)
PATIENT_COLUMNS = ("patient_id", "patient", "patienten_id", "patientennummer")
LESION_COLUMNS = ("lesion_id", "lesion", "läsion", "läsions_id")
GROUP_COLUMNS = PATIENT_COLUMNS + LESION_COLUMNS
METADATA_COLUMNS = {
    "age": ("age", "age_approx", "age_approximate", "alter"),
    "sex": ("sex", "gender", "geschlecht"),
    "site": (
        *("anatom_site_general_challenge", "anatom_site_general", "localization", "localisation"),
        *("site", "location", "region", "body_site", "lokalisation"),
    ),
}
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "none", "null")  # empty cells, in lower case
UNKNOWN = (*MISSING, "unknown", "unk", "?", "-", "not known", "unbekannt")
NO_GROUP = (*UNKNOWN, "-1")
SEX = {
    **dict.fromkeys(("m", "male", "man", "mann", "männlich"), "male"),
    **dict.fromkeys(("f", "w", "female", "woman", "frau", "weiblich"), "female"),
}
AGE = re.compile(r"(?:>=?|≥)?\s*([0-9]+(?:[.,][0-9]+)?)\s*\+?")
OLDEST = 120  # years
WHOLE_NUMBER = re.compile(r"(-?[0-9]+)(?:[.,]0*)?")
ONE, ZERO = ("1", "1.0", "1,0"), ("0", "0.0", "0,0")
MOST_CLASSES = 200
IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp|heic|heif|dcm)$")

EXCEL = (".xlsx", ".xlsm")
DELIMITERS = "\t;|,"  # where several fit, the first of them
SEP_LINE = re.compile(r'"?sep=([,;\t|])"?(\r\n?|\n|$)', re.IGNORECASE)  # Excel's own
CONTROL = re.compile(r"[\0-\x08\x0e-\x1f]")  # in no text
SAVE = "Save the table as CSV (in Excel: Save As, CSV UTF-8)."


def as_flag(key: str) -> str:
    """How a field of OwnFolder is told on a command line."""
    return f"--{key.replace('_', '-')}"


@dataclass(frozen=True)
class Columns:
    """Names of columns, as told; None: to be guessed."""

    image: str | None = None
    label: str | None = None  # holds names of classes
    group: str | None = None  # lesion or patient
    told_as: Callable[[str], str] = as_flag  # field of OwnFolder -> how messages call it


NOT_TOLD = Columns()


def read_table(file: Path) -> pd.DataFrame:
    """A table with a header: all cells str, stripped; the index is the line in the file, from 1.

    Text is separated by comma, semicolon, tab or bar; in UTF-8, UTF-16 with a byte-order mark, or
    Windows-1252; its cells may be quoted. Of an Excel file the first sheet that is not empty is
    read. Empty lines, and empty columns without a name at the end, are left out.
    """
    try:
        if file.exists() and not file.is_file():
            raise UserError(f"{file}: expected a file that holds a table; this is none. {SAVE}")
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}). Check its path.") from None
    excel = file.suffix.lower() in EXCEL and content.startswith(b"PK")
    records = _read_sheet(file, content) if excel else _read_text(file, content)
    lines = {line: [cell.strip() for cell in cells] for line, cells in records}
    lines = {line: cells for line, cells in lines.items() if any(cells)}
    if len(lines) < 2:
        raise UserError(
            f"{file}: expected a line with the names of the columns and a line per image; found "
            f"{'only one line' if lines else 'nothing'}. {SAVE}"
        )
    header, *rows = lines.values()
    for cells in (header, *rows):
        while not cells[-1] and (cells is header or len(cells) > len(header)):
            cells.pop()
    if unnamed := [k for k, name in enumerate(header, 1) if not name]:
        raise UserError(
            f"{file}: each column must have a name in the first line; found none for column "
            f"{listed(unnamed)}. Name it, or delete it if it only numbers the lines."
        )
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise UserError(
            f"{file}: the first line names {listed(twice)} twice. Rename or delete one."
        )
    wrong = [f"line {k} ({len(cells)})" for k, cells in lines.items() if len(cells) != len(header)]
    if wrong:
        raise UserError(
            f"{file}: each line must have {len(header)} cells, as the first one has; fix "
            f"{listed(wrong)}. A cell that holds the separator itself must be in double quotes."
        )
    return pd.DataFrame(rows, index=pd.Index(list(lines)[1:], name="line"), columns=header)


def _read_text(file: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    text = _decoded(file, content)
    if found := SEP_LINE.match(text):
        return _records(file, text[found.end() :], found[1], first=2)

    def fit(delimiter: str) -> tuple[bool, int, int]:
        """Whether the header has several cells; how many lines have as many; how many those are."""
        rows = []
        try:
            for _, cells in islice(_records(file, text, delimiter), 100):
                rows.append(cells)
        except UserError:
            pass  # raised again when the whole table is read
        rows = [cells for cells in rows if any(map(str.strip, cells))]
        filled = [k for row in rows[:1] for k, cell in enumerate(row, 1) if cell.strip()]
        width = max(filled, default=0)
        return width > 1, sum(len(cells) >= width for cells in rows), width

    return _records(file, text, max(DELIMITERS, key=fit))


def _decoded(file: Path, content: bytes) -> str:
    """The text of a file; UserError when it is not text."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if found := CONTROL.search(text):
            line = len(re.findall(r"\r\n?|\n", text[: found.start()])) + 1
            raise UserError(f"{file}: not a text: line {line} holds {found[0]!r}. {SAVE}")
        if encoding == "cp1252":
            log.info("%s: not UTF-8, so it is read as Windows-1252", file)
        return unicodedata.normalize("NFC", text)
    raise UserError(f"{file}: not a text in UTF-8, UTF-16 or Windows-1252. {SAVE}")


def _records(
    file: Path, text: str, delimiter: str, first: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """The line at which each record begins, and its cells; `text` begins with line `first`."""
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
    line = first
    try:
        for cells in reader:
            yield line, cells
            line = first + reader.line_num
    except csv.Error as error:
        raise UserError(f"{file}, line {line}: {error}. Check its double quotes.") from None


def _read_sheet(file: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    how = {"engine": "openpyxl", "header": None, "dtype": str, "na_filter": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats and the like that are not read
            sheets = pd.read_excel(io.BytesIO(content), sheet_name=None, **how)
    except ImportError:
        raise UserError(
            f"{file}: to read Excel files, install openpyxl: {pip_install('openpyxl')}. Or save "
            f"the table as CSV (in Excel: Save As, CSV UTF-8)."
        ) from None
    except Exception as error:  # openpyxl has no exception of its own for broken files
        raise UserError(f"{file}: not a whole Excel file ({error}). {SAVE}") from None
    names = [name for name, sheet in sheets.items() if sheet.size]
    if len(names) > 1:
        log.warning("%s: only the sheet %s is read, not %s", file, names[0], listed(names[1:]))
    for row in sheets[names[0]].itertuples() if names else ():
        yield row[0] + 1, [unicodedata.normalize("NFC", str(cell)) for cell in row[1:]]


def find_column(
    file: Path, table: pd.DataFrame, told: Columns, known: Sequence[str], what: str
) -> str | None:
    """Name of the column that was told; else of that whose name is among `known`, if any.

    Args:
        file: of the table, for messages.
        table: from read_table.
        told: names of columns; upper case does not count.
        known: names it may have; in them, spaces, underscores and hyphens do not count either.
        what: it is about: "image", "label" or "group".

    Raises:
        UserError when there is no column of the name told, or when several columns fit.
    """
    columns, name_told = list(table.columns), getattr(told, what)
    if name_told is None:
        names = {_plain(name) for name in known}
        found = [name for name in columns if _plain(name) in names]
    else:
        same = _folded(name_told).strip()
        found = [name for name in columns if name == name_told]
        found = found or [name for name in columns if _folded(name) == same]
        if not found:
            raise UserError(
                f"{file}: there is no column {name_told!r}. Tell one of its columns with "
                f"{told.told_as(f'{what}_column')}: {listed(columns)}."
            )
    if len(found) > 1:
        raise UserError(
            f"{file}: the {what} may be in any of the columns {listed(found)}. Tell which with "
            f"{told.told_as(f'{what}_column')}."
        )
    return found[0] if found else None


def image_column(file: Path, table: pd.DataFrame, told: Columns = NOT_TOLD) -> str:
    """Name of the column that says which image a line is of; UserError when it is not clear."""
    column = find_column(file, table, told, IMAGE_COLUMNS, "image")
    if column is None:
        raise UserError(
            f"{file}: no column has a usual name for image ids or files, such as image. Tell which "
            f"it is with {told.told_as('image_column')}: {listed(list(table.columns))}."
        )
    return column


def spelling(text: str) -> str:
    """An image id, file name or path as it is compared: lower case, slashes, no image suffix."""
    parts = _folded(text.strip()).replace("\\", "/").split("/")
    return IMAGE_SUFFIX.sub("", "/".join(part for part in parts if part not in ("", ".")))


def image_ids(
    file: Path, table: pd.DataFrame, column: str, ids: Mapping[str, str], told: Columns = NOT_TOLD
) -> tuple[dict[str, int], list[str]]:
    """The line of each image, and the cells of the column that name no image.

    A path may begin with folders that the spellings lack; what follows them must be a spelling that
    is a path, or the image id itself.

    Args:
        file: of the table, for messages.
        table: from read_table.
        column: its column of image ids, file names or paths.
        ids: {spelling(...) of any way to name it: image id}.

    Returns:
        {image id: line} in the order of the table, where line is of the index of `table`; cells.

    Raises:
        UserError naming images with two lines, and lines without an image; or when no line is of
        an image.
    """
    found: dict[str, int] = {}
    strays, empty, twice = [], [], []
    for line, cell in table[column].items():
        image_id = _find_image(cell, ids)
        if not cell:
            empty.append(line)
        elif image_id is None:
            strays.append(cell)
        elif image_id in found:
            twice.append(f"{image_id} (lines {found[image_id]} and {line})")
        else:
            found[image_id] = line
    if empty:
        raise UserError(
            f"{file}: the column {column!r} must name an image in each line; it is empty in line "
            f"{listed(empty)}. Fill it in, or delete the line."
        )
    if twice:
        raise UserError(
            f"{file}: expected one line per image, as {column!r} names it; keep one line of "
            f"{listed(twice)}."
        )
    if not found:
        raise UserError(
            f"{file}: the column {column!r} names none of the {len(ids)} images. It holds "
            f"{listed(strays, 3)}; expected such as {listed(list(ids.values()), 3)}. Correct it, "
            f"or tell another column with {told.told_as('image_column')}."
        )
    return found, strays


def _find_image(cell: str, ids: Mapping[str, str]) -> str | None:
    spelled = spelling(cell)
    if spelled in ids:
        return ids[spelled]
    while "/" in spelled:
        spelled = spelled.partition("/")[2]
        if spelled in ids and ("/" in spelled or spelling(ids[spelled]) == spelled):
            return ids[spelled]
    return None


def read_labels(
    file: Path,
    table: pd.DataFrame,
    lines: Mapping[str, int],
    told: Columns = NOT_TOLD,
    classes: Sequence[str] | None = None,
    subset: bool = False,
) -> tuple[dict[str, int], tuple[str, ...], str]:
    """Class of each image: from a column of names, or from a column per class that holds 0 or 1.

    Args:
        file: of the table, for messages and the sentence.
        table: from read_table.
        lines: {image id: line}, from image_ids; other lines are not looked at.
        told: names of columns.
        classes: all names in the order of their indices, upper case does not count; None: those
            in the column, in order of first appearance (numbers: of size), or those of the
            columns, in order. Where each is the name of a column, these columns are read.
        subset: leave images without a label out.

    Returns:
        {image id: class index}, the names of the classes, and a sentence that says what was read.
    """
    used = table.loc[sorted(lines.values())]
    classes = None if classes is None else tuple(map(_class_name, classes))
    column, columns = _label_columns(file, used, told, classes or ())
    source = f"column {column}" if column else f"columns {listed(columns)}"
    if column:
        names = _names_in_cells(used[column], classes or ())
        found = tuple(name for name in names.unique() if name)
        if all(WHOLE_NUMBER.fullmatch(name) for name in found):
            found = tuple(sorted(found, key=int))
        if classes is None and (len(found) > MOST_CLASSES or len(found) == len(names) > 2):
            raise UserError(
                f"{file}, {source}: found {len(found)} names in {len(names)} lines "
                f"({listed(found, 3)}), so they are probably not classes. Tell another column with "
                f"{told.told_as('label_column')}, or the names of all classes with "
                f"{told.told_as('classes')}."
            )
    else:
        names, found = _names_of_ones(file, used[columns], told), tuple(columns)
    empty = [f"line {line}" for line, name in names.items() if not name]
    if len(empty) == len(names) or (empty and not subset):
        raise UserError(
            f"{file}, {source}: expected a label of each image; found none in {listed(empty)}. "
            f"Fill them in, leave these images out with {told.told_as('subset')}, or tell another "
            f"column with {told.told_as('label_column')}."
        )
    classes = found if classes is None else classes
    index = {_folded(name): k for k, name in enumerate(classes)} | {"": None}
    if len(index) <= len(classes):
        raise UserError(
            f"{file}, {source}: expected one spelling of each class; found {listed(classes)}. Make "
            f"them the same, or name each class once with {told.told_as('classes')}."
        )
    wrong = [f"line {k} ({name})" for k, name in names.items() if _folded(name) not in index]
    if wrong:
        raise UserError(
            f"{file}, {source}: expected one of the classes {listed(classes)}; found "
            f"{listed(wrong)}. Correct these lines, or name their classes too with "
            f"{told.told_as('classes')}."
        )
    labels = {i: index[_folded(names[line])] for i, line in lines.items() if names[line]}
    there = set(labels.values())
    none = [name for k, name in enumerate(classes) if k not in there]
    sentence = f"Labels are read from the {source} of {file.name}; classes: {len(classes)}"
    sentence += f", without an image: {listed(none)}" if none else ""
    sentence += f"; images left out as they have no label: {len(empty)}" if empty else ""
    return labels, classes, f"{sentence}."


def _label_columns(
    file: Path, used: pd.DataFrame, told: Columns, classes: Sequence[str]
) -> tuple[str | None, list[str]]:
    """The column that holds names of classes, or else the columns of one class each."""
    if told.label is not None:
        return find_column(file, used, told, (), "label"), []
    by_name = {_folded(name): name for name in used.columns}
    told_columns = [by_name[_folded(name)] for name in classes if _folded(name) in by_name]
    if classes and len(set(told_columns)) == len(classes):
        return None, told_columns
    column = find_column(file, used, told, LABEL_COLUMNS, "label")
    columns = _binary_columns(used, (column, told.image, told.group))
    if column is None and not columns:
        raise UserError(
            f"{file}: no column has a usual name for labels, such as label, and there are not two "
            f"or more columns of 0 and 1. Tell which it is with {told.told_as('label_column')}: "
            f"{listed(list(used.columns))}."
        )
    if column and (used[columns].isin(ONE).sum(axis=1) == 1).all():
        raise UserError(
            f"{file}: the label may be in the column {column} or in those of 0 and 1: "
            f"{listed(columns)}. Tell which: {column} with {told.told_as('label_column')}, or "
            f"the names of those columns with {told.told_as('classes')}."
        )
    return column, [] if column else columns


def _binary_columns(used: pd.DataFrame, others: Collection[str | None]) -> list[str]:
    """Columns of 0 and 1, two or more, that hold neither image, group, metadata nor `others`."""
    known = {_plain(name) for name in (*IMAGE_COLUMNS, *GROUP_COLUMNS)}
    known |= {_plain(name) for names in METADATA_COLUMNS.values() for name in names}
    known |= {_plain(name) for name in others if name}
    columns = []
    for name in used.columns:
        cells = set(used[name].unique()) - {""}
        if _plain(name) not in known and cells and cells <= {*ONE, *ZERO}:
            columns.append(name)
    return columns if len(columns) > 1 else []


def _names_of_ones(file: Path, cells: pd.DataFrame, told: Columns) -> pd.Series:
    """Name of the column that holds the 1 of each line, "" where all its cells are empty."""
    ones, empty = cells.isin(ONE), (cells == "").all(axis=1)
    good = (ones.sum(axis=1) == 1) & cells.isin((*ONE, *ZERO)).all(axis=1)
    wrong = [f"line {k} ({' '.join(row)})" for k, *row in cells[~good & ~empty].itertuples()]
    if wrong:
        raise UserError(
            f"{file}: expected a single 1 and otherwise 0 among {listed(list(cells.columns))}; "
            f"fix {listed(wrong)}. Or tell the columns of classes with {told.told_as('classes')}, "
            f"or one column of names with {told.told_as('label_column')}."
        )
    return ones.idxmax(axis=1).where(~empty, "")


def _names_in_cells(cells: pd.Series, classes: Sequence[str]) -> pd.Series:
    """Names of classes, "" where a cell is empty or says so, unless a class has that name."""
    missing = set(MISSING) - {_folded(name) for name in classes}
    return cells.map(lambda cell: "" if _folded(cell) in missing else _class_name(cell))


def same_class(text: str) -> str:
    """A name of a class as it is compared: upper case and ways to write accents do not count."""
    return _folded(_class_name(text))


def _class_name(text: str) -> str:
    """A name as it is; of a whole number written as 1.0, its digits."""
    found = WHOLE_NUMBER.fullmatch(text.strip())
    return found[1] if found else unicodedata.normalize("NFC", text.strip())


def read_groups(
    file: Path, table: pd.DataFrame, lines: Mapping[str, int], told: Columns = NOT_TOLD
) -> tuple[dict[str, str | None], str | None]:
    """Patient or lesion of each image of `lines`, {image id: its id}, and the name of the column.

    Of both, the column is taken that fewer images lack; the patient if no image lacks it, as images
    of one patient are alike too; it is logged. None: not known, so that the image counts as one of
    its own.
    """
    used = table.loc[list(lines.values())]
    if told.group is not None:
        column = find_column(file, table, told, (), "group")
    else:
        both = PATIENT_COLUMNS, LESION_COLUMNS
        there = filter(None, [find_column(file, table, told, known, "group") for known in both])
        column = min(there, key=lambda name: _among(NO_GROUP, used[name]).sum(), default=None)
    if column is None:
        log.warning(
            "%s: no column of patients or lesions, so each image counts as one of its own. If "
            "several show the same one, tell the column with %s",
            file,
            told.told_as("group_column"),
        )
        return dict.fromkeys(lines), None
    log.info("%s: images are kept together by the column %s", file, column)
    groups = groups_in(table, lines, column)
    alone = [image_id for image_id, group in groups.items() if group is None]
    if alone:
        log.warning("%s: no %s, each counts as one of its own: %s", file, column, counted(alone))
    return groups, column


def groups_in(table: pd.DataFrame, lines: Mapping[str, int], column: str) -> dict[str, str | None]:
    """What a column of patients or lesions says of each image of `lines`; None: nothing."""
    unknown = _among(NO_GROUP, table[column])
    return {i: None if unknown[line] else table.at[line, column] for i, line in lines.items()}


def kind_of_group(column: str | None) -> str:
    """Whether a column, by its name, holds patients or lesions: `patient`, `lesion`."""
    return "patient" if column and "patient" in _plain(column) else "lesion"


def like_column(table: pd.DataFrame, column: str) -> str | None:
    """The column of another table that holds what `column` does, by its name; None: none does."""
    names = {_plain(column)}
    for known in map(set, (map(_plain, PATIENT_COLUMNS), map(_plain, LESION_COLUMNS))):
        names |= known if names <= known else set()
    return next((name for name in table.columns if _plain(name) in names), None)


def read_metadata(file: Path, table: pd.DataFrame, lines: Mapping[str, int]) -> pd.DataFrame:
    """Age, sex and site of each image of `lines`; the columns that they come from are logged.

    Returns:
        Index image id; age in years, float64, NaN where unknown; sex "male", "female" or "";
        site in lower case or "".

    Raises:
        UserError naming the lines whose age is no number of years.
    """
    by_name = {_plain(name): name for name in reversed(table.columns)}
    columns, cells = {}, {}
    for what, known in METADATA_COLUMNS.items():
        there = [by_name[_plain(name)] for name in known if _plain(name) in by_name]
        columns[what] = there[0] if there else "no column, so unknown"
        column = table[there[0]] if there else pd.Series("", table.index)
        column = column.loc[list(lines.values())]
        cells[what] = column.where(~_among(UNKNOWN, column), "").map(_folded)
    log.info("%s: %s", file, "; ".join(f"{what}: {name}" for what, name in columns.items()))
    sex = cells["sex"].map(lambda cell: SEX.get(cell, ""))
    if words := set(cells["sex"][sex == ""]) - {""}:
        log.warning("%s: neither male nor female, so unknown: %s", file, counted(words))
    result = pd.DataFrame(
        {"age": _years(file, columns["age"], cells["age"]), "sex": sex, "site": cells["site"]}
    )
    return result.set_axis(pd.Index(list(lines), name="image"))


def _years(file: Path, column: str, cells: pd.Series) -> pd.Series:
    """Ages as float64, NaN where a cell is empty; "85+" is 85."""
    found = {cell: AGE.fullmatch(cell) for cell in cells.unique()}
    years = {cell: float(age[1].replace(",", ".")) for cell, age in found.items() if age}
    wrong = [k for k, cell in cells.items() if cell and not 0 <= years.get(cell, -1) <= OLDEST]
    if wrong:
        shown = [f"line {line} ({cells[line]})" for line in sorted(wrong)]
        raise UserError(
            f"{file}, column {column}: expected ages of 0 to {OLDEST} years; fix {listed(shown)}, "
            f"or leave the cell empty."
        )
    return cells.map(years).astype("float64")


def _among(words: Sequence[str], cells: pd.Series) -> pd.Series:
    """Which cells are one of these words, in lower case."""
    return cells.map(_folded).isin(words)


def _folded(text: str) -> str:
    """In lower case, and one way of writing accents."""
    return unicodedata.normalize("NFC", text.casefold())


def _plain(name: str) -> str:
    """A name of a column as it is compared with known ones."""
    return re.sub(r"[\s_-]", "", _folded(name))
