"""The report in a real browser: light, dark, phone, paper, keyboard, clipboard, and without JavaScript.

Every check is a function that returns complaints, and is shown to complain of a page that deserves it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import ase_kinoson as ak
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.report import build_report
from ase_kinoson.study import Study

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the report is not tested in a browser: playwright is not installed"
)

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SETTINGS = {
    "title": "Browser <test> & Cu70Ni30",
    "seed": 5,
    "workers": 1,
    "alloy": {"file": "alloy.cif"},
    "cell": {"size": 2},
    "barriers": {"fmax_initial": 0.05, "fmax_final": 0.05},
    "states": {"training": 8, "evaluation": 6, "sweeps": 10},
    "model": {"hidden": 0, "epochs": 1},
    "relaxation": {"n_states": 12, "form": "paths", "closure_epochs": 1, "gates": 0, "lookahead": 1},
    "correction": {"n_steps": 3, "n_trajectories": 32},
    "vacancies": {"arrangements": 2, "sites": 2, "swaps": 2},
    "transport": {"temperatures_K": [900.0, 1100.0, 1300.0], "measured": "measured.csv", "n_resamples": 20},
}
MEASURED = "temperature [C],diffusivity [cm2/s],species,source\n900,1e-12,Cu,test\n"
PHONE = {"width": 360, "height": 740}
A4 = {"width": 680, "height": 970}
"""What is left of a page of A4 between the margins of the style sheet, px."""


def known_barriers(states, jumps, calculator, **options):
    """Barriers of a pair model in place of those of a calculator, which would take minutes."""
    energy = ak.PairEnergy.from_interactions(jumps.supercell, {("Cu", "Ni"): 0.02, ("Ni", "X"): 0.03}, network=jumps)
    rates = Rates.of(ak.PairBarriers(energy, {"Cu": 0.85, "Ni": 0.95}), jumps, temperature_K=1000.0)
    found = rates.energies(states.occupations, states.carriers)
    start = rates.state_energies(states.occupations)
    return ak.Barriers.from_arrays(
        states, jumps, found.barrier, energy_initial=start, energy_final=start[:, None] + found.delta_e
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A study with several temperatures, correction, vacancies and a measured point."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copy(ROOT / "examples" / "Cu70Ni30.cif", folder / "alloy.cif")
    (folder / "measured.csv").write_text(MEASURED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ase_kinoson.barriers.campaign.compute_barriers", known_barriers)
        result = Study.from_dict(SETTINGS, folder / "out", base=folder).transport()
    return build_report(result)


@pytest.fixture(scope="module")
def browser():
    named = os.environ.get("ASE_KINOSON_BROWSER")
    command = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        complain = pytest.fail if named else pytest.skip  # one that is named has to be there
        missing = f"no {named}" if named else f"none of {', '.join(BROWSERS)}"
        complain(
            f"the report is not tested in a browser: found {missing}; "
            "expected a headless browser; install chromium, or name one in ASE_KINOSON_BROWSER"
        )
    with playwright.sync_playwright() as driver:
        try:
            found = driver.chromium.launch(executable_path=command, args=["--no-sandbox", "--disable-dev-shm-usage"])
        except playwright.Error as error:
            if named:
                raise
            pytest.skip(
                f"the report is not tested in a browser: {command} does not start ({str(error).splitlines()[0]}); "
                "expected one that does; name another in ASE_KINOSON_BROWSER"
            )
        yield found
        found.close()


@pytest.fixture
def visit(browser, report):
    """Open the report, or a page made from it; what the page says and asks for is kept in ``page.log``."""
    contexts = []

    def opened(path=report, *, before="", **options):
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1100, "height": 800}), **options)
        contexts.append(context)
        if before:
            context.add_init_script(before)
        page = context.new_page()
        page.log = []
        page.on("console", lambda m: page.log.append(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda e: page.log.append(f"error: {e}"))
        page.on("request", lambda r: r.url == path.as_uri() or page.log.append(f"request: {r.url}"))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def twin(report, tmp_path):
    """The report with one thing changed."""

    def changed(old, new):
        text = report.read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "twin.html"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path

    return changed


# -- the page is quiet and complete -------------------------------------------------------------------------------


def test_the_page_says_nothing_and_asks_for_nothing(visit):
    assert visit().log == []


def test_noise_and_requests_are_noticed(visit, twin):
    image = "<main><img alt='' src='http://127.0.0.1:9/x.png'>"
    assert any("console" in line for line in visit(twin("<main>", image)).log)  # refused by the page's own policy
    path = twin("<main>", image)
    text = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    assert any("request: http://127.0.0.1:9" in line for line in visit(path).log)
    assert any("error" in line for line in visit(twin('"use strict";', "undefined.x;")).log)


FIGURES = """() => [...document.querySelectorAll('svg')].map((svg) => {
  const box = svg.getBoundingClientRect(), page = document.documentElement.clientWidth;
  const said = (key) => document.getElementById(svg.getAttribute(key) ?? '')?.textContent ?? '';
  return {
    role: svg.getAttribute('role'), title: said('aria-labelledby'), alt: said('aria-describedby'),
    seen: svg.checkVisibility() && box.width > 150 && box.height > 80 && box.left >= 0 && box.right <= page,
    drawn: svg.querySelectorAll('path, use').length > 10,
  };
})"""


def blind_spots(page):
    """Figures that cannot be seen, or not by words."""
    figures = page.evaluate(FIGURES)
    alts = [f["alt"] for f in figures]
    found = [f"not seen: {f['title']}" for f in figures if not (f["seen"] and f["drawn"])]
    found += [f"no words: {f}" for f in figures if f["role"] != "img" or not f["title"] or len(f["alt"]) < 40]
    return found + [f"words twice: {a}" for a in set(alts) if alts.count(a) > 1] + ([] if figures else ["none"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_seen_and_described(visit, scheme):
    page = visit(color_scheme=scheme)
    assert blind_spots(page) == []
    assert len(page.evaluate(FIGURES)) == 13  # 2 + 3 ladders + 2 densities at 3 temperatures + 2


def test_figures_without_words_or_size_are_noticed(visit, twin):
    assert "no words" in blind_spots(visit(twin('role="img" aria-labelledby="shares-title"', 'role="img"')))[0]
    assert "not seen" in blind_spots(visit(twin("</style>", "svg { height: 10px !important; }</style>")))[0]


CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const mix = (top, under, alpha) => top.slice(0, 3).map((c, i) => alpha * c + (1 - alpha) * under[i]);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = parse(getComputedStyle(document.body).backgroundColor), out = [];
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  for (const svg of document.querySelectorAll('svg')) {
    svg.scrollIntoView({ block: 'center', behavior: 'instant' });
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBoundingClientRect(), style = getComputedStyle(text);
      if (!text.textContent.trim()) continue;
      let under = paper;
      const below = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2).reverse();
      for (const shape of below.filter((e) => e instanceof SVGGeometryElement && svg.contains(e))) {
        const look = getComputedStyle(shape), fill = look.fill === 'none' ? null : parse(look.fill);
        if (fill) under = mix(fill, under, look.opacity * look.fillOpacity * fill[3]);
      }
      out.push([text.textContent, ratio(mix(parse(style.fill), under, Number(style.opacity)), under)]);
    }
  }
  for (const e of document.querySelectorAll('p, li, dt, dd, td, th, figcaption, a, button, code')) {
    let ground = e;
    while (ground && parse(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
    const under = ground ? parse(getComputedStyle(ground).backgroundColor) : paper;
    out.push([e.textContent.slice(0, 30), ratio(parse(getComputedStyle(e).color), under)]);
  }
  return out;
}"""


def faint(page):
    """Words of lower contrast than 4.5, which is what WCAG 2 asks of small text (AA)."""
    found = page.evaluate(CONTRAST)
    assert len(found) > 400
    return [f"{text!r}: {ratio:.2f}" for text, ratio in found if ratio < 4.5]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_words_stand_out_in_light_and_dark(visit, scheme, dark):
    page = visit(color_scheme=scheme)
    assert faint(page) == []
    rgb = [int(c) for c in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))]
    assert (sum(rgb) < 150) is dark


def test_faint_words_are_noticed(visit, twin):
    assert faint(visit(twin("currentColor", "#888888")))
    assert faint(
        visit(twin("</style>", "svg g[id^=shares-axes] text { fill: #b05000; }</style>"))
    )  # a number on its bar
    assert faint(visit(twin("--soft: #57606a", "--soft: #909090")))


# -- tables -------------------------------------------------------------------------------------------------------


def column(page, table, n):
    """Text and number in full of each cell of a column, and the text of the first column beside it."""
    return page.evaluate(
        """([table, n]) => [...document.querySelector(`table[aria-labelledby='table-${table}']`).tBodies[0].rows].map(
          (row) => [row.cells[0].textContent, row.cells[n].textContent, Number(row.cells[n].dataset.value ?? NaN)])""",
        [table, n],
    )


def head(page, table, n):
    return page.locator(f"table[aria-labelledby='table-{table}'] thead th").nth(n)


def unsorted(page, table, n):
    """What is wrong with sorting by a column of numbers, with Enter, the space bar and a click."""
    before, found, th = column(page, table, n), [], head(page, table, n)
    values = [value for *_, value in before]
    assert len(set(values)) > 1 and values != sorted(values)
    for press, direction in (("Enter", "ascending"), ("Space", "descending"), ("click", "none")):
        if press == "click":
            th.locator("[role=button]").click()
        else:
            th.locator("[role=button]").focus()
            page.keyboard.press(press)
        if th.get_attribute("aria-sort") != direction:
            found.append(f"aria-sort {th.get_attribute('aria-sort')} after {press}")
        # Python's sort is stable in both directions
        want = {"none": before}.get(direction) or sorted(before, key=lambda r: r[2], reverse=direction == "descending")
        if column(page, table, n) != want:
            found.append(f"{direction}: {column(page, table, n)}")
    return found


def test_tables_sort_by_their_numbers(visit):
    page = visit()
    assert unsorted(page, "diffusivities", 1) == []  # many equal temperatures: the order within them stays
    assert unsorted(page, "diffusivities", 3) == []
    assert unsorted(page, "onsager", 2) == []
    head(page, "diffusivities", 0).locator("[role=button]").click()
    names = [name for name, *_ in column(page, "diffusivities", 1)]
    assert names == sorted(names, key=str.lower)
    assert page.locator("table[aria-labelledby='table-diffusivities'] [aria-sort=ascending]").count() == 1
    assert page.locator("thead th:not([aria-sort])").count() == 0
    assert page.locator("[aria-sort]").count() == page.locator(".sort[role=button]").count() > 60


def test_a_table_sorted_as_text_is_noticed(visit, twin):
    assert unsorted(visit(twin("const compare = numeric\n", "const compare = false\n")), "diffusivities", 3)
    assert unsorted(visit(twin("sign * compare(a, b)", "sign * compare(a, b) || -1")), "diffusivities", 1)


def test_headers_are_reached_with_the_tab_key(visit):
    page = visit()
    head(page, "diffusivities", 0).locator("[role=button]").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert head(page, "diffusivities", 1).get_attribute("aria-sort") == "ascending"


CELLS = [
    "1.23(4)e-9 m²/s", "not known", "(1.50 ± 0.12) × 10⁻¹¹ m²/s", "12.3 %", "−0.5 ± 0.1", "", "+0.200 eV", "7",
    "3.1e2 K",
]  # fmt: skip
SORTED = [
    "−0.5 ± 0.1", "(1.50 ± 0.12) × 10⁻¹¹ m²/s", "1.23(4)e-9 m²/s", "12.3 %", "+0.200 eV", "7", "3.1e2 K",
    "not known", "",
]  # fmt: skip


def test_numbers_are_understood_as_they_are_written(visit, tmp_path):
    script = (ROOT / "ase_kinoson" / "templates" / "report.js").read_text(encoding="utf-8")
    rows = "".join(f"<tr><td>{i}</td><td>{text}</td></tr>" for i, text in enumerate(CELLS))
    path = tmp_path / "numbers.html"
    path.write_text(
        "<!DOCTYPE html><meta charset='utf-8'><link rel='icon' href='data:,'><main><div class='table'>"
        "<div class='bar'>c</div><table aria-labelledby='table-x'><thead><tr><th>i<th>n<tbody>"
        f"{rows}</table></div></main><script>{script}</script>",
        encoding="utf-8",
    )
    page = visit(path)
    head(page, "x", 1).locator("[role=button]").click()
    assert [text for _, text, _ in column(page, "x", 1)] == SORTED
    head(page, "x", 1).locator("[role=button]").click()
    assert [text for _, text, _ in column(page, "x", 1)] == [*SORTED[:7][::-1], *SORTED[7:]]


def test_versions_are_no_numbers(visit):
    page = visit()
    cells = [text for _, text, _ in column(page, "versions", 1)]
    head(page, "versions", 1).locator("[role=button]").click()

    def parts(version):
        return [int(c) for c in re.findall(r"\d+", version)]

    assert [text for _, text, _ in column(page, "versions", 1)] == sorted(cells, key=parts)


TABLES = """() => [...document.querySelectorAll('main table')].map((t) => [
  [...t.tHead.rows[0].cells].map((c) => c.textContent),
  [...t.tBodies[0].rows].map((r) => [...r.cells].map((c) => ({ text: c.textContent, ...c.dataset }))),
])"""


def misquoted(names, rows, text):
    """Where a CSV differs from the table that it was copied from."""
    got = list(csv.DictReader(io.StringIO(text, newline="")))
    if len(got) != len(rows):
        return [f"{len(got)} rows instead of {len(rows)}"]
    found = []
    for line, cells in zip(got, rows, strict=True):
        for name, cell in zip(names, cells, strict=True):
            key = next((k for k in line if k == name or re.fullmatch(re.escape(name) + r" \[[^\]]*\]", k)), None)
            want = cell.get("value", "" if cell["text"] == "not known" else cell["text"])
            if key is None or line[key] != want:
                found.append(f"{name}: {line.get(key)!r} instead of {want!r}")
                continue
            unit = line.get(f"{name} unit", key[len(name) + 2 : -1] or "1")
            if "value" in cell and unit != cell["unit"]:
                found.append(f"unit of {name}: {unit!r} instead of {cell['unit']!r}")
            error = next((line[k] for k in line if k.startswith(f"{name} error")), "")
            if error != cell.get("error", ""):
                found.append(f"error of {name}: {error!r} instead of {cell.get('error', '')!r}")
    return found


PASTE = (
    """() => { const area = document.createElement('textarea'); document.body.append(area); area.focus(); return 1; }"""
)
OLD_WAY = "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
NO_WAY = f"{OLD_WAY} document.execCommand = () => false;"


def copied(page, i):
    """What the i-th button of the page puts on the clipboard, read by pasting it."""
    page.locator("button.copy").nth(i).click()
    page.wait_for_function("(i) => document.querySelectorAll('button.copy')[i].textContent === 'Copied'", arg=i)
    page.evaluate(PASTE)
    page.keyboard.press("Control+V")
    return page.evaluate("() => { const area = document.activeElement, v = area.value; area.remove(); return v; }")


@pytest.mark.parametrize("before", ["", OLD_WAY], ids=["clipboard", "old way"])
def test_a_table_lands_on_the_clipboard(visit, before):
    page = visit(before=before, **({} if before else {"permissions": ["clipboard-read", "clipboard-write"]}))
    names, rows = page.evaluate(TABLES)[0]
    text = copied(page, 0)
    assert misquoted(names, rows, text) == []
    assert text.count("\n") == len(rows) + 1
    assert misquoted(names, rows, text.replace("e-1", "e-2", 1))
    assert misquoted(names, rows, text.replace("[m^2/s]", "[m^3/s]"))
    assert misquoted(names, rows, text[: text.rindex("\n", 0, -1) + 1])
    assert page.log == []


KEEP = """window.kept = [];
Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { window.kept.push(text); } } });"""


def test_every_table_is_copied_as_csv(visit):
    page = visit(before=KEEP)
    tables = page.evaluate(TABLES)
    page.evaluate("() => document.querySelectorAll('button.copy').forEach((button) => button.click())")
    kept = page.evaluate("() => window.kept")
    assert len(kept) == len(tables) > 12
    for (names, rows), text in zip(tables, kept, strict=True):
        assert misquoted(names, rows, text) == []
        assert text.count("\r\n") == len(rows) + 1
    assert page.log == []


def test_a_sorted_table_is_copied_as_it_stands(visit):
    page = visit(before=OLD_WAY)
    head(page, "diffusivities", 3).locator("[role=button]").click()
    tables = page.evaluate(TABLES)
    text = copied(page, 0)
    assert misquoted(*tables[0], text) == []
    assert text.startswith(
        "coefficient,temperature [K],upper bound [m^2/s],upper bound error [m^2/s],ratio estimate [m"
    )


def test_where_nothing_may_be_copied_the_text_is_shown(visit):
    page = visit(before=NO_WAY)
    tables = page.evaluate(TABLES)
    page.locator("button.copy").first.click()
    area = page.locator("textarea.csv")
    area.wait_for(state="visible")
    assert misquoted(*tables[0], area.input_value()) == []
    assert "not allowed" in page.locator("[role=status]").inner_text() and page.log == []


# -- phone, paper, no script --------------------------------------------------------------------------------------

WIDE = """() => {
  const page = document.documentElement, scrolls = (e) => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const inside = (e) => e.parentElement !== null && (scrolls(e.parentElement) || inside(e.parentElement));
  const out = page.scrollWidth > page.clientWidth ? [`page: ${page.scrollWidth} > ${page.clientWidth}`] : [];
  for (const e of document.querySelectorAll('body *')) {
    const box = e.getBoundingClientRect();
    if (!e.closest('.hidden, defs') && box.width && box.right > page.clientWidth + 1 && !inside(e))
      out.push(`${e.tagName} ${e.className?.baseVal ?? e.className}: ${box.right}`);
    if (['DIV', 'PRE', 'FIGURE', 'TD', 'TH', 'P'].includes(e.tagName) && !scrolls(e) && !inside(e)
        && e.scrollWidth > e.clientWidth + 1 && !e.closest('.hidden'))
      out.push(`${e.tagName} ${e.className} holds ${e.scrollWidth} in ${e.clientWidth}`);
  }
  return out;
}"""


def test_a_phone_shows_the_whole_width(visit, twin):
    page = visit(viewport=PHONE, has_touch=True)
    assert page.evaluate(WIDE) == []
    assert blind_spots(page) == []
    scrolling = "() => [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
    assert page.evaluate(scrolling) > 5  # wide tables scroll by themselves
    wide = visit(twin("<main>", "<main><div style='width: 500px'>x</div>"), viewport=PHONE)
    assert any("page: 5" in line for line in wide.evaluate(WIDE))


def unfit_for_paper(page):
    """What would be cut, dark or useless in print."""
    page.emulate_media(media="print")
    found = page.evaluate(WIDE)
    found += ["buttons"] * any(b.is_visible() for b in page.locator("button.copy").all())
    found += ["menu"] * page.locator("nav").is_visible()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    found += [] if paper == "rgb(255, 255, 255)" else [f"paper {paper}"]
    found += ["a cut box"] * page.evaluate(
        "() => [...document.querySelectorAll('.scroll, pre')].some((e) => e.scrollHeight > e.clientHeight + 1"
        " || getComputedStyle(e).overflowX !== 'visible')"
    )
    found += ["heads on one sheet only"] * page.locator("thead button").count()  # buttons are not repeated overleaf
    whole = (
        "() => [...document.querySelectorAll('figure, tr')].every((e) => getComputedStyle(e).breakInside === 'avoid')"
    )
    return found + ([] if page.evaluate(whole) else ["figures or rows may break"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints_in_full_and_light(visit, scheme):
    page = visit(viewport=A4, color_scheme=scheme)
    assert unfit_for_paper(page) == []
    assert faint(page) == []
    pdf = page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF") and 4 < len(re.findall(rb"/Type\s*/Page\b", pdf)) < 25


def test_bad_print_is_noticed(visit, twin):
    nowrap = "@media print { td, th { white-space: nowrap !important; font-size: 20px; } }</style>"
    assert any("holds" in line for line in unfit_for_paper(visit(twin("</style>", nowrap), viewport=A4)))
    cut = "@media print { pre { max-height: 3rem !important; overflow: hidden; } nav { display: block !important; } }"
    cut += "</style>"
    found = unfit_for_paper(visit(twin("</style>", cut), viewport=A4))
    assert "a cut box" in found and "menu" in found
    buttons = visit(twin('document.createElement("span")', 'document.createElement("button")'), viewport=A4)
    assert "heads on one sheet only" in unfit_for_paper(buttons)
    breaking = visit(
        twin("</style>", "@media print { figure { break-inside: auto !important; } }</style>"), viewport=A4
    )
    assert unfit_for_paper(breaking) == ["figures or rows may break"]
    dark = visit(twin("color-scheme: light;\n", "--none: 0;\n"), viewport=A4, color_scheme="dark")
    assert unfit_for_paper(dark) == []  # the colours themselves are set for paper, not only the scheme


def test_without_javascript_everything_is_there(visit):
    page, alive = visit(java_script_enabled=False), visit()
    assert page.locator("button, [role=button]").count() == 0 < alive.locator("[role=button]").count()
    texts = [p.locator("main").evaluate("(e) => e.innerText.replace(/\\s+/g, ' ')") for p in (page, alive)]
    assert texts[0] == " ".join(texts[1].replace("Copy as CSV ", "").split())
    assert [t[1] for t in page.evaluate(TABLES)] == [t[1] for t in alive.evaluate(TABLES)]
    assert blind_spots(page) == [] and page.log == []


def test_the_table_of_contents_leads_somewhere(visit):
    page = visit()
    links = page.locator("nav a")
    assert 4 < links.count() < 9
    for i in range(links.count()):
        target = links.nth(i).get_attribute("href")
        assert page.locator(f"h2{target}").count() == 1
    links.last.click()
    assert page.url.endswith("#again") and json.dumps(page.log) == "[]"
