"""`python -m fed_lorac.config.write`: the files of this repository that repeat the settings, written from them.

`sim_configs/quickstart.toml` has every setting in force with its meaning, `[tool.flwr.app.config]` in `pyproject.toml`
every setting there is (Flower takes no key that does not stand there), and `docs/settings.md` the tables of choices.
"""

from collections.abc import Iterator
from pathlib import Path

from fed_lorac.config.section import OPTIONS
from fed_lorac.config.whole import SECTIONS, Config
from fed_lorac.runtime.spelling import toml

__all__ = ["flower_table", "options_with", "pyproject_with", "quickstart"]

_ROOT = Path(__file__).resolve().parents[2]

_HEAD = """\
# The default: twelve cameras in fog, snow and noise that look at scikit-learn's digits; it needs no download.
# `fed-lorac run` without a name runs it. All settings in force are here, with their defaults; a config of your own
# needs only those that differ. What matters only under one choice is in the table of that choice, as [strategy.merged];
# `fed-lorac config -c strategy.aggregator=krum` prints the settings with krum's.
# Written by `python -m fed_lorac.config.write`.

"""


def quickstart() -> str:
    """`sim_configs/quickstart.toml`."""
    return _HEAD + Config().to_toml()


def flower_table() -> str:
    """The lines below `[tool.flwr.app.config]`: `section.key = default`, of every built-in choice."""
    lines = []
    for name, section in SECTIONS.items():
        lines += [f"{name}.{key} = {toml(rule.default)}" for key, rule in section.rules().items()]
        for table, keys in section.known_tables().items():
            rules = section.table_rules(keys[0], table)
            lines += [f"{name}.{table}.{key} = {toml(rule.default)}" for key, rule in rules.items()]
        if section.own_parts():
            lines.append(f'{name}.{OPTIONS} = ""')
    return "\n".join(lines) + "\n"


def pyproject_with(text: str, table: str) -> str:
    """A pyproject.toml with `table` as its `[tool.flwr.app.config]`."""
    head = "[tool.flwr.app.config]\n"
    before, _, after = text.partition(head)
    return f"{before}{head}{table}\n{after[after.index('[') :]}"


def options_with(text: str) -> str:
    """A page with the tables of choices, as Markdown, between its two marks."""
    before, begin, rest = text.partition("<!-- options -->\n")
    _, end, after = rest.partition("<!-- end of options -->")
    rows = ["| table | setting | default | meaning |", "| --- | --- | --- | --- |", *_options()]
    return before + begin + "\n".join(rows) + "\n" + end + after


def _options() -> Iterator[str]:
    """A row for each setting of a choice; tables that are alike are named together."""
    for name, section in SECTIONS.items():
        alike: dict[str, list[str]] = {}
        for table, keys in section.known_tables().items():
            rules = section.table_rules(keys[0], table).items()
            rows = "".join(f"| | `{key}` | `{toml(rule.default)}` | {_in_a_cell(rule.told)} |\n" for key, rule in rules)
            alike.setdefault(rows, []).append(f"`[{name}.{table}]`")
        for rows, tables in alike.items():
            yield from f"| {', '.join(tables)} {rows.removeprefix('| ')}".splitlines()


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    page = _ROOT / "docs" / "settings.md"
    page.write_text(options_with(page.read_text(encoding="utf-8")), encoding="utf-8")
    (_ROOT / "sim_configs" / "quickstart.toml").write_text(quickstart(), encoding="utf-8")
    project = _ROOT / "pyproject.toml"
    project.write_text(pyproject_with(project.read_text(encoding="utf-8"), flower_table()), encoding="utf-8")
