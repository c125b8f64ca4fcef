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
                _number(cell.published),
                _number(cell.mean, 4),
                _number(cell.deviation, 4),
                len(cell.values) or "",
                cell.row.baseline or "",
                _number(cell.gain, 4),
                _number(cell.published_gain),
                cell.run.name if cell.run else "",
            ]
        )
    return text.getvalue()


def to_markdown(table: Table, cells: list[Cell], notes: list[str]) -> str:
    """Rows and columns as in the paper; a cell shows ours and, below it, the published number."""
    head = ["Method", *(f"{column.group} {column.title}" for column in table.columns)]
    lines = [f"**{table.title}.** {table.caption}", "", _markdown_row(head)]
    lines.append(_markdown_row(["---", *["---:" for _ in table.columns]]))
    for setting, rows in _by_setting(cells):
        lines.append(_markdown_row([f"*{SETTINGS[setting]}*", *["" for _ in table.columns]]))
        for row, row_cells in rows:
            lines.append(_markdown_row([row.method, *(_markdown_cell(cell) for cell in row_cells)]))
    lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def to_latex(table: Table, cells: list[Cell], notes: list[str]) -> str:
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
    lines += [rf"\caption{{\textbf{{{_escape(table.title)}.}} {_escape(' '.join([table.caption, *notes]))}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def notes(table: Table, seeds: tuple[int, ...], config: str) -> list[str]:
    """Return what a reader must know to read the numbers."""
    count = (
        f"{len(seeds)} seeds, mean ± standard deviation"
        if len(seeds) > 1
        else "1 seed, so no spread is known"
    )
    quoted = [f"{row.method}: {row.note}" for row in table.rows if row.note]
    return [
        f"Measured with {config} ({count}); evaluated on the merged, plain model.",
        "In brackets the gain over the row's baseline, paired by seed: "
        + "; ".join(
            f"{row.method} against {row.baseline}" + (" (scratch)" if row.setting == "scratch" else "")
            for row in table.rows
            if row.baseline
        )
        + ".",
        '"paper" is the published number, at ViT-B and full datasets; an empty cell was not run.',
        *quoted,
    ]


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


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{round(value, digits):g}" if digits <= 2 else f"{value:.{digits}f}"


def _escape(text: str) -> str:
    return "".join(f"\\{character}" if character in "%&_#$" else character for character in text)
