"""The JSON file beside a result: what made it, and whether it is complete.

Enters: the folder of all results, the name of a folder or CSV table in it, a dict of everything
that its content depends on. Leaves: `<name>.json` with `complete`, `written` (UTC), `summary` and
`made_by`; or a UserError where something different made the result that exists.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from misc_utils.errors import UserError
from misc_utils.files import InUseError, locked, remove_partials, write_text
from misc_utils.journal import Journal

WAYS = "Replace it with --overwrite, or move both away."


def check_maker(submissions: Path, name: str, made_by: dict, ways: str = WAYS) -> None:
    """Raise UserError if the folder or table `name` exists and something different made it.

    `made_by` is what the content depends on (runs, folds, settings, which net made which image), as
    JSON can store it. Dates and counts belong into the summary of write_record instead. `ways` is
    what to do, for the message.
    """
    target, record = submissions / name, record_of(submissions, name)
    if not target.exists():
        return
    if not record.exists():
        if target.is_file() or any(target.iterdir()):
            raise UserError(f"{target} exists, but not {record}: what made it is unknown. {ways}")
        return
    there, now = _flat(read_record(record)["made_by"]), _flat(json.loads(_to_json(made_by)))
    different = [
        k for k in sorted(there | now) if (k in there, there.get(k)) != (k in now, now.get(k))
    ]
    if different:
        lines = [f"  {k}: {_short(there, k)} there, {_short(now, k)} now" for k in different[:5]]
        lines += [f"  and {len(different) - 5} more"] if len(different) > 5 else []
        first = f"{target} was made by something different, as {record} says:"
        raise UserError("\n".join([first, *lines, ways]))


def fingerprint_of_maker(made_by: dict) -> str:
    """SHA-256 of `made_by` without the choice of images: equal for two sets made the same way."""
    settings = made_by.get("settings", {})
    kept = {key: part for key, part in settings.items() if key not in ("pred_set", "limit")}
    alike = {key: part for key, part in made_by.items() if key != "images_by_nets"}
    text = json.dumps(alike | {"settings": kept}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def record_of(submissions: Path, name: str) -> Path:
    """The JSON file beside the folder or CSV table `name`."""
    return submissions / (name.removesuffix(".csv") + ".json")


def journal_of(submissions: Path, name: str) -> Path:
    """The file that says which images of the folder or CSV table `name` are done."""
    return submissions / (name.removesuffix(".csv") + "_progress.jsonl")


def open_journal(
    submissions: Path, name: str, made_by: dict, data: str, overwrite: bool
) -> Journal:
    """The journal of a folder or table; it is empty where maker or images have changed.

    Nothing is written before a row is added.

    Args:
        submissions: the folder of all results.
        name: of the folder or table.
        made_by: see check_maker, which is called first unless `overwrite`.
        data: fingerprint of the images.
        overwrite: start with an empty journal, whatever made the folder or table.
    """
    if not overwrite:
        check_maker(submissions, name, made_by)
    text = json.dumps([made_by, data], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    return Journal(journal_of(submissions, name), key, overwrite)


@contextmanager
def claimed(submissions: Path, name: str) -> Iterator[None]:
    """Only this process writes the folder or table `name` in the block; UserError if it cannot."""
    try:
        with locked(submissions, name):
            stem = name.removesuffix(".csv").removesuffix("_submission")
            ours = record_of(submissions, name), journal_of(submissions, name)
            beside = f"{stem}_examples.png", f"{stem}_classes.json"
            remove_partials(submissions, name, *(file.name for file in ours), *beside)
            yield
    except InUseError:
        raise UserError(
            f"{submissions / name}: another process is writing it. Wait until it ends, then repeat "
            f"the command: it resumes, or has nothing left to do."
        ) from None


def read_record(record: Path) -> dict:
    """Content of a JSON file that write_record wrote; UserError for any other file."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if isinstance(content["complete"], bool) and isinstance(content["made_by"], dict):
            return content
        raise ValueError("complete or made_by has the wrong type")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{record}: cannot be read as the record of what made {record.stem} ({error!r}). "
            f"Replace both with --overwrite, or move them away."
        ) from None


def write_record(
    submissions: Path, name: str, made_by: dict, complete: bool, summary: dict | None = None
) -> None:
    """Write the JSON file of `name`; `summary` holds counts and the like."""
    written = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"complete": complete, "written": written, "summary": summary or {}}
    text = _to_json(content | {"made_by": made_by}, indent=2)
    write_text(record_of(submissions, name), text + "\n")


def remove(submissions: Path, name: str) -> None:
    """Delete the folder or table `name`, its record first, so that a part never counts as whole."""
    record_of(submissions, name).unlink(missing_ok=True)
    journal_of(submissions, name).unlink(missing_ok=True)
    target = submissions / name
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)


def _flat(value: object, key: str = "") -> dict[str, object]:
    """Nested dicts as one, {"settings.margin": 0.1}."""
    if not isinstance(value, dict) or (key and not value):
        return {key: value}
    inner = [_flat(part, f"{key}.{name}" if key else name) for name, part in value.items()]
    return {name: part for flat in inner for name, part in flat.items()}


def _to_json(content: dict, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, allow_nan=False)


def _short(values: dict[str, object], key: str) -> str:
    text = json.dumps(values[key]) if key in values else "nothing"
    return text if len(text) <= 60 else text[:57] + "..."
