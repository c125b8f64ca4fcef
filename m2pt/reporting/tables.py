"""Write a table: tidy CSV for machines, Markdown and LaTeX laid out as in the paper for people."""

import csv
import io
from itertools import groupby

from m2pt.reporting.cells import Cell
from m2pt.schema.tables import Row, Table

SETTINGS = {
    "pretrained": "Pretrained setting",
    "scratch": "From-scratch setting",
    "control": "Controls (ours)",
}
TIDY = (
    "setting",
    "method",
    "column",
    "published",
    "mean",
    "standard_deviation",
    "seeds",
    "baseline",
    "gain",
    "published_gain",
    "run",
)


def to_csv(cells: list[Cell]) -> str:
    """One line per cell; percentages, empty where nothing was measured or published."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TIDY)
    for cell in cells:
        writer.writerow(
            [
                cell.row.setting,
                cell.row.method,
                cell.column.name,
                _published(cell.published),
                _ours(cell.mean),
                _ours(cell.deviation),
                len(cell.values) or "",
                cell.row.baseline or "",
                _ours(cell.gain),
                _published(cell.published_gain),
                cell.run.name if cell.run else "",
            ]
        )
    return text.getvalue()


def to_markdown(table: Table, cells: list[Cell], made: str) -> str:
    """Rows and columns as in the paper; a cell shows ours and, below it, the published number.

    `made` says with which config and how many seeds.
    """
    head = ["Method", *(f"{column.group} {column.title}" for column in table.columns)]
    lines = [f"**{table.title}.** {table.caption}", "", _markdown_row(head)]
    lines.append(_markdown_row(["---", *["---:" for _ in table.columns]]))
    for setting, rows in _by_setting(cells):
        lines.append(_markdown_row([f"*{SETTINGS[setting]}*", *["" for _ in table.columns]]))
        for row, row_cells in rows:
            lines.append(_markdown_row([row.method, *(_markdown_cell(cell) for cell in row_cells)]))
    legend = f'{made} [gain over the baseline]; "paper" is the published number; an empty cell was not run.'
    lines += ["", *(f"- {note}" for note in (legend, *_notes(table)))]
    return "\n".join(lines) + "\n"


def to_latex(table: Table, cells: list[Cell], made: str) -> str:
    """A booktabs table; a cell shows ours and, in parentheses, the published number."""
    groups = [
        (name, len(list(columns))) for name, columns in groupby(column.group for column in table.columns)
    ]
    head = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{_escape(name)}}}" for name, width in groups)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf" & {head} \\",
        " & ".join(["Method", *(_escape(column.title) for column in table.columns)]) + r" \\",
    ]
    for setting, rows in _by_setting(cells):
        lines += [
            r"\midrule",
            rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\textit{{{SETTINGS[setting]}}}}} \\",
        ]
        lines += [
            " & ".join([_escape(row.method), *(_latex_cell(cell) for cell in row_cells)]) + r" \\"
            for row, row_cells in rows
        ]
    lines += [r"\bottomrule", r"\end{tabular}"]
    legend = f"{made} [gain over the baseline] (published number); an empty cell was not run."
    caption = _escape(" ".join([table.caption, legend, *_notes(table)]))
    lines += [rf"\caption{{\textbf{{{_escape(table.title)}.}} {caption}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _notes(table: Table) -> list[str]:
    """What a reader must know of the rows."""
    pairs: dict[str, list[str]] = {}
    for row in table.rows:
        if row.baseline:
            pairs.setdefault(f"{row.baseline} ({SETTINGS[row.setting].lower()})", []).append(row.method)
    baselines = [f"Baseline {baseline}: {', '.join(methods)}." for baseline, methods in pairs.items()]
    return [*baselines, *(f"{row.method}: {row.note}." for row in table.rows if row.note)]


def _by_setting(cells: list[Cell]) -> list[tuple[str, list[tuple[Row, list[Cell]]]]]:
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.row.setting, cell.row.method), []).append(cell)
    settings: dict[str, list[tuple[Row, list[Cell]]]] = {}
    for (setting, _), row_cells in rows.items():
        settings.setdefault(setting, []).append((row_cells[0].row, row_cells))
    return list(settings.items())


def _markdown_row(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _markdown_cell(cell: Cell) -> str:
    ours = _measured(cell, "±")
    published = _with_gain(cell.published, cell.published_gain)
    return "<br>".join(part for part in (ours, f"<sub>paper {published}</sub>" if published else "") if part)


def _latex_cell(cell: Cell) -> str:
    ours = _measured(cell, r"$\pm$")
    published = _with_gain(cell.published, cell.published_gain)
    return " ".join(part for part in (ours, f"({published})" if published else "") if part)


def _measured(cell: Cell, plus_minus: str) -> str:
    if cell.mean is None:
        return ""
    spread = f" {plus_minus} {cell.deviation:.1f}" if cell.deviation is not None else ""
    return f"{cell.mean:.1f}{spread}" + (f" [{cell.gain:+.1f}]" if cell.gain is not None else "")


def _with_gain(value: float | None, gain: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" + (f" [{gain:+.1f}]" if gain is not None else "")


def _published(value: float | None) -> str:
    return "" if value is None else f"{round(value, 2):g}"


def _ours(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _escape(text: str) -> str:
    return "".join(f"\\{character}" if character in "%&_#$" else character for character in text)
