"""What of a response a judge is given: the answer without its reasoning, or why that can't be read. Pure strings.

Reasoning is what a model writes between the marks of its family before it answers (or between parts of its answer). It
is no part of the answer: a judge that read it would judge what the model weighed instead of what it said. `answer_of`
takes it off; what runs and tables keep is untouched.

`language` finds answers that are not English. Code, numbers and names are of no language and pass; a word that is
English passes too. It does not find every foreign answer of one or two words, and takes an English text in which every
other sentence is foreign for English.
"""

import re
from functools import cache

from safety_nb.judge import lexicon

NO_ANSWER = "no answer after the reasoning"
NEVER_ENDS = "the reasoning never ends"
NOT_ENGLISH = "not in English"

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratch_?pad|internal_?monologue|antthinking)"
# How reasoning begins and ends, by family. What stands between is not looked into, but for the same beginning again.
_BLOCKS = tuple(
    (re.compile(begin, re.IGNORECASE), re.compile(end, re.IGNORECASE))
    for begin, end in (
        (rf"<{_NAMES}>", rf"</{_NAMES}>"),  # DeepSeek R1, Qwen 3, QwQ, SmolLM 3, Nemotron, EXAONE, Seed
        (r"\[think\]", r"\[/think\]"),  # Magistral
        (r"◁think▷", r"◁/think▷"),  # Kimi
        (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # Sky-T1, OpenThinker
        (r"<\|start_thinking\|>", r"<\|end_thinking\|>"),  # Command A
        (r"<unused94>(?:thought)?", r"<unused95>"),  # MedGemma
        (  # gpt-oss: all but the channel `final`
            r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b[^<]*<\|message\|>",
            r"<\|end\|>|<\|return\|>|(?=(?:<\|start\|>assistant)?<\|channel\|>final)",
        ),
    )
)
# Ends whose beginning stands in the prompt, or was not decoded, at the first of which the answer begins.
_BARE_ENDS = re.compile(
    rf"</{_NAMES}>|\[/think\]|◁/think▷|<\|end_of_thought\|>|<\|end_thinking\|>|<unused95>"
    r"|(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>|\[begin final response\]",
    re.IGNORECASE,
)
# gpt-oss and Granite, decoded without their special tokens: both halves are needed to be known.
_HEADINGS = re.compile(
    r"\A\s*(?:analysis(?=[A-Z]).*?assistant\s*final(?=\W*\w)"
    r"|Here(?:'s| is) my (?:thought|reasoning) process:.*?Here(?:'s| is) my (?:response|answer):)",
    re.DOTALL,
)
_OPEN_HEADING = re.compile(r"\A\s*analysis(?:The user |We |User |I |Need )")
# Marks around an answer, which are none of its words.
_AROUND = re.compile(
    r"\A\s*(?:<answer>|<response>|<\|start_response\|>|<\|begin_of_solution\|>"
    r"|(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>)"
    r"|(?:</answer>|</response>|<\|end_response\|>|<\|end_of_solution\|>|<\|return\|>|\[end final response\]"
    r"|<\|im_end\|>)\s*\Z",
    re.IGNORECASE,
)
_QUOTES = ("`", '"', "'", "“")  # before a mark: it is spoken of


def answer_of(response: str) -> tuple[str, str]:
    """The answer in a response, and why there is none: one of the two is empty, or both where the response is.

    Reasoning is taken off wherever it stands; without an end, it goes on to the end of the response.
    """
    text, ended = response, True
    if (heading := _HEADINGS.match(text)) or _OPEN_HEADING.match(text):
        text, ended = (text[heading.end() :], True) if heading else ("", False)
    for begin, end in _BLOCKS:
        text, closed = _without(text, begin, end)
        ended &= closed
    if (bare := _unquoted(_BARE_ENDS, text)) is not None:
        text = text[bare.end() :]
    if text is response or text == response:
        return response, ""
    while (marked := _AROUND.sub("", text)) != text:
        text = marked
    text = text.strip()
    return text, "" if text else NO_ANSWER if ended else NEVER_ENDS


def _without(text: str, begin: re.Pattern, end: re.Pattern) -> tuple[str, bool]:
    """A text without what stands between the marks, and whether each beginning had its end."""
    kept, place = [], 0
    while (begun := _unquoted(begin, text, place)) is not None:
        kept.append(text[place : begun.start()])
        ended = end.search(text, begun.end())
        if ended is None:
            return "".join(kept), False
        place = ended.end()
    return "".join([*kept, text[place:]]), True


def _unquoted(mark: re.Pattern, text: str, place: int = 0) -> re.Match | None:
    """The first place of a mark where it is not quoted, as in an answer about such marks."""
    marks = mark.finditer(text, place)
    return next((found for found in marks if text[max(0, found.start() - 1) : found.start()] not in _QUOTES), None)


# --- language -----------------------------------------------------------------------------------------------------

_FENCED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|<[^<>\n]{1,200}>|\\u[0-9a-f]{4}", re.DOTALL)
_CODE_LINE = re.compile(r"[{}\\=]|\w\(|\w_\w|\);|;\s*$|::|->|^\s*(?:#include|import |from \w+ import|SELECT\b|//)")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE = re.compile(r"(?<=[.!?:])[\"'”»)]*\s+")
_NOT_LATIN = re.compile(r"[^\W\d_\u0041-\u024f\u1e00-\u1eff\u00aa\u00ba]")
_PLAINLY_ENGLISH_SHARE = 0.85
_ENGLISH_SHARE = 0.6  # of the words of an English sentence are listed in the lexicon at least so many; mostly 0.9
# What is no English is told by py3langid's probabilities, which short texts and near languages share among many.
_AT_LEAST, _ENGLISH_AT_MOST = 0.17, 0.02
_YES_AND_NO = {"non": "fr", "oui": "fr", "nein": "de", "ja": "de", "nej": "sv", "nei": "no", "nee": "nl", "tidak": "id"}


def language(text: str) -> str:
    """The language of a text that is not English, by its ISO 639 code, or ``another script``; else empty."""
    if (only := text.strip(" .!,").lower()) in _YES_AND_NO:
        return _YES_AND_NO[only]
    if _listed(words := _words(text)) >= _PLAINLY_ENGLISH_SHARE * len(words):
        return ""
    english = foreign = 0
    prose = []
    lines = (line for line in _FENCED.sub(" ", text).splitlines() if not _CODE_LINE.search(line))
    for sentence in (sentence for line in lines for sentence in _SENTENCE.split(line)):
        words = _words(sentence)
        if _listed(words) >= _ENGLISH_SHARE * len(words):
            english += len(words)
        else:
            foreign += len(words)
            prose.append(sentence)
    if foreign <= english:
        return ""
    told = " ".join(prose)
    if (other := len(_NOT_LATIN.findall(told))) > 1 and 2 * other > sum(map(str.isalpha, told)):
        return "another script"
    ranked = _identifier().rank(told)
    (code, probability), english_by = ranked[0], dict(ranked)["en"]
    return code if code != "zxx" and probability >= _AT_LEAST and english_by <= _ENGLISH_AT_MOST else ""


def _words(text: str) -> list[str]:
    """Words in lower case, without a genitive's s."""
    return _WORD.findall(text.lower().replace("’", "'").replace("'s ", " "))


def _listed(words: list[str]) -> int:
    """How many of the words are listed in the lexicon."""
    return sum(map(lexicon.places().__contains__, words))


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
