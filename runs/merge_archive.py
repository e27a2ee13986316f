"""Make one table and a report of the answers that predict_archive.py wrote in parts.

python3 runs/merge_archive.py
python3 runs/merge_archive.py --name photos --csv

Every shard must have ended; parts that are missing or damaged are named, with the shard that makes
them. Research only: not for diagnosis.
"""

from dataclasses import dataclass

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    name: str = "archive"  # of the folder in submissions/ that the parts are in
    csv: bool = False  # also write the table as CSV


def main(settings: Settings) -> dict[str, int]:
    from misc_utils import provenance
    from misc_utils.errors import UserError
    from misc_utils.messages import lacking

    if said := lacking(("pyarrow",), "requirements-archive.txt"):
        raise UserError(f"for archives, {said}")
    from archives import merge, shards

    # 1 what there is
    submissions = paths.submissions_dir()
    parts, made_by, count = shards.find_begun(submissions, settings.name)
    shards.check_idle(submissions, settings.name)

    # 2 one table, and what is in it
    overview = merge.merge(parts, count, settings.csv)
    index = merge.write_report(parts, overview, made_by)
    summary = overview.summary()
    noted = {"shards": count} | summary
    provenance.write_record(submissions, settings.name, made_by, True, noted)

    # 3 report
    print(", ".join(f"{key.replace('_', ' ')}: {value:,}" for key, value in summary.items()))
    print(f"table: {parts.folder / 'predictions.parquet'}")
    print(f"to look at: {index}")
    return summary


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
