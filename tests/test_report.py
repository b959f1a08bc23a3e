"""The report is one valid page without outside resources, and no number in it lacks its unit."""

from __future__ import annotations

import copy
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.density import KinosonDensity
from ase_kinoson.plotting import (
    plot_arrhenius,
    plot_barriers,
    plot_kinoson_density,
    plot_parity,
    plot_species_shares,
    species_colors,
)
from ase_kinoson.report import build_report
from ase_kinoson.report_figures import inline_svg, readable
from ase_kinoson.report_parts import prose, show
from ase_kinoson.report_tables import Cell, table
from ase_kinoson.summary import KINDS

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Checks nesting and collects text, ids, links and tables."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.text: list[str] = []
        self.cells: list[str] = []
        self.described: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"an attribute twice in <{tag}>"
        self.ids += [v for k, v in attrs if k == "id"]
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag == "svg":
            assert attributes["role"] == "img"
            self.labels.append(attributes["aria-describedby"])
            assert attributes["aria-labelledby"] == attributes["aria-describedby"].replace("-desc", "-title")
        if tag in ("title", "desc") and "id" in attributes:
            self.described[attributes["id"]] = ""
            self.about = attributes["id"]
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data
        if "svg" in self.open and self.open[-1] in ("title", "desc"):
            self.described[self.about] += data
        if not {"style", "script", "svg"} & set(self.open):
            self.text.append(data)

    def row(self, *starts):
        """Cells from the one that begins with these texts on, up to the next of them."""
        n = len(starts)
        (i,) = (i for i in range(len(self.cells)) if tuple(self.cells[i : i + n]) == starts)
        return self.cells[i:]


def number(value, unit, kind="bound", error=None):
    return {"value": value, "error": error, "unit": unit, "kind": kind}


QUANTITIES = ("vacancy", "Cu", "Ni", "tracer Cu", "tracer Ni")


def at(t):
    return {
        "temperature": number(t, "K", "given"),
        "species": ["Cu", "Ni"],
        "ensemble": "equilibrium",
        "n_states": number(10, "1", "count"),
        "effective_sample_size": number(8.5, "1", "Kish"),
        "contribution_sample_size": number(7.5, "1", "Kish, of contributions to D_v"),
        "largest_share": number(0.2, "1", "share of one group of states in D_v"),
        "vacancy_fraction": None,
        "attempt_frequency": number(1e13, "1/s", "given"),
        "vacancy_diffusivity": number(1.5e-11, "m^2/s", "bound", 1e-12),
        "tracer_diffusivity": {a: number(2e-11, "m^2/s per c_v", "bound", 1e-12) for a in ("Cu", "Ni")},
        "correlation_factor": {a: number(0.7, "1", "bound", 0.01) for a in ("Cu", "Ni")},
        "collective_correlation_factor": {a: number(0.8, "1", "bound", 0.02) for a in ("vacancy", "Cu", "Ni")},
        "onsager_matrix": {
            "value": [[1e37, -2e36], [-2e36, 1e36]],
            "error": [[1e36, 2e35], [2e35, 1e35]],
            "unit": "1/(m J s) per c_v",
            "kind": "bound (diagonal), estimate (off-diagonal)",
        },
        "energy_drift": {a: number(-0.01, "1", "statistics", 0.02) for a in ("total", "Cu", "Ni")},
        "energy_difference": number(0.004, "eV", "spread"),
        "ratio_estimate": {
            "vacancy_diffusivity": number(1.4e-11, "m^2/s", "ratio estimate", 1e-12),
            "tracer_diffusivity": {a: number(1.9e-11, "m^2/s per c_v", "ratio estimate", 1e-12) for a in ("Cu", "Ni")},
            "correlation_factor": {a: number(0.66, "1", "ratio estimate", 0.01) for a in ("Cu", "Ni")},
            "collective_correlation_factor": {
                a: number(0.75, "1", "ratio estimate", 0.02) for a in ("vacancy", "Cu", "Ni")
            },
            "onsager_matrix": {
                "value": [[1e37, -2e36], [-2e36, 1e36]],
                "error": [[1e36, 2e35], [2e35, 1e35]],
                "unit": "1/(m J s) per c_v",
                "kind": "ratio estimate",
            },
        },
        "correction": {
            "looseness": {a: number(1.07, "1", "corrected", 0.01) for a in QUANTITIES},
            "surrogate": {a: number(0.96, "1", "estimate", 0.01) for a in QUANTITIES[:3]},
            "tail": {a: number(0.002, "1", "estimate") for a in QUANTITIES},
            "ladder_jumps": number(33792, "1", "count"),
            "rungs": {
                a: {
                    "jumps": [0, 1, 3],
                    "value": [3.0, 2.9, 2.85],
                    "error": [0.1, 0.1, None],
                    "chosen": 2,
                    "unit": "Å^2/s",
                    "kind": "corrected",
                }
                for a in QUANTITIES
            },
            "plain_ladder": {
                "vacancy": {"jumps": [1, 2, 4], "value": [3.0, 2.95, 2.9], "error": [0.1, 0.1, 0.1], "unit": "Å^2/s"}
            },
        },
        "relaxation": {"bound_ratio_trained": number(0.8, "1", "model rates")},
        "model_error": {
            "all": {
                **{k: number(0.01, "eV", "held-out error") for k in ("mae", "rmse", "bias")},
                "barriers": number(24, "1", "count"),
            }
        },
        "activation_energy": {
            "vacancy": number(0.9, "eV", "bound", 0.01),
            "tracer_Cu": number(0.9, "eV"),
            "tracer_Ni": None,
        },
        "mean_barrier": {"vacancy": number(0.85, "eV", "bound", 0.01)},
        "fraction_of_jumps": {"0.5": number(0.1, "1"), "0.9": number(0.6, "1")},
        "share_by_species": {"Cu": number(0.9, "1", "bound", 0.02), "Ni": number(0.1, "1", "bound", 0.02)},
    }


def summary():
    counts = {
        "states": number(10, "1", "count"),
        "barriers": number(119, "1", "count"),
        "rejected": {"left-site": number(1, "1", "count")},
        "force_calls": number(1400, "1", "count"),
        "by_species": {
            a: {
                "mean": number(0.9, "eV"),
                "standard_deviation": number(0.05, "eV"),
                "barriers": number(60, "1", "count"),
                "rejected": number(0, "1", "count"),
            }
            for a in ("Cu", "Ni")
        },
    }
    ratio = number(0.95, "eV", "ratio", 0.03)
    return {
        "title": "Cu & <Ni>",
        "alloy": {
            "file": "a<b>.cif",
            "sublattices": [
                {"name": "s", "mobile": True, "composition": {"Cu": number(0.7, "1"), "Ni": number(0.3, "1")}}
            ],
        },
        "cell": {"sites": number(32, "1", "count")},
        "jumps": {"mechanism": "vacancy"},
        "ensemble": "equilibrium",
        "temperatures": [at(900.0), at(1200.0)],
        "activation_energy_between": [
            {
                "from": number(900.0, "K"),
                "to": number(1200.0, "K"),
                "vacancy": ratio,
                "tracer_Cu": ratio,
                "tracer_Ni": ratio,
            }
        ],
        "model": {"held_out": {}},
        "barriers": {"training": counts},
        "force_calls": number(1400, "1", "count"),
        "leak_free": "Neither fit has seen them.",
        "kinds": KINDS,
        "warnings": ["transport-900K: the energy <drifts>"],
        "wall_time": {"model": number(1.5, "s")},
        "settings": {
            "seed": 7,
            "calculator": {"name": "ase.calculators.emt.EMT"},
            "barriers": {"prefactor": "constant"},
        },
        "settings_toml": 'title = "<&>"\n',
        "versions": {"ase-kinoson": "0.0.1", "ase": "3.29.0"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("finished")
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    rng = np.random.default_rng(0)
    lines = ["temperature_K [K],state,jump,weight,group,species,barrier [eV],state_energy [eV],kinoson_vacancy [Å^2/s]"]
    for t in (900, 1200):
        for state in range(10):
            for jump in range(12):
                q = rng.normal(0.9, 0.05)
                species, kinoson = "Cu" if jump % 3 else "Ni", 1e13 * np.exp(-q / (8.617e-5 * t))
                q, kinoson = ("inf", "0") if (state, jump) == (0, 0) else (q, kinoson)
                lines.append(f"{t},{state},{jump},0.1,{state},{species},{q},{rng.normal()},{kinoson}")
    (tmp_path / "kinosons.csv").write_text("\n".join(lines) + "\n")
    lines = ["set,temperature_K [K],state,jump,species,status,barrier [eV],reverse_barrier [eV],model_barrier [eV]"]
    for i in range(60):
        q = rng.normal(0.9, 0.05)
        status = "left-site" if i == 3 else "ok"
        q = "inf" if i == 3 else q
        where = "fit," if i < 30 else "unseen,900"
        lines.append(f"{where},{i},0,{('Cu', 'Ni')[i % 2]},{status},{q},{q},0.9")
    (tmp_path / "barriers.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def page(folder):
    text = build_report(folder).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def no_figures(monkeypatch):
    """For pages whose words alone are looked at: figures take most of the time."""
    monkeypatch.setattr("ase_kinoson.report_figures.inline_svg", lambda draw, **options: "")


def test_it_is_well_formed_and_its_ids_are_unique(page):
    text, parsed = page
    assert text.startswith("<!DOCTYPE html>")
    assert len(parsed.ids) == len(set(parsed.ids)) > 10
    for link in parsed.links:
        assert link == "data:," or link.removeprefix("#") in parsed.ids
    for target in re.findall(r"aria-(?:labelledby|describedby)=['\"]([^'\"]+)", text):
        assert target in parsed.ids
    for target in re.findall(r"url\(#([^)]+)\)", text):
        assert target in parsed.ids


def test_it_loads_nothing_from_elsewhere(page):
    text, _ = page
    assert "http:" not in text and "https:" not in text
    assert "@import" not in text and "<img" not in text and "src=" not in text
    assert "default-src 'none'" in text and "connect-src" not in text


def test_the_script_is_small_and_says_nothing(page):
    text, _ = page
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    assert script.count("\n") <= 152
    assert not re.search(r"console|fetch|XMLHttp|import|eval|innerHTML|localStorage", script)


def test_text_from_outside_is_escaped(page):
    text, parsed = page
    assert "<Ni>" not in text and "a<b>" not in text and "<drifts>" not in text
    words = "".join(parsed.text)
    assert "Cu & <Ni>" in words and 'title = "<&>"' in words and "the energy <drifts>" in words


def test_figures_have_words_for_those_who_cannot_see_them(page):
    _, parsed = page
    words = [parsed.described[label] for label in parsed.labels]
    assert len(words) == len(set(words)) == 10
    assert all(len(label) > 40 for label in words)
    assert all(0 < len(parsed.described[label.replace("-desc", "-title")]) < 80 for label in parsed.labels)


UNITS = r"(m²/s|eV²?|s⁻¹|1/\(m J s\)|%| s| K|states|sites)( per c_v)?$"
PLAIN = (
    "tracer correlation",
    "correlation factor",
    "energy drift",
    "mean bound over",
    "vacancy",
    "tracer",
    "collective",
)
"""Rows of numbers without a unit, as their captions say."""


def numbers_of(text):
    """Name of the row, text, value, error and unit of every cell with a number."""
    for name, rest in re.findall(r"<tr[^>]*><th scope='row'[^>]*>(.*?)</th>(.*?)</tr>", text):
        cells = re.findall(
            r"<td class='n[^']*' data-value='([^']*)'(?: data-error='([^']*)')? data-unit='([^']*)'>(.*?)</td>", rest
        )
        for value, error, unit, inner in cells:
            shown = re.sub(r"<[^>]+>", "", inner)
            yield re.sub(r"<[^>]+>", "", name), shown, float(value), float(error) if error else None, unit


def test_every_number_in_a_table_has_a_unit(page):
    text, _ = page
    found = list(numbers_of(text))
    assert len(found) > 90
    for name, shown, _, _, unit in found:
        if unit == "1":
            counted = shown.isdigit()
            assert counted or shown.endswith(("%", "states")) or name.startswith(PLAIN), (name, shown)
        else:
            assert re.search(UNITS, shown), (name, shown)
    assert not re.search(
        r"<td class='k'>[^<]*\d ?(eV|%|m²)", text.replace("25 %", "").replace("5 %", "").replace("30 %", "")
    )


DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")
SCALES = {"%": 0.01, "meV": 1e-3}


def test_cells_hold_in_full_what_they_show(page):
    pattern = r"\(?([+-]?[\d.]+)(?: ± ([\d.]+))?\)?(?: × 10(-?\d+))? ?(.*)"
    for name, shown, value, error, _ in numbers_of(page[0]):
        v, e, power, unit = re.fullmatch(pattern, shown.translate(DIGITS)).groups()
        factor = 10.0 ** int(power or 0) * SCALES.get(unit, 1.0)
        step = 0.5001 * factor * 10.0 ** -len(v.partition(".")[2])
        assert abs(value - float(v) * factor) <= step, (name, shown, value)
        assert (e is None) == (error is None), (name, shown)
        assert e is None or abs(error - float(e) * factor) <= step, (name, shown, error)


def test_the_table_of_contents_names_every_chapter(page):
    text, parsed = page
    (nav,) = re.findall(r"<nav.*?</nav>", text)
    targets = re.findall(r"href='#([^']+)'", nav)
    chapters = [key for key in re.findall(r"<h2 id='([^']+)'", text) if key not in ("summary", "warnings")]
    assert targets == chapters and len(chapters) == 6
    assert set(targets) <= set(parsed.ids)


def test_the_summary_says_first_which_jumps_carry_diffusion(page):
    words = "".join(page[1].text)
    assert "Cu jumps carry (90.0 ± 2.0) % of the vacancy diffusivity at 900 K and (90.0 ± 2.0) % at 1200 K" in words
    assert "The sites hold 70 % Cu, 30 % Ni." in words
    assert "Half of the vacancy diffusivity is carried by 10.0 % of all jumps at 900 K and 10.0 % at 1200 K" in words
    assert words.index("Cu jumps carry") < words.index("Coefficients", words.index("plain words"))


def test_settings_seed_and_versions_are_given(page):
    words = "".join(page[1].text)
    assert "the seed of this study is 7" in words and "3.29.0" in words and "Written by ase_kinoson 0.0.1" in words


def test_bounds_say_of_what_they_are_bounds(page):
    _, parsed = page
    words = "".join(parsed.text)
    assert "Upper bounds are on the coefficient of this very alloy model" in words
    assert "upper bound on the true coefficient of this cell" in words
    assert "Neither is a bound" in words
    assert "multiply them by the c_v" in words
    assert "assumed" in words


def test_bounds_and_ratio_estimates_stand_side_by_side(page):
    text, parsed = page
    words = "".join(parsed.text)
    cells = parsed.row("tracer diffusivity D* of Cu", "900 K")[:5]
    assert cells[2] == "(2.00 ± 0.10) × 10⁻¹¹ m²/s per c_v" and cells[3] == "(1.90 ± 0.10) × 10⁻¹¹ m²/s per c_v"
    assert cells[4] == "ratio estimate"
    i = parsed.cells.index("coefficient")
    assert parsed.cells[i : i + 5] == ["coefficient", "temperature", "upper bound", "ratio estimate", "publish"]
    assert re.search(r"<td class='n best' data-value='1.9e-11'", text)
    assert not re.search(r"<td class='n best' data-value='2e-11'", text)
    assert "Which number to publish?" in words and "a product of two small errors" in words
    assert "most likely with (1.40 ± 0.10) × 10⁻¹¹ m²/s (ratio estimate)" in words
    assert "7.1 % above the ratio estimate" in words
    assert "leaves it 7.0 % above the corrected value" in words
    assert "put it 0.1 % above many states of the model" in words
    assert "give a D that is 4.0 % below that of the barrier model;" in words
    assert any(label.startswith("Residual ladder at 900 K") for label in parsed.described.values())
    assert "0.2 %" in parsed.cells and "33792 at 900 K" in words


@pytest.mark.parametrize(("where", "value"), [("surrogate", 1.4), ("tail", 0.2)])
def test_a_doubtful_ratio_estimate_is_called_so(no_figures, folder, tmp_path, where, value):
    text = changed(folder, tmp_path, lambda row: row["correction"][where]["vacancy"].update(value=value))
    assert "<td class='k'>ratio estimate</td>" not in text and "ratio estimate with care, see below" in text


def test_a_noisy_ratio_estimate_gives_way_to_the_bound(no_figures, folder, tmp_path):
    text = changed(folder, tmp_path, lambda row: row["ratio_estimate"]["vacancy_diffusivity"].update(error=3e-12))
    cells = Page(text).row("vacancy diffusivity D", "900 K")[:5]
    assert cells[4] == "upper bound: ratio too noisy"
    assert re.search(r"<td class='n best' data-value='1.5e-11'", text)


def test_a_bound_below_the_best_value_is_not_called_a_limit(no_figures, folder, tmp_path):
    text = changed(folder, tmp_path, lambda row: row["vacancy_diffusivity"].update(value=1.2e-11))
    first, second = re.findall(r"At (?:900|1200) K the vacancy diffuses.*?\.(?= |\n|$)", "".join(Page(text).text))[:2]
    assert "the upper bound of these states, (1.20 ± 0.10) × 10⁻¹¹ m²/s, lies below it, which is chance" in first
    assert "at most" not in first and "at most with (1.50" in second


def changed(folder, tmp_path, change, *, mechanism="vacancy"):
    """Report of the summary after a change to its first temperature; of this one alone for another mechanism."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    data = summary()
    several = change(data["temperatures"][0])
    data["temperatures"] = several or data["temperatures"]
    if mechanism != "vacancy":
        data["jumps"]["mechanism"] = mechanism
        path = tmp_path / "kinosons.csv"
        path.write_text(path.read_text().replace("kinoson_vacancy", "kinoson_carrier"))
        data["temperatures"], data["activation_energy_between"] = data["temperatures"][:1], []
    (tmp_path / "summary.json").write_text(json.dumps(data))
    return build_report(tmp_path).read_text(encoding="utf-8")


def test_kinds_that_differ_have_a_column(no_figures, folder, tmp_path):
    text = changed(folder, tmp_path, lambda row: row["vacancy_diffusivity"].update(kind="not a bound"))
    cells = Page(text).row("vacancy diffusivity D", "900 K")[:6]
    assert cells[4] == "not a bound"


def test_a_study_without_the_correction_shows_its_bounds(no_figures, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    data = summary()
    for row in data["temperatures"]:
        row |= {"ratio_estimate": None, "correction": None}
    (tmp_path / "summary.json").write_text(json.dumps(data))
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "Residual ladder" not in text and "most likely" not in text and "so there is no best value" in text


def test_an_interstitial_needs_no_vacancy_fraction(no_figures, folder, tmp_path):
    def change(row):
        row["mean_barrier"]["carrier"] = row["activation_energy"]["carrier"] = row["mean_barrier"]["vacancy"]
        row["collective_correlation_factor"]["carrier"] = number(0.9, "1", "bound", 0.02)
        row |= {"ratio_estimate": None, "correction": None}

    text = changed(folder, tmp_path, change, mechanism="interstitial")
    words = "".join(Page(text).text)
    assert "no vacancy fraction enters" in words
    assert "multiply them by the c_v" not in words and "formation energy of the vacancy" not in words
    assert "interstitial diffusivity D" in words


def test_rejections_and_warnings_are_shown(page):
    words = "".join(page[1].text)
    assert "1 left-site" in words and "1 jump was rejected" in words
    assert "Know before you use a number" in words


def test_equal_inputs_give_equal_files(folder, page):
    assert build_report(folder).read_text(encoding="utf-8") == page[0]


def test_a_given_vacancy_fraction_is_shown(no_figures, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    folder = tmp_path
    data = copy.deepcopy(summary())
    for row in data["temperatures"]:
        row["vacancy_fraction"] = number(1e-4, "1", "given")
    (folder / "summary.json").write_text(json.dumps(data))
    text = build_report(folder).read_text(encoding="utf-8")
    assert "vacancy site fraction c_v = 1.00 × 10⁻⁴" in "".join(Page(text).text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (number(1.497e-11, "m^2/s", error=1.2e-12), "(1.50 ± 0.12) × 10⁻¹¹ m²/s"),
        (number(0.8462, "eV", error=0.0039), "0.8462 ± 0.0039 eV"),
        (number(0.0, "eV"), "0.00 eV"),
        (number(-0.5, "1", error=0.0), "−0.500 ± 0.000"),
        (number(1234, "1", "count"), "1234"),
        (number(None, "eV"), "not known"),
        (number(123456.0, "Å^2/s"), "1.23 × 10⁵ Å²/s"),
        (number(99.96, "eV", error=1.0), "100.0 ± 1.0 eV"),
        (None, "not known"),
    ],
)
def test_numbers_as_text(value, text):
    assert show(value) == text


def test_sentences_keep_numbers_and_units_together():
    assert prose("D < 3 & (1.50 ± 0.12) × 10⁻¹¹ m²/s at 900 K.") == (
        "D &lt; 3 &amp; <span class='q'>(1.50 ± 0.12) × 10⁻¹¹ m²/s</span> at <span class='q'>900 K</span>."
    )


def test_decimal_points_of_a_column_stand_below_each_other():
    rows = [("a", Cell("9.62 %", 0.0962)), ("b", Cell("(13.6 ± 1.1) %", 0.136, 0.011)), ("c", "")]
    text = table(("x", "y"), rows, name="n", caption="c")
    assert "<span class='lead' style='min-width:3ch'>9</span>.62 %" in text
    assert "<span class='lead' style='min-width:3ch'>(13</span>.6 ± 1.1) %" in text
    assert "min-width" not in table(("x", "y"), rows[:1], name="n", caption="c")


def test_a_kind_that_all_rows_share_goes_into_the_caption():
    rows = [("a", Cell("1", 1.0, kind="count")), ("b", Cell("2", 2.0, kind="count"))]
    assert "c; kind: count" in table(("x", "y"), rows, name="n", caption="c", kinds=True)
    mixed = table(("x", "y"), [*rows, ("c", Cell("3", 3.0, kind="bound"))], name="n", caption="c", kinds=True)
    assert "kind</th>" in mixed and "<td class='k'>bound</td>" in mixed


def test_many_temperatures_stand_below_each_other():
    def made(n):
        labels = [Cell(f"{900 + i} K", 900.0 + i, unit="K") for i in range(n)]
        rows = [(a, *(Cell(f"{i} eV", float(i), unit="eV") for i in range(n)), "small") for a in "ab"]
        return Page(table(("who", "expected"), rows, name="n", caption="c", across=("temperature", labels))).cells

    assert made(2)[:4] == ["who", "at 900 K", "at 901 K", "expected"]
    assert made(5)[:8] == ["who", "temperature", "value", "expected", "a", "900 K", "0 eV", "small"]
    assert len(made(5)) == 4 + 2 * 5 * 4
    labels = [Cell(f"{900 + i} K", 900.0 + i, unit="K") for i in range(5)]
    rows = [(a, *(Cell(f"{i} eV", float(i), unit="eV") for i in range(5))) for a in "ab"]
    text = table(("who",), rows, name="n", caption="c", across=("temperature", labels))
    turned = Page(text).cells
    assert turned[:6] == ["temperature", "a", "b", "900 K", "0 eV", "0 eV"]


def test_temperatures_have_no_kind_that_mixes_with_those_of_the_numbers(no_figures, folder, tmp_path):
    def change(row):
        rows = [copy.deepcopy(row) for _ in range(6)]
        for i, own in enumerate(rows):
            own["temperature"]["value"] = 700.0 + i
        return rows

    text = changed(folder, tmp_path, change)
    assert "one standard error; kind: ratio</p>" in text or "; kind: bound" in text
    assert "given /" not in text and "<td class='k'>given" not in text
    assert "at 703 K" not in text.split("</nav>")[1].split("<h2 id='barriers'")[0].split("<table")[3]


def test_figures_are_readable_on_every_colour():
    for colour in species_colors("abcdefgh").values():
        rgb = tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        ink = 0.0 if readable(rgb) == "#000000" else 1.0
        assert contrast(rgb, (ink,) * 3) >= 4.5


def contrast(a, b):
    """Contrast ratio of WCAG 2."""

    def luminance(rgb):
        return sum(
            w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for w, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True)
        )

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_percentages():
    assert show(number(0.911, "1", error=0.015), percent=True) == "(91.1 ± 1.5) %"
    assert show(number(0.181, "1"), percent=True) == "18.1 %"


# -- figures ------------------------------------------------------------------------------------------------------


def density():
    rng = np.random.default_rng(1)
    n = 200
    barrier = np.r_[rng.normal(0.9, 0.05, n - 1), np.inf]
    kinoson = 1e13 * np.exp(-barrier / 0.08)
    state = np.arange(n) // 10
    return KinosonDensity(
        900.0, "kinoson_vacancy", kinoson, np.full(n, 0.05), barrier, np.zeros(n), np.array(["Cu", "Ni"] * (n // 2)),
        state, state, "bound",
    )  # fmt: skip


def test_plots_draw_into_the_axes_they_are_given_and_label_them():
    from matplotlib.figure import Figure

    q = np.array([0.8, 0.9, 1.0, np.inf])
    species = ["Cu", "Ni", "Cu", "Ni"]
    draws = [
        lambda ax: plot_barriers(q, species, ax=ax),
        lambda ax: plot_parity(q, q + 0.01, [True, False, True, False], ax=ax),
        lambda ax: plot_kinoson_density(density(), ax=ax),
        lambda ax: plot_kinoson_density(density(), over="log_kinoson", ax=ax),
        lambda ax: plot_species_shares({"900 K": {"Cu": (0.9, 0.1), "Ni": (0.1, float("nan"))}}, ax=ax),
        lambda ax: plot_arrhenius([900.0, 1200.0], {"Cu": [(1e-11, 1e-12), (1e-10, np.nan)]}, ax=ax),
        lambda ax: plot_arrhenius([900.0], {"Cu": [(1e-11, 1e-12)]}, ax=ax),
    ]
    for draw in draws:
        ax = Figure().subplots()
        assert draw(ax) is ax
        assert ax.get_xlabel()
        assert ax.get_legend() is not None


def test_the_density_plot_shows_the_whole_coefficient():
    from matplotlib.figure import Figure

    for over in ("barrier", "log_kinoson"):
        ax = plot_kinoson_density(density(), over=over, ax=Figure().subplots())
        area = sum(p.get_width() * p.get_height() for bars in ax.containers for p in bars)
        assert area == pytest.approx(1.0)


def test_plots_refuse_what_they_cannot_draw():
    with pytest.raises(KinosonError, match="barrier_"):
        plot_kinoson_density(density(), over="barrier_")
    with pytest.raises(KinosonError, match="no finite barrier"):
        plot_barriers([np.inf], ["Cu"])
    with pytest.raises(KinosonError, match="no finite pair"):
        plot_parity([np.inf], [1.0], [True])


def test_a_species_keeps_its_colour():
    assert species_colors(["Ni", "Cu", "Ni"]) == species_colors(["Cu", "Ni"])


def test_inline_figures_leave_the_settings_of_matplotlib_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    svg = inline_svg(lambda ax: ax.plot([0, 1]), name="a", alt='say "what" & where')
    assert dict(mpl.rcParams) == before
    assert '<desc id="a-desc">say "what" &amp; where</desc>' in svg
    assert 'aria-labelledby="a-title" aria-describedby="a-desc"' in svg
    assert "currentColor" in svg and "#010203" not in svg and "date" not in svg.lower()


def test_vineyard_frequencies_are_called_so(folder, tmp_path, no_figures):
    """What is assumed and what is computed are told apart."""
    for name in ("summary.json", "kinosons.csv", "barriers.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "(assumed)" in page and "Vineyard" not in page
    path = tmp_path / "summary.json"
    path.write_text(path.read_text().replace('"prefactor": "constant"', '"prefactor": "vineyard"'))
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "Vineyard's attempt frequencies" in page and "(assumed)" not in page
