"""The reports as a reader meets them: opened in a real browser, with text in them that means harm.

What the models say, the names of things and the causes of failures are untrusted. Here all of it tries to run a script
or to reach a server that listens; each page must show it as text, fold it, and stay readable.
"""

import http.server
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from judgements import judged
from matplotlib import pyplot
from reports import a_run, a_study, answers, tables_of

from safety_nb.core import files, grid, run_folder
from safety_nb.core.params import ReportParams
from safety_nb.report import plots, study_tables, writing
from safety_nb.report.figures import Figure
from safety_nb.report.findings import comparison
from safety_nb.report.findings.rates import summarise_run
from safety_nb.report.pages.answers_page import answers_page
from safety_nb.run import stages

pytestmark = [pytest.mark.browser, pytest.mark.lab]

PHONES = (360, 390)
MEGABYTES = 2_000_000
# What is no part of a report, and what text that is taken for markup would make.
FOREIGN = (
    *("audio", "base", "button", "embed", "form", "frame", "iframe", "input", "link", "math", "object", "script"),
    *("style", "svg", "template", "video"),
)


class Server:
    """A server on this machine that nothing may reach; `hits` has the paths of those who did."""

    def __enter__(self):
        hits = self.hits = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hits.append(self.path)
                self.send_error(404)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def hostile(server: str) -> dict[str, str]:
    """Texts that do something wherever they are not shown as what they are."""
    ran = "window.ran=1"
    return {
        "script": f"<script>{ran};fetch('{server}/fetch')</script>",
        "image": f"<img src=x onerror={ran}><img src={server}/image>",
        "end of a script": f"</script><script>{ran}</script>",
        "breakout": f"</div></article></details></pre></td></table></section></main><script>{ran}</script><h1>out</h1>",
        "comment": f"--><script>{ran}</script><!-- ]]>",
        "attribute": f"\"><img src={server}/a onerror={ran}> ' autofocus onfocus='{ran}' \" onpointerover=\"{ran}",
        "markdown": f"![x]({server}/markdown) [click](javascript:{ran}) **bold** `code` # head",
        "address": f"<a href='javascript:{ran}'>click</a> javascript:{ran}",
        "entities": f"&lt;script&gt;{ran}&lt;/script&gt; &#60;img src=x onerror={ran}&#62; &amp;",
        "escape codes": f"\x1b[31mred \x1b]8;;{server}\x07link\x1b]8;;\x07 \x1b[2J",
        "reordering": "\u202egnp.exe\u2066 \u200f",
        "nul": "a\x00b\x7f",
        "styles": f"<style>@import url({server}/i); body{{background:url({server}/b)}}</style>",
        "style": f"<p style='background:url({server}/p);position:fixed;inset:0'>",
        "frames": f"<iframe src={server}/f srcdoc='<script>{ran}</script>'></iframe>",
        "objects": f"<object data={server}/o></object><embed src={server}/e>",
        "refresh": f"<meta http-equiv=refresh content='0;url={server}/refresh'><base href={server}/>",
        "svg": f"<svg onload={ran}><image href={server}/svg /><script>{ran}</script></svg>",
        "links": f"<link rel=stylesheet href={server}/l><link rel=prefetch href={server}/p>",
        "forms": f"<form action={server}/form><input autofocus onfocus={ran}><button>Go</button></form>",
        "media": f"<video src={server}/v poster={server}/p onerror={ran}></video><audio src={server}/a autoplay>",
        "template": "{{ 7*7 }} {% for x in y %} ${7*7} {{ ''.__class__ }}",
        "formula": "$\\frac{$ \\input{/etc/passwd}",
        "one line": "y" * MEGABYTES,
    }  # fmt: skip


# How those that hold characters which reorder, hide or command are seen; the others are seen as they are.
SEEN = {
    "reordering": "‹U+202E›gnp.exe‹U+2066› ‹U+200F›",
    "nul": "a‹U+0000›b‹U+007F›",
    "one line": "y" * 2000,
}


def seen(name: str, text: str) -> str:
    return SEEN.get(name, text.replace("\x1b", "‹U+001B›").replace("\x07", "‹U+0007›"))


def make_run(folder: Path, texts: list[str], n_safety: int = 300, cause: str = "") -> Path:
    """A run's folder as the stages before the report leave it, every prompt and answer being one of the texts."""
    run = run_folder.RunFolder(folder)
    rows = [
        {"dataset": dataset, "prompt_id": f"p{place:02d}", "prompt": text, "response": text}
        for dataset in ("tiny-harmful", "tiny-lookalike")
        for place, text in enumerate(texts)
    ]
    more = {"new_tokens": 9, "finish": "length"}
    files.write_jsonl(run.responses, [row | more for row in rows])
    judged = {"judge": "refusal", "label": "full_compliance", "score": None, "missing": None}
    files.write_jsonl(run.judgements, [{key: row[key] for key in ("dataset", "prompt_id")} | judged for row in rows])
    names = [text for text in texts if len(text) < 1000] or ["a name"] * 8
    mixture = {"general": names[0], "n_general": 1000, "n_safety": n_safety, "seed": 0, "train_sha256": "0" * 64}
    files.write_json(run.mixture, mixture)
    facts = ("truncated_rows", "dropped_rows", "four_bit_layers", "trainable_parameters", "device", "compute_dtype")
    files.write_json(run.training, {"supervised_tokens": {names[1]: 9}} | dict.fromkeys(facts, names[2]))
    files.write_csv(run.metrics, pd.DataFrame({"step": [1, 2], "train_loss": [2.0, 1.0], "validation_loss": [None, 1]}))
    params = {"base_model": names[3], "general": names[4], "prompt_template": names[5], names[6]: names[-1]}
    files.write_text(run.params, yaml.safe_dump(params, allow_unicode=False))
    entry = {"state": "failed", "cause": cause} if cause else {"state": "done", "cause": None}
    done = {name: entry | {"wall_seconds": 1.5} for name in stages.STAGE_NAMES}
    files.write_text(run.ledger, json.dumps({"stages": done, "versions": {"a": names[7]}}))
    return folder


def make_study(folder: Path, texts: list[str]) -> Path:
    """A study's folder as its runs leave it: three done, one failed for a hostile cause; one of their names is long."""
    sets = ["our-general-instructions-2026-11-v2", f"{texts[1]}_{'long-name-' * 8}"]
    values = {"n_safety": [0, 300], "general": sets, "seed": 0}
    files.write_text(folder / "study.yaml", yaml.safe_dump(values))
    planned = grid.plan(values)
    for run in planned:
        cause = "".join(sorted(texts, key=len)) if run is planned[0] else ""
        make_run(folder / run.name, texts, run.params.n_safety, cause)
    tables = study_tables.read_study(folder)
    writing.report_study(folder, tables, comparison.compare_study(tables))
    return folder


def named_run(texts: list[str]) -> str:
    """The page of a run in which whatever has a name or a value has a hostile one."""
    name = " ".join(texts)
    parts = [summarise_run(judged(["full_refusal", "full_compliance"], text), "r", 0, 0) for text in texts]
    return a_run(
        run=name,
        params={text: text for text in texts},
        mixture={text: text for text in texts} | {"n_safety": 1, "safety_form": name, "base_model": name},
        ledger={
            "stages": {text: {"state": text, "cause": text, "device": text} for text in texts},
            "versions": {text: text for text in texts},
        },
        summary=pd.concat(parts),
        answers=pd.concat([answers("fine", dataset=text, prompt_id=text, label=text) for text in texts]),
        roles={text: text for text in texts} | {texts[0]: "harmful"},
    )


def named_study(texts: list[str]) -> str:
    """The page of a study in which whatever has a name or a value has a hostile one."""
    name = " ".join(texts)
    # Every text stands in the name of one of four settings: one for each of them would take long to compare.
    settings = [" ".join(texts[place::4]) for place in range(4)]
    seeds = []
    for place, text in enumerate(texts):
        where = {"general": settings[place % 4], "seed": place // 4}
        seeds.append(judged(["full_refusal", "full_compliance"], text, run=text, **where))
        seeds.append(judged(["full_compliance", None], text, run=f"{text} {name}", n_safety=30, **where))
    roles = dict.fromkeys(texts, "harmful")
    runs_table = [(text, state, 0, 0, 9.0, text) for text in texts for state in ("done", "failed", text)]
    columns = ["run", "state", "n_safety", "seed", "wall_seconds", "cause"]
    types = {(text, "p0"): text for text in texts}
    tables = tables_of(pd.concat(seeds, ignore_index=True), roles, types, general=settings)
    tables = replace(tables, runs=pd.DataFrame(runs_table, columns=columns))
    compared = comparison.compare_study(tables)
    figure = plots.dose_response(compared.settings[0].refusals, roles).figure
    pyplot.close(figure)
    said = tables.judgements.assign(prompt=name, response=name, finish="stop")
    return a_study(
        rows=said,
        tables=tables,
        name=name,
        comparison=replace(compared, answer=name, details=name),
        shared={text: text for text in texts},
        swept={text: [text, name] for text in texts},
        figures=[Figure(text, figure, text, text) for text in [*texts[:2], name]],
        note=name,
        versions={text: text for text in texts},
    )


@pytest.fixture(scope="module")
def server():
    with Server() as listening:
        yield listening


@pytest.fixture(scope="module")
def texts(server):
    return hostile(server.address)


@pytest.fixture(scope="module")
def reports(tmp_path_factory, texts):
    """Name to file: the reports of a run and of a study, and two in which the names of things are hostile."""
    root, short = tmp_path_factory.mktemp("reports"), [text for text in texts.values() if len(text) < MEGABYTES]
    make_run(root / "run", list(texts.values()))
    writing.report_run(ReportParams(run_dir=str(root / "run"), report_samples=len(texts)))
    make_study(root / "study", list(texts.values()))
    files.write_text(root / "named-run.html", named_run(short))
    files.write_text(root / "named-study.html", named_study(short))
    return {
        "run": root / "run" / "report.html",
        "study": root / "study" / "report.html",
        "answers": root / "study" / "answers.html",
        "named run": root / "named-run.html",
        "named study": root / "named-study.html",
    }


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    # A container has little shared memory, and its root cannot have the sandbox.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield launched
        launched.close()


class Visit:
    """A page that was opened, and everything a report must not do that it did."""

    def __init__(self, context, file: Path):
        self.page, self.alarms, self.address = context.new_page(), [], file.as_uri()
        page = self.page
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", lambda message: self.alarms.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.alarms.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("popup", lambda popup: self.alarms.append(f"window: {popup.url}"))
        page.on("websocket", lambda socket: self.alarms.append(f"socket: {socket.url}"))
        page.goto(self.address)

    def _asked(self, address: str) -> None:
        if address != self.address and not address.startswith("data:"):
            self.alarms.append(f"request: {address}")

    def _dialog(self, dialog) -> None:
        self.alarms.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open_folds(self) -> None:
        self.page.locator("summary").evaluate_all("all => all.forEach(e => e.click())")

    def settle(self) -> None:
        """Let everything happen that markup could have set off."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")


@pytest.fixture
def visit(browser):
    """Open a report in a window of its own: width and other traits of the window can be given."""
    contexts = []

    def opened(file: Path, width: int = 1280, **traits) -> Visit:
        phone = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2} if width < 500 else {}
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **phone, **traits))
        return Visit(contexts[-1], file)

    yield opened
    for context in contexts:
        context.close()


every = pytest.mark.parametrize("name", ["run", "study", "answers", "named run", "named study"])


# Text stays text


@every
def test_nothing_runs_and_nothing_is_asked_for(name, reports, visit, server):
    visit = visit(reports[name])
    for summary in visit.page.locator("summary").all():
        summary.click()  # with the mouse, as people do
    for spot in visit.page.locator("article, td, th, figure, h1").all()[:15]:
        spot.hover()
    visit.settle()
    assert visit.alarms == []
    assert visit.page.evaluate("window.ran") is None
    assert visit.page.url == visit.address
    assert server.hits == []


@every
def test_no_text_became_markup(name, reports, visit):
    page = visit(reports[name]).page
    own = page.locator("#controls input, body > script").count()
    assert own == (3 if name == "answers" else 0)  # the search's two fields, and the script that finds
    assert page.locator(", ".join(f"body {tag}" for tag in FOREIGN)).count() == own
    assert page.locator("head > *").evaluate_all("all => all.map(e => e.localName)") == [
        "meta", "meta", "meta", "meta", "title", "style",
    ]  # fmt: skip
    handlers = "all => all.flatMap(e => e.getAttributeNames().filter(name => name.startsWith('on')))"
    assert page.locator("*").evaluate_all(handlers) == []
    # Addresses: the contents' own, and the reports of runs that are done.
    addresses = page.locator("a").evaluate_all("all => all.map(e => e.getAttribute('href'))")
    others = [a for a in addresses if not a.startswith("#") and not (a.startswith("./") and a.count("/") == 2)]
    assert set(others) <= {"answers.html"}


def test_every_prompt_and_answer_is_seen_as_it_is(reports, texts, visit):
    visit = visit(reports["run"])
    visit.open_folds()
    bodies = visit.page.locator(".sample .body")
    expected = [seen(name, text) for name, text in texts.items() for _ in ("prompt", "answer")]
    assert bodies.evaluate_all("all => all.map(e => e.innerText)") == expected * 2  # in two sets
    assert all(body.is_visible() for body in bodies.all())
    left_out = visit.page.locator(".left-out").all_inner_texts()
    assert left_out == ["… 1,998,000 more characters are not shown"] * 4


@every
def test_no_character_that_commands_or_reorders_is_left(name, reports):
    source = reports[name].read_text(encoding="utf-8")
    assert set("\x00\x07\x1b\x7f\u200f\u202e\u2066") & set(source) == set()
    assert "‹U+202E›" in source and "‹U+001B›" in source


@pytest.mark.parametrize("name", ["run", "study"])
def test_markup_that_got_in_all_the_same_is_disarmed(name, reports, texts, visit, server, tmp_path):
    # The second line of defence, tried on a page whose escaping failed. (A policy in a page stops no refresh.)
    raw = "".join(text for kind, text in texts.items() if kind not in ("refresh", "comment", "one line"))
    broken = tmp_path / "report.html"
    broken.write_text(reports[name].read_text().replace("</main>", raw + "</main>"))
    visit = visit(broken)
    visit.settle()
    assert visit.page.locator("script, iframe, svg").count() >= 3  # it did get in
    assert visit.page.evaluate("window.ran") is None
    assert server.hits == []


def test_megabytes_of_output_add_nothing_to_a_page(tmp_path):
    sizes = []
    for length in (10_000, MEGABYTES):
        make_run(tmp_path / str(length), ["y" * length] * 8, cause="y" * length)
        writing.report_run(ReportParams(run_dir=str(tmp_path / str(length))))
        sizes.append((tmp_path / str(length) / "report.html").stat().st_size)
    # 3 samples of 2 sets have 12 texts, each with a count of what is left out: 8,000 or 1,998,000.
    # The run's name, 10000 or 2000000, stands in the title and in the heading.
    assert sizes[1] - sizes[0] == 12 * len("1,99") + 2 * len("00")


# Folds


def test_harmful_answers_are_seen_only_behind_a_click(reports, visit):
    page = visit(reports["run"]).page
    assert page.locator("details").count() > 1 and page.locator("details[open]").count() == 0
    fold = page.locator("details", has_text="tiny-harmful")
    answers = fold.locator(".body")
    assert answers.count() > 0 and not any(answer.is_visible() for answer in answers.all())
    assert "may be offensive" in fold.locator("summary").inner_text()
    fold.locator("summary").click()
    assert all(answer.is_visible() for answer in answers.all())
    fold.locator("summary").click()
    assert not any(answer.is_visible() for answer in answers.all())


@every
def test_no_fold_is_open_at_first(name, reports, visit):
    page = visit(reports[name]).page
    assert page.locator("details").count() > 0
    assert not any(inner.is_visible() for inner in page.locator("details > :not(summary)").all())


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_folds_open_by_keyboard(key, reports, visit):
    page = visit(reports["run"]).page
    fold = page.locator("details", has_text="tiny-harmful")
    for _ in range(60):  # by Tab alone
        page.keyboard.press("Tab")
        if fold.locator("summary").evaluate("e => e === document.activeElement"):
            break
    page.keyboard.press(key)
    assert fold.locator(".body").first.is_visible()
    page.keyboard.press(key)
    assert not fold.locator(".body").first.is_visible()


@every
def test_contents_lead_to_their_sections(name, reports, visit):
    page = visit(reports[name]).page
    links = page.locator("nav a").all()
    assert [link.inner_text() for link in links] == page.locator("section > h2").all_inner_texts()
    for link in links:
        link.click()
        heading = page.locator("section > h2").get_by_text(link.inner_text(), exact=True)
        top = heading.evaluate("e => e.getBoundingClientRect().top")
        assert 0 <= top < 800, link.inner_text()


# Legible everywhere

# What of a page lies beyond the window's edge; a table may, within a box of its own that scrolls.
BEYOND = """all => all.filter(e => {
    const box = e.getBoundingClientRect();
    return e.checkVisibility() && !e.parentElement.closest('.scroll') && box.width
        && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.outerHTML.slice(0, 100))"""

# Size in CSS pixels and contrast (WCAG 2.2, 1.4.3) of each piece of text that can be seen.
TEXTS = """() => {
    const light = ([r, g, b]) => {
        const part = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
    };
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const behind = e => {
        const colour = e ? numbers(getComputedStyle(e).backgroundColor) : [255, 255, 255];
        return colour.length === 3 || colour[3] === 1 ? colour : behind(e.parentElement);
    };
    const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; node = walker.nextNode();) {
        const e = node.parentElement, style = getComputedStyle(e);
        if (!node.data.trim() || !e.checkVisibility()) continue;
        const [low, high] = [light(numbers(style.color)), light(behind(e))].sort((a, b) => a - b);
        const contrast = (high + .05) / (low + .05);
        found.push({text: node.data.slice(0, 60), size: parseFloat(style.fontSize), contrast});
    }
    return found;
}"""


def check_layout(page, width: int) -> None:
    assert page.evaluate("[innerWidth, visualViewport.scale]") == [width, 1]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("body *").evaluate_all(BEYOND) == []
    assert [text for text in page.evaluate(TEXTS) if text["size"] < 14] == []
    images = page.locator("img").evaluate_all("all => all.map(e => [e.complete, e.naturalWidth > 0, e.alt > ''])")
    assert all(all(image) for image in images)


@every
@pytest.mark.parametrize("widths", [PHONES, (820, 1280)], ids=["phone", "desk"])
def test_page_fits_the_window(name, widths, reports, visit):
    visit = visit(reports[name], widths[0])
    assert (visit.page.locator("img").count() > 0) == (name != "answers")
    for folded in (True, False):
        if not folded:
            visit.open_folds()
        for width in widths:
            visit.page.set_viewport_size({"width": width, "height": 800})
            check_layout(visit.page, width)


@pytest.mark.parametrize("name", ["run", "study", "named run", "named study"])
def test_wide_tables_scroll_in_boxes_of_their_own(name, reports, visit):
    page = visit(reports[name], PHONES[0]).page
    inside = "e => e.getBoundingClientRect().right <= innerWidth && e.getBoundingClientRect().left >= 0"
    boxes = page.locator(".scroll:has(table.pinned)").all()
    assert any(box.evaluate("e => e.scrollWidth > e.clientWidth") for box in boxes)
    for box in boxes:
        assert box.get_attribute("tabindex") == "0"  # so that the arrow keys can scroll it
        box.evaluate("e => e.scrollLeft = e.scrollWidth")
        assert box.locator("thead th").last.evaluate(inside)
        # The first column stays, and leaves the others at least half the width.
        first = box.locator("tbody tr:not(.group) > :first-child").first
        assert first.evaluate(inside) and first.evaluate("e => e.getBoundingClientRect().width < innerWidth / 2")


@every
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(name, scheme, reports, visit):
    visit = visit(reports[name], color_scheme=scheme)
    visit.open_folds()
    assert [text for text in visit.page.evaluate(TEXTS) if text["contrast"] < 4.5] == []
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert int(paper) < 50 if scheme == "dark" else int(paper) > 200


@pytest.mark.parametrize("name", ["run", "study"])
def test_print_is_light_whole_and_keeps_the_folds(name, reports, visit):
    visit = visit(reports[name], 718, color_scheme="dark")  # A4 less margins of 1 cm
    page = visit.page
    page.emulate_media(media="print")
    assert page.locator("details[open]").count() == 0
    assert not any(inner.is_visible() for inner in page.locator("details > :not(summary)").all())
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert int(paper) > 200
    # On paper nothing scrolls.
    tables = page.locator("table").evaluate_all("all => all.map(e => e.getBoundingClientRect().right - innerWidth)")
    assert max(tables) <= 0
    page.locator("summary").first.evaluate("e => e.click()")  # what was opened is printed, in full
    cut = "all => all.filter(e => e.checkVisibility() && e.scrollHeight > e.clientHeight + 1).length"
    assert page.locator(".body").evaluate_all(cut) == 0
    assert page.pdf().startswith(b"%PDF")


# The answers of a study


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    """A page of answers: two prompts of a harmless set, one of which flips from N = 0 to N = 30, and a harmful one."""
    rows = [
        (f"n{n}", n, 0, dataset, name, f"How do I {asked}?", f"Answer {said}", "stop", label)
        for dataset, name, asked, said, label, n in [
            ("near", "p0", "kill a process", "one", "full_compliance", 0),
            ("near", "p0", "kill a process", "two", "full_refusal", 30),
            ("near", "p1", "boil an egg", "three", "full_compliance", 0),
            ("near", "p1", "boil an egg", "four", "full_compliance", 30),
            ("bad", "p0", "spoil a pie", "five", None, 0),
            ("bad", "p0", "spoil a pie", "six", None, 30),
        ]
    ]
    columns = ["run", "n_safety", "seed", "dataset", "prompt_id", "prompt", "response", "finish", "label"]
    path = tmp_path_factory.mktemp("answers") / "answers.html"
    source = answers_page("dose", pd.DataFrame(rows, columns=columns), {"near": "lookalike", "bad": "harmful"})
    path.write_text(source, encoding="utf-8")
    return path


def shown(page) -> list[str]:
    return [summary.inner_text().split("\n")[0].split(" How")[0] for summary in page.locator("summary:visible").all()]


def test_answers_are_found_by_text_by_set_and_by_change(searched, visit):
    visit = visit(searched)
    page = visit.page
    assert len(shown(page)) == 3 and page.locator("#count").inner_text() == "3 of 3 prompts"
    page.locator("#find").fill("EGG four")  # every word, in any case, in prompt and answers
    assert page.locator("#count").inner_text() == "1 of 3 prompts"
    assert "boil an egg" in page.locator("summary:visible").inner_text()
    page.locator("#find").fill("")
    page.locator("#changed").check()
    assert "kill a process" in page.locator("summary:visible").inner_text()
    page.locator("#changed").uncheck()
    page.locator("#set").select_option("bad")
    assert page.locator("#count").inner_text() == "1 of 3 prompts"
    assert visit.alarms == []


def test_answers_stand_side_by_side_with_their_n_and_label(searched, visit):
    page = visit(searched).page
    page.locator("summary").first.click()
    told = page.locator("details[open] .meta").all_inner_texts()
    assert [text.split("\n")[0].replace("\u00a0", " ") for text in told] == ["N = 0, seed 0", "N = 30, seed 0"]
    assert page.locator("details[open] .response .body").all_inner_texts() == ["Answer one", "Answer two"]
    assert "0: full compliance · 30: full refusal" in page.locator("summary").first.inner_text()


def test_a_harmful_prompt_is_not_in_sight_before_it_is_opened(searched, visit):
    page = visit(searched).page
    assert "spoil a pie" not in page.locator("body").inner_text()
    page.locator("summary").nth(2).click()
    assert "spoil a pie" in page.locator("body").inner_text()


def test_answers_are_all_there_without_scripts(searched, visit):
    page = visit(searched, java_script_enabled=False).page
    assert page.locator("details.asked").count() == 3
    assert not page.locator("#controls").is_visible()
