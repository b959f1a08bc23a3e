"""The report: one HTML file that opens without a network, on a phone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson import report_coefficients as coefficients
from ase_kinoson import report_figures as figures
from ase_kinoson import report_sections as sections
from ase_kinoson.errors import StudyError
from ase_kinoson.report_parts import prose, read_csv, read_summary
from ase_kinoson.report_series import measured_table, series_table, vacancy_table
from ase_kinoson.report_words import lead, summary_words, warnings_list
from ase_kinoson.stages import replace_file

if TYPE_CHECKING:
    from ase_kinoson.study import StudyResult

__all__ = ["build_report"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The browser is told that the page needs nothing from outside."""


def build_report(source: str | Path | StudyResult) -> Path:
    """Write ``report.html`` from what a study left in its folder.

    Parameters
    ----------
    source
        The output folder, or the result of a study.

    Returns
    -------
    Path
        The report; equal inputs give equal files.

    Raises
    ------
    StudyError
        If the folder does not hold the output of a finished study.
    """
    folder = Path(source) if isinstance(source, str | Path) else source.folder
    summary = read_summary(folder / "summary.json")
    kinosons = read_csv(folder / "kinosons.csv")
    barriers = read_csv(folder / "barriers.csv")
    try:
        page = _page(summary, kinosons, barriers)
    except (KeyError, TypeError, IndexError) as error:
        raise StudyError(
            f"the files in {str(folder)!r} do not belong together ({type(error).__name__}: {error}); "
            "expected those of one finished "
            "study; run the study again"
        ) from error
    path = folder / "report.html"
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _page(s: Mapping[str, Any], kinosons: dict[str, np.ndarray], barriers: dict[str, np.ndarray]) -> str:
    title = escape(str(s["title"]), quote=False)
    chapters = [
        ("coefficients", "Coefficients", "Coefficients", _coefficients(s)),
        (
            "jumps",
            "Which jumps",
            "Which jumps carry diffusion",
            sections.carriers(s) + _drawn(figures.kinoson_figures(s, kinosons)),
        ),
        (
            "barriers",
            "Barriers",
            "Barriers",
            sections.barriers(s) + _drawn(figures.barrier_figures(s, barriers)) + sections.model(s),
        ),
        ("trust", "Trust", "Can the numbers be trusted?", sections.trust(s)),
        ("kinds", "Kinds of numbers", "What the kinds of numbers mean", sections.kinds(s)),
        ("again", "Settings and versions", "How to get these numbers again", sections.again(s)),
    ]
    links = "".join(f"<li><a href='#{key}'>{short}</a></li>" for key, short, _, _ in chapters)
    body = "\n".join(
        f"<section aria-labelledby='{key}'>\n<h2 id='{key}'>{name}</h2>\n{text}\n</section>"
        for key, _, name, text in chapters
    )
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta name='color-scheme' content='light dark'>\n"
        "<link rel='icon' href='data:,'>\n"
        f"<title>{title}</title>\n<style>\n{_template('report.css')}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{title}</h1>\n<p class='lead'>{prose(lead(s))}</p>\n"
        f"<nav aria-label='Contents'><ul>{links}</ul></nav>\n</header>\n<main>\n"
        f"{summary_words(s)}\n{warnings_list(s)}\n{body}\n</main>\n{_footer(s)}\n"
        f"<script>\n{_template('report.js')}</script>\n</body>\n</html>\n"
    )


def _template(name: str) -> str:
    return resources.files("ase_kinoson").joinpath("templates", name).read_text(encoding="utf-8")


def _drawn(svgs: str) -> str:
    return f"<div class='figures'>{svgs}</div>"


def _coefficients(s: Mapping[str, Any]) -> str:
    return "".join(
        (
            coefficients.coefficients(s),
            _drawn(figures.transport_figures(s)),
            coefficients.correction(s),
            coefficients.activation(s),
            series_table(s),
            measured_table(s),
            vacancy_table(s),
            coefficients.onsager(s),
        )
    )


def _footer(s: Mapping[str, Any]) -> str:
    version = s["versions"].get("ase-kinoson")
    by = f"Written by ase_kinoson {version}" if version else "Written by ase_kinoson"
    return (
        f"<footer><p>{escape(by)} from <code>summary.json</code>, <code>kinosons.csv</code> and "
        "<code>barriers.csv</code>, which hold every number in full and lie in the same folder.</p></footer>"
    )
