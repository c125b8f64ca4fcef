"""Write a table as tidy CSV, and as Markdown and LaTeX in the layout of the paper."""

import csv
import io
from itertools import groupby
from typing import NamedTuple

from m2pt.config.tables import Row, Setting, Table
from m2pt.reporting.cells import Cell
from m2pt.reporting.notes import SETTINGS


class Markup(NamedTuple):
    """Patterns with one `{}` for parts of a cell, and the separator of its lines."""

    bold: str
    quoted: str
    line_break: str


MARKDOWN = Markup("**{}**", "<sub>{}</sub>", "<br>")
LATEX = Markup(r"\textbf{{{}}}", "{}", r"\\")


def to_csv(table: Table, cells: list[Cell]) -> str:
    """Return one line per cell, in percent; fields are empty if nothing was measured or published.

    A gain needs two seeds. With one, `one_seed_difference` is the difference to the baseline, which may be
    chance.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("setting", "method", *table.labels, "column", "published", "public"),
            *("mean", "standard_deviation", "seeds"),
            *("baseline", "one_seed_difference", "gain", "gain_low", "gain_high", "published_gain"),
            *("verdict", "runs"),
        ]
    )
    for cell in cells:
        low, high = cell.interval or (None, None)
        labels = [cell.row.labels.get(label, "") for label in table.labels]
        writer.writerow(
            [
                *(cell.row.setting, cell.row.method, *labels, cell.column.name),
                *(_published(cell.published), _published(cell.public)),
                *(_ours(cell.mean), _ours(cell.deviation), len(cell.values) or ""),
                *(cell.row.baseline or "", _ours(cell.one_seed_difference)),
                *(_ours(cell.gain), _ours(low), _ours(high), _published(cell.published_gain)),
                *(cell.verdict, " ".join(run.name for run in cell.runs)),
            ]
        )
    return text.getvalue()


def to_markdown(table: Table, cells: list[Cell], notes: list[str]) -> str:
    """Return rows and columns as in the paper; a cell shows our number and, below it, the published ones."""
    head = ["Method", *table.labels, *(f"{column.group} {column.title}" for column in table.columns)]
    rules = ["---", *(":---:" for _ in table.labels), *("---:" for _ in table.columns)]
    lines = [f"**{table.title}.** {table.caption}", "", _markdown_row(head), _markdown_row(rules)]
    decimals = _decimals(cells)
    for setting, rows in _by_setting(cells):
        lines.append(_markdown_row([f"*{SETTINGS[setting]}*", *("" for _ in head[1:])]))
        for row, row_cells in rows:
            labels = [row.labels.get(label, "") for label in table.labels]
            texts = [MARKDOWN.line_break.join(_lines(cell, MARKDOWN, decimals)) for cell in row_cells]
            lines.append(_markdown_row([row.method, *labels, *texts]))
    lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def to_latex(table: Table, cells: list[Cell], notes: list[str]) -> str:
    """Return a table for the packages booktabs and amssymb, with the caption above and the notes below."""
    groups = [
        rf"\multicolumn{{{len(list(columns))}}}{{c}}{{{_escaped(name)}}}"
        for name, columns in groupby(column.group for column in table.columns)
    ]
    head = ["Method", *table.labels, *(column.title for column in table.columns)]
    lines = [
        "% needs booktabs and amssymb",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{\textbf{{{_escaped(table.title)}.}} {_escaped(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'c' * len(table.labels)}{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["", *("" for _ in table.labels), *groups]) + r" \\",
        " & ".join(map(_escaped, head)) + r" \\",
    ]
    decimals = _decimals(cells)
    for setting, rows in _by_setting(cells):
        title = rf"\multicolumn{{{len(head)}}}{{l}}{{\textit{{{_escaped(SETTINGS[setting])}}}}} \\"
        lines += [r"\midrule", title]
        for row, row_cells in rows:
            labels = [_escaped(row.labels.get(label, "")) for label in table.labels]
            texts = [_latex_cell(_lines(cell, LATEX, decimals)) for cell in row_cells]
            lines.append(" & ".join([_escaped(row.method), *labels, *texts]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\footnotesize\raggedright"]
    lines += [rf"{_escaped(note)}\par" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _by_setting(cells: list[Cell]) -> list[tuple[Setting, list[tuple[Row, list[Cell]]]]]:
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.row.setting, cell.row.method), []).append(cell)
    settings: dict[Setting, list[tuple[Row, list[Cell]]]] = {}
    for row_cells in rows.values():
        settings.setdefault(row_cells[0].row.setting, []).append((row_cells[0].row, row_cells))
    return list(settings.items())


def _lines(cell: Cell, markup: Markup, decimals: int) -> list[str]:
    """Return the lines of a cell: value and gain, verdict, published value and gain, public value."""
    lines = []
    if cell.mean is not None:
        spread = f" ± {cell.deviation:.{decimals}f}" if cell.deviation is not None else ""
        lines.append(f"{cell.mean:.{decimals}f}{spread}{_gain(cell, markup, decimals)}")
    if cell.verdict:
        lines.append(cell.verdict)
    if cell.published is not None:
        gain = f" [{cell.published_gain:+z.{decimals}f}]" if cell.published_gain is not None else ""
        lines.append(markup.quoted.format(f"paper {cell.published:.{decimals}f}{gain}"))
    if cell.public is not None:
        lines.append(markup.quoted.format(f"public {cell.public:.{decimals}f}"))
    return lines


def _gain(cell: Cell, markup: Markup, decimals: int) -> str:
    if cell.gain is None:
        return ""
    gain = f"{cell.gain:+z.{decimals}f}"
    if cell.interval is None:
        return f" [{gain}]"
    low, high = cell.interval
    gain = markup.bold.format(gain) if cell.significant else gain
    return f" [{gain}: {low:+z.{decimals}f} to {high:+z.{decimals}f}]"


def _decimals(cells: list[Cell]) -> int:
    """Return how many decimals are printed: one, or two if the paper gives two."""
    published = [cell.published for cell in cells if cell.published is not None]
    return 1 if all(round(value, 1) == value for value in published) else 2


def _markdown_row(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _latex_cell(lines: list[str]) -> str:
    text = LATEX.line_break.join(line.replace("±", r"$\pm$") for line in lines)
    return rf"\shortstack[r]{{{text}}}" if len(lines) > 1 else text


def _published(value: float | None) -> str:
    return "" if value is None else f"{round(value, 2):g}"


def _ours(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


_LATEX = {
    **{ord(character): f"\\{character}" for character in "%&_#${}"},
    ord("\\"): r"\textbackslash{}",
    ord("^"): r"\textasciicircum{}",
    ord("~"): r"\textasciitilde{}",
    ord("±"): r"$\pm$",
    ord("✓"): r"\checkmark",
    ord("✗"): r"$\times$",
    ord("“"): "``",
    ord("”"): "''",
}


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
