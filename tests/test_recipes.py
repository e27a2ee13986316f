import dataclasses
import re
from pathlib import Path

import cls_train
import pytest
import seg_train

from misc_utils import command_line
from training import recipes

TABLES = [(seg_train.Settings, recipes.SEGMENTATION), (cls_train.Settings, recipes.CLASSIFICATION)]
NAMES = [(settings, table, name) for settings, table in TABLES for name in table]


@pytest.mark.parametrize(("settings", "table", "name"), NAMES)
def test_a_recipe_is_what_its_flags_are(settings, table, name):
    """Each value is one that the flag takes."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in table[name].items()]
    expected = settings(**table[name])
    assert command_line.parse(settings, flags) == expected
    assert command_line.parse(settings, ["--recipe", name], recipes=table) == expected


@pytest.mark.parametrize(("settings", "table", "name"), NAMES)
def test_the_documents_name_its_flags(settings, table, name):
    text = (Path(__file__).parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
    script = f"{settings.__module__}.py"
    (flags,) = re.findall(rf"\| `{script}` \| `{name}` \| (.*) \|", text)
    given = flags.strip("`").split() if flags.startswith("`--") else []
    assert command_line.parse(settings, given) == settings(**table[name])


@pytest.mark.parametrize(("settings", "table"), TABLES)
def test_flags_win_over_a_recipe_wherever_they_stand(settings, table):
    expected = dataclasses.replace(settings(**table["quick"]), epochs=3, folds=(0, 1))
    before = ["--epochs", "3", "--recipe", "quick", "--folds", "0", "1"]
    after = ["--folds", "0", "1", "--recipe=quick", "--epochs", "3"]
    for flags in (before, after):
        assert command_line.parse(settings, flags, recipes=table) == expected
    assert command_line.parse(settings, [], recipes=table) == settings()


def test_a_recipe_that_is_none_is_refused():
    with pytest.raises(SystemExit, match="2"):
        command_line.parse(seg_train.Settings, ["--recipe", "fast"], recipes=recipes.SEGMENTATION)
