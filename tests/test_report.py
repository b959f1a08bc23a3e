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
from ase_kinoson.report_figures import inline_svg
from ase_kinoson.report_parts import show
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
            self.labels.append(attributes["aria-label"])
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
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if not {"style", "svg"} & set(self.open):
            self.text.append(data)


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
        "settings": {"calculator": {"name": "ase.calculators.emt.EMT"}},
        "settings_toml": 'title = "<&>"\n',
        "versions": {"ase": "3.29.0"},
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


def test_it_is_well_formed_and_its_ids_are_unique(page):
    text, parsed = page
    assert text.startswith("<!DOCTYPE html>")
    assert len(parsed.ids) == len(set(parsed.ids)) > 10
    for link in parsed.links:
        assert link == "data:," or link.removeprefix("#") in parsed.ids
    for target in re.findall(r"url\(#([^)]+)\)", text):
        assert target in parsed.ids


def test_it_loads_nothing_from_elsewhere(page):
    text, _ = page
    assert "http:" not in text and "https:" not in text
    assert "@import" not in text and "<script" not in text and "<img" not in text and "src=" not in text


def test_text_from_outside_is_escaped(page):
    text, parsed = page
    assert "<Ni>" not in text and "a<b>" not in text and "<drifts>" not in text
    words = "".join(parsed.text)
    assert "Cu & <Ni>" in words and 'title = "<&>"' in words and "the energy <drifts>" in words


def test_figures_have_words_for_those_who_cannot_see_them(page):
    _, parsed = page
    assert len(parsed.labels) == 10
    assert all(len(label) > 40 for label in parsed.labels)


UNITS = r"(m²/s|eV|s⁻¹|1/\(m J s\)|%| s$| K$|states?$|left-site)"
UNITLESS = (
    "bound over corrected", "reference over model", "correlation factor", "energy drift", "mean bound over", "ase",
    "training", "test states", "states at",
)  # fmt: skip


def test_every_number_in_a_table_has_a_unit(page):
    text, _ = page
    rows = re.findall(r"<tr><th scope='row'>(.*?)</th>(.*?)</tr>", text)
    assert len(rows) > 25
    for name, rest in rows:
        for cell in re.findall(r"<td class='n'>(.*?)</td>", rest):
            counted = cell.isdigit()
            assert counted or re.search(UNITS, cell) or any(u in name for u in UNITLESS), (name, cell)


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
    rows = re.findall(r"<tr><th scope='row'>tracer diffusivity D\* of Cu</th>(.*?)</tr>", text)
    assert len(rows) == 2
    assert "2.00" in rows[0] and "upper bound" in rows[0] and "rigorous upper limit" in rows[0]
    assert "1.90" in rows[1] and "ratio estimate" in rows[1] and "publish this one" in rows[1]
    assert "Which number to publish?" in words and "second order in the error of that model" in words
    assert "most likely with (1.40 ± 0.10) × 10⁻¹¹ m²/s (ratio estimate)" in words
    assert "7.1 % above the ratio estimate" in words
    assert "leaves it 7.0 % above the corrected value" in words
    assert "put it 0.1 % above many states of the model" in words
    assert "give a D that is 4.0 % below that of the barrier model;" in words
    assert any(label.startswith("Residual ladder at 900 K") for label in parsed.labels)
    assert "0.2 %" in text and "33792" in text


@pytest.mark.parametrize(("where", "value"), [("surrogate", 1.4), ("tail", 0.2)])
def test_a_doubtful_ratio_estimate_is_called_so(folder, tmp_path, where, value):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    data = summary()
    data["temperatures"][0]["correction"][where]["vacancy"]["value"] = value
    (tmp_path / "summary.json").write_text(json.dumps(data))
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "publish this one" not in text and "best value, with care" in text


def test_a_study_without_the_correction_shows_its_bounds(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    data = summary()
    for row in data["temperatures"]:
        row |= {"ratio_estimate": None, "correction": None}
    (tmp_path / "summary.json").write_text(json.dumps(data))
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "Residual ladder" not in text and "most likely" not in text and "so there is no best value" in text


def test_rejections_and_warnings_are_shown(page):
    words = "".join(page[1].text)
    assert "1 left-site" in words and "1 jumps were rejected" in words
    assert "Know before you use a number" in words


def test_equal_inputs_give_equal_files(folder, page):
    assert build_report(folder).read_text(encoding="utf-8") == page[0]


def test_a_given_vacancy_fraction_is_shown(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    folder = tmp_path
    data = copy.deepcopy(summary())
    for row in data["temperatures"]:
        row["vacancy_fraction"] = number(1e-4, "1", "given")
    (folder / "summary.json").write_text(json.dumps(data))
    text = build_report(folder).read_text(encoding="utf-8")
    assert "vacancy site fraction c_v = 1.00 × 10⁻⁴" in text


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
    assert 'aria-label="say &quot;what&quot; &amp; where"' in svg
    assert "currentColor" in svg and "#010203" not in svg and "date" not in svg.lower()
