import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from judgements import judged
from reports import a_run, a_study, answers, judgements, plain_run, plain_study

from safety_nb.report.calibration.measures import AGREEMENT_COLUMNS
from safety_nb.report.findings import arms
from safety_nb.report.findings.rates import summarise_run

pytestmark = pytest.mark.usefixtures("undrawn")

HOSTILE = (
    "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> **bold** [a](javascript:b) {{ 7*7 }}"
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with attributes, and each piece of text with the elements it stands in."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(source)
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        self.texts.append((text, [tag for tag, _ in self.open]))

    def tags(self):
        return {tag for tag, _ in self.elements}

    def text(self):
        return " ".join("".join(text for text, _ in self.texts).split())

    def where(self, needle):
        return [inside for text, inside in self.texts if needle in text]


@pytest.mark.parametrize("make", [plain_run, plain_study])
def test_a_page_is_self_contained(make):
    page = Page(make())
    assert not page.tags() & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data"):
            address = attributes.get(name) or ""
            assert not address.startswith(("http:", "https:", "//", "javascript:")), address
        assert not any(name.startswith("on") for name in attributes)
    policy = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy[0]
    assert "@import" not in make() and "url(" not in make()


@pytest.mark.parametrize("make", [plain_run, plain_study])
def test_a_page_fits_a_phone_and_says_what_its_figures_show(make):
    page = Page(make())
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.elements
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert images and all(image["alt"] and image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    # every table scrolls within its own box
    assert make().count("<table") == make().count('<div class="scroll"')


@pytest.mark.drawn
@pytest.mark.parametrize("make", [a_run, a_study])
def test_a_page_is_reproducible(make):
    assert make() == make()


@pytest.mark.parametrize("where", ["prompt", "response", "prompt_id", "label", "finish"])
def test_hostile_text_in_an_answer_is_shown_as_text(where):
    shown = answers("fine")
    shown[where] = HOSTILE
    page = Page(a_run(answers=shown))
    assert "script" not in page.tags()
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert not any("evil" in (attributes.get("src") or "") for _, attributes in page.elements)
    if where != "finish":  # which is compared, not shown
        assert "<script>alert(1)</script>" in page.text()
    if where == "response":  # neither Markdown nor a template is carried out
        assert "**bold** [a](javascript:b) {{ 7*7 }}" in page.text()


@pytest.mark.parametrize("argument", ["run", "params", "mixture", "ledger", "roles"])
def test_hostile_names_and_values_are_shown_as_text(argument):
    value = {
        "run": HOSTILE,
        "params": {HOSTILE: HOSTILE},
        "mixture": {HOSTILE: HOSTILE},
        "ledger": {"stages": {HOSTILE: {"state": HOSTILE, "cause": HOSTILE}}, "versions": {HOSTILE: HOSTILE}},
        "roles": {"bad": "harmful", "near": HOSTILE},
    }[argument]
    page = Page(a_run(**{argument: value}))
    assert "script" not in page.tags() and all("onerror" not in attributes for _, attributes in page.elements)
    assert "<script>" in page.text()


def test_control_characters_are_seen_not_obeyed():
    # The escape that colours a terminal, a bell, a right-to-left override, and half of a surrogate pair,
    # which could not even be encoded as UTF-8.
    source = a_run(answers=answers("\x1b[31mred\x07 \u202egnitrats\ud800"))
    assert not set("\x1b\x07\u202e\ud800") & set(source)
    assert "‹U+001B›[31mred‹U+0007› ‹U+202E›gnitrats‹U+D800›" in Page(source).text()
    source.encode("utf-8")


def test_a_megabyte_on_one_line_is_cut_with_the_rest_counted():
    source = a_run(answers=answers("y" * 1_000_000))
    assert "998,000 more characters are not shown" in Page(source).text()
    assert "y" * 2000 in source and "y" * 2001 not in source
    assert "overflow-wrap: anywhere" in source and "white-space: pre-wrap" in source


@pytest.mark.parametrize("response", ["", None])
def test_an_empty_answer_is_named(response):
    assert "(empty)" in Page(a_run(answers=answers(response))).text()


@pytest.mark.parametrize("dataset", ["bad", "set-without-a-role"])
def test_harmful_answers_are_folded_and_the_fold_says_nothing_harmful(dataset):
    page = Page(a_run(answers=answers("SECRET RECIPE", dataset, prompt="HARMFUL WISH")))
    for needle in ("SECRET RECIPE", "HARMFUL WISH"):
        (inside,) = page.where(needle)
        assert "details" in inside and "summary" not in inside
    assert all("open" not in attributes for tag, attributes in page.elements if tag == "details")


def test_harmless_answers_are_open():
    (inside,) = Page(a_run(answers=answers("Use the kill command."))).where("kill command")
    assert "details" not in inside


def test_samples_are_spread_through_the_set():
    rows = pd.concat([answers(f"answer-{i:02d}", prompt_id=f"p{i}") for i in range(9)])
    text = Page(a_run(answers=rows, samples=3)).text()
    assert [i for i in range(9) if f"answer-{i:02d}" in text] == [0, 3, 6]
    assert "3 of 9" in text


def test_the_run_lead_says_what_was_trained_and_the_key_rates():
    # 2 of 10 answered in both sets. Wilson for 2 of 10 is 6 to 51 %; for 8 of 10, 49 to 94 % (see test_stats).
    text = Page(plain_run()).text()
    assert "The base model tiny was tuned on 1,000 general examples and 300 safety demonstrations" in text
    assert "It answers 20 % (6–51 %) of the harmful requests in bad" in text
    assert "it refuses 80 % (49–94 %) of the harmless look-alikes in near." in text


def test_the_run_tables_show_every_metric_with_n_and_missing():
    summary = summarise_run(judgements(missing=3), "n300-s0", 300, 0)
    text = Page(a_run(summary=summary)).text()
    assert "Evaluation set Role Refused Partly Answered Garbled n Missing" in text
    assert "bad harmful 80 % (49–94 %) 0 % (0–28 %) 20 % (6–51 %) 0 % (0–28 %) 10 3" in text


def test_the_mixture_shows_whatever_is_there():
    text = Page(a_run(mixture={"n_safety": 300, "made_up_count": 1234, "flag": False, "parts": {"a": 1}})).text()
    for shown in ("Safety demonstrations 300", "Made up count 1,234", "Flag no", "Parts a: 1"):
        assert shown in text


def test_the_report_stage_is_not_called_running_in_the_page_it_writes():
    text = Page(plain_run()).text()
    assert "report writing this page" in text and "mix done 1.5 s" in text


def test_a_run_of_which_nothing_is_known_still_has_a_page():
    empty = pd.DataFrame(columns=["dataset", "prompt_id", "prompt", "response", "finish", "label"])
    page = Page(
        a_run(
            params={}, ledger={}, mixture={}, answers=empty,
            metrics=pd.DataFrame(columns=["step", "train_loss", "validation_loss"]),
            summary=summarise_run(judgements().iloc[:0], "r", 0, 0),
        )
    )  # fmt: skip
    assert "No answer was judged." in page.text() and "nan" not in page.text().split()


def test_unjudged_is_not_zero():
    rows = judgements().assign(label=None, missing="no reply")
    text = Page(a_run(summary=summarise_run(rows, "r", 300, 0))).text()
    assert "bad harmful not judged not judged not judged not judged 0 10" in text
    assert "nan" not in text


def test_the_study_opens_with_its_headline_and_first_figure():
    source = plain_study()
    order = [
        "No N tried is shown to hold harmful compliance",
        "From 0 to 300 safety",
        "<h3>Trade-off</h3>",
        "<h2>What was compared</h2>",
        "<h3>Dose</h3>",
        "<h2>Rates</h2>",
    ]
    places = [source.index(part) for part in order]
    assert places == sorted(places)


def test_a_failed_run_is_visible_and_has_no_link():
    page = Page(plain_study())
    assert "n300-s0 failed 300 0 2 min 05 s CUDA out of memory" in page.text()
    assert "1 of 2 runs are done" in page.text()
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and ".html" in attributes["href"]]
    assert links == ["answers.html", "./n0-s0/report.html"]


def test_a_runs_name_leads_nowhere_but_into_its_folder():
    runs = pd.DataFrame([{"run": "javascript:../../x", "state": "done", "n_safety": 0, "seed": 0, "wall_seconds": 1.0}])
    page = Page(a_study(runs=runs))
    assert [a["href"] for t, a in page.elements if t == "a" and ".html" in a["href"]] == [
        "answers.html",
        "./javascript%3A..%2F..%2Fx/report.html",
    ]


def test_the_study_names_the_threats_that_apply():
    text = Page(plain_study()).text()
    for threat in (
        "One seed only",
        "not calibrated against people's labels",
        "Few prompts in bad (11), near (11)",
        "Some judgements are missing (bad, near)",
        "1 of 2 runs are not done",
        "A miniature; no claim about large models.",
    ):
        assert threat in text


def test_the_study_table_gives_rates_by_n_with_n_and_missing():
    text = Page(plain_study()).text()
    assert "N Refused Partly Answered Garbled n Missing" in text
    assert "300 80 % (49–94 %) 0 % (0–28 %) 20 % (6–51 %) 0 % (0–28 %) 10 1" in text
    assert "0, 1000" in text  # a list of N holds no thousands separators, which would read as more N


def test_the_study_tells_how_judges_agree_with_people():
    rows = [
        ["refusal", "a", "refusal or not", "accuracy", 0.5, 0.4, 0.6, 10, 0],
        ["refusal", "(all)", "refusal or not", "accuracy", 0.75, 0.7, 0.8, 20, 0],
        ["refusal", "(all)", "refusal or not", "auc", 0.9, 0.85, 0.95, 20, 0],
        ["harmfulness:tiny", "a", "scores", "mae", 1.25, 1.0, 1.5, 30, 2],
        ["harmfulness:tiny", "a", "scores", "bias", -0.5, -0.75, 0.25, 30, 2],
        ["guard:tiny", "a", "scores", "spearman", 1.0, float("nan"), float("nan"), 2, 0],
    ]
    text = Page(a_study(people=pd.DataFrame(rows, columns=AGREEMENT_COLUMNS))).text()
    assert "refusal, refusal or not: accuracy 0.75 (0.70 to 0.80), AUC 0.90 (0.85 to 0.95); n = 20." in text
    told = "harmfulness:tiny, scores: mean absolute error 1.25 (1.00 to 1.50), bias -0.50 (-0.75 to 0.25); n = 30."
    assert told in text and "guard:tiny, scores: too few to tell; n = 2." in text


def test_a_study_of_which_nothing_came_still_has_a_page():
    page = Page(a_study(rows=judgements().iloc[:0], figures=[], note="", versions={}))
    assert "No answer was judged" in page.text()


# --- how answers ended --------------------------------------------------------------------------------------------


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_run_shows_how_its_answers_ended_and_were_made():
    rows = [answers("x", finish="length"), answers("", degenerate="empty"), *[answers("Wave.")] * 2]
    page = text_of(a_run(answers=pd.concat(rows), generation={"mode": "paper", "num_beams": 4}))
    # 4 answers: one cut off, one degenerate, none missing.
    assert "near 4 1 (25 %) 1 (25 %) 0" in page
    assert "num_beams 4" in page


def test_a_study_shows_how_answers_ended_and_names_where_many_are_incoherent():
    columns = ["run", "dataset", "answers", "cut_off", "degenerate", "no_answer"]
    ended = pd.DataFrame([("n0-s0", "near", 100, 4, 0, 0), ("n300-s0", "near", 100, 6, 12, 4)], columns=columns)
    page = text_of(a_study(ended=ended))
    # 10 of 200 cut off, most in the second run; more than a tenth degenerate there.
    assert (
        "near 200 10 (5 %), most in n300-s0: 6 % 12 (6 %), most in n300-s0: 12 % 4 (2 %), most in n300-s0: 4 %" in page
    )
    assert "degenerate (near of n300-s0)" in page
    fine = text_of(a_study(ended=ended.assign(degenerate=10)))
    assert "cut off or degenerate (" not in fine


def test_two_forms_of_a_topic_stand_on_the_page_of_a_run_that_was_asked_both():
    labels = ["full_compliance", "full_refusal"] * 6
    pair_of = {("bad", f"p{n}"): (f"t{n // 2}", ("instruction", "opinion")[n % 2]) for n in range(12)}
    (told, *_) = re.findall(r"<li>(bad, .*?)</li>", a_run(pairs=arms.pairs(judged(labels), pair_of)), re.DOTALL)
    assert " ".join(told.split()).startswith("bad, answered (refusal), N = 0: instruction 100")
    assert "One topic in two forms" not in a_run()
