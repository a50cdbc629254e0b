"""Questions to instructions and back, by rules, for English, as pure strings.

A rule turns a sentence only where its form settles the grammar ("How do I X?" and "Explain how to X."); for any other
form there is no answer, so that nothing comes out mangled. Knows neither files nor what a sentence asks for.
"""

import re
from collections.abc import Callable

_PRONOUN = r"(?:i|you|we|they|he|she|it|one|there|this|that)"
_AUXILIARY = (
    r"(?:can|could|should|would|will|may|might|must|shall|am|are|is|was|were|have|has|had|"
    r"can['’]?t|cannot|couldn['’]?t|shouldn['’]?t|wouldn['’]?t|won['’]?t|aren['’]?t|isn['’]?t|wasn['’]?t|weren['’]?t)"
)
_WH = (
    # The question word and what belongs to it ("how many people"), up to the first verb that can be moved.
    rf"(?:how|why|what|where|when|who|whom|whose|which)(?: (?!(?:{_AUXILIARY}|do|does|did|to)\b)[\w'’-]+){{0,5}}?"
)
# Nouns that a question may ask for ("What is the best way to …?"): with one of them at the head, what stands between
# "What is" and the question mark is a noun phrase.
_NOUN = (
    r"(?:advantage|answer|argument|aspect|benefit|cause|characteristic|consequence|cost|danger|definition|detail|"
    r"difference|disadvantage|drawback|effect|evidence|example|explanation|fact|factor|history|idea|impact|"
    r"implication|indicator|ingredient|instruction|joke|justification|law|limit|location|meaning|method|motive|"
    r"name|number|option|origin|penalt|place|plan|point|procedure|process|proof|punishment|purpose|reason|recipe|"
    r"regulation|requirement|resource|result|risk|role|rule|safeguard|sign|similarit|solution|source|step|"
    r"stereotype|strateg|symptom|technique|thing|tip|tool|trend|trick|use|way|weapon|word)(?:s|y|ies)?"
)
_DETERMINER = r"(?:the|a|an|some|good|any|all|common|different|effective|easy|possible|your|my|other|most|best)"
# Determiner and adjectives, head noun, and what follows it; no verb fits between the first two.
_NOUN_PHRASE = (
    rf"(?:{_DETERMINER} (?:(?!\w+ing\b)[\w'’-]+ ){{0,3}})?{_NOUN}"
    r"(?: (?:to|for|of|behind|between|in|about|on|with|from|against|why|that|which|when|people|i|you|we|they)\b.*)?"
)
_OPINION = r"(?:feel|think|know|like|see|view|mean|want|love|hate|believe|say|look|sound)"
_TO_ME = r"(?:tell|show|give|teach|help|walk|advise|provide|find|send) (?:me|us)\b"
_REQUEST = (
    r"(?:compile|compose|create|describe|draft|explain|list|outline|provide|recommend|suggest|summari[sz]e|write)"
)
_THINGS = r"(?:how|what|why|where|who|which|when|a|an|the|some|any|\w+ (?:ways|tips|ideas|steps|advice|examples))\b"
_BORDER = r"(?:so|such|always|not|never|all|still|more|less|better|worse)"
# "it takes": the verbs whose third person may be formed without knowing where the verb stands.
_IT_VERB = r"(take|cost|mean|feel|hurt|work|make|help|look|sound|happen|matter)"

_Rule = tuple[str, str | Callable[[re.Match], str]]


def _whole(match: re.Match) -> str:
    """How a clause is embedded: after "Explain" where it says how or why, after "Tell me" otherwise."""
    return "Explain" if match["wh"].lower() in ("how", "why") else "Tell me"


def _statement(match: re.Match) -> str:
    """A question about a pronoun in the order of a statement: "what can I do" to "what I can do"."""
    head = f"{_whole(match)} {_uncapitalised(match['wh'])}" if "wh" in match.groupdict() else "Tell me whether"
    subject = "I" if match["subject"].lower() == "i" else match["subject"].lower()
    return f"{head} {subject} {match['aux'].lower()} {match['rest']}"


_TO_INSTRUCTION: list[_Rule] = [
    (r"how (?:do|can|could|would|should|might|must|may) (?:i|we|one|someone|somebody) (?P<x>(?!be\b).+)",
     r"Explain how to \g<x>"),
    (rf"how (?:do|can|could|should|might) you (?P<x>(?!{_OPINION}\b|be\b).+)", r"Explain how to \g<x>"),
    (r"how to (?P<x>.+)", r"Explain how to \g<x>"),
    (rf"(?:can|could|would|will) you (?:please )?(?P<x>(?:{_TO_ME}|{_REQUEST} {_THINGS}).*)",
     lambda match: _capitalised(match["x"])),
    (r"do you know how to (?P<x>.+)", r"Explain how to \g<x>"),
    (rf"do you know (?P<x>(?:where|what|why|who|which|when|if|whether|how) (?:{_PRONOUN}|to)\b.+)", r"Tell me \g<x>"),
    (r"do you have (?:any|some) (?P<x>(?:\w+ )?(?:advice|tips|ideas|suggestions|instructions|examples)\b.*)",
     r"Give me some \g<x>"),
    (r"what (?:do|can|could|should|must) (?:i|we|one|someone) do(?P<x> (?:if|to|when|about|with|for|after)\b.+)",
     r"Tell me what to do\g<x>"),
    (r"how come (?P<x>.+)", r"Explain why \g<x>"),
    (r"what happens (?P<x>(?:if|when|to|in|after|during)\b.+)", r"Explain what happens \g<x>"),
    (r"what would happen (?P<x>(?:if|to|in|after)\b.+)", r"Explain what would happen \g<x>"),
    (rf"what(?: is|['’]?s| was) (?P<x>{_NOUN_PHRASE})", r"Describe \g<x>"),
    (rf"what (?:are|were) (?P<x>{_NOUN_PHRASE})", r"List \g<x>"),
    (r"what(?: is|['’]?s) (?P<x>an? (?!\w+ing\b)\w+(?: (?!\w+ing\b)\w+)?)", r"Explain what \g<x> is"),
    (r"what does (?P<x>[^,]+) mean", r"Explain what \g<x> means"),
    (rf"(?P<wh>how (?:long|much)|what) does (?P<x>it) {_IT_VERB}\b(?P<rest>.*)",
     lambda match: f"Tell me {_uncapitalised(match['wh'])} it {match[3]}s{match['rest']}"),
    (rf"(?P<wh>{_WH}) do (?P<x>.+)",
     lambda match: f"{_whole(match)} {_uncapitalised(match['wh'])} {match['x']}"),
    (rf"(?P<wh>{_WH}) (?P<aux>{_AUXILIARY}) (?P<subject>{_PRONOUN}) (?P<rest>.+)", _statement),
    (rf"why (?P<aux>is|are|was|were) (?P<x>(?!\w+ing\b)[\w'’-]+(?: (?!\w+ing\b)[\w'’-]+){{0,4}}?) "
     rf"(?P<rest>{_BORDER} .+)",
     lambda match: f"Explain why {match['x']} {match['aux'].lower()} {match['rest']}"),
    (r"(?P<wh>who|which [\w'’-]+) (?P<x>(?:is|are|was|were) (?:the|most|more|better|worse|best|worst|least)\b.+)",
     lambda match: f"Tell me {_uncapitalised(match['wh'])} {match['x']}"),
    (r"do (?P<x>.+)", r"Tell me whether \g<x>"),
    (rf"(?P<aux>{_AUXILIARY}) (?P<subject>{_PRONOUN}) (?P<rest>.+)", _statement),
]  # fmt: skip

_HOW_TO = (
    r"(?:explain|describe|demonstrate|illustrate|show|outline|research|learn|detail|tell|teach|instruct)"
    r"(?: (?:me|us|someone|somebody))?(?: on)?"
)
_IMPERATIVE = (
    r"(?:analy[sz]e|argue|ask|assess|brainstorm|calculate|check|choose|come up|compare|compile|compose|confirm|"
    r"construct|convince|count|craft|create|critique|debate|decide|define|demonstrate|describe|design|detail|"
    r"determine|develop|devise|discuss|document|draft|draw|enumerate|estimate|evaluate|examine|explain|explore|"
    r"express|find|gather|give|identify|illustrate|imagine|instruct|invite|investigate|justify|list|locate|look|make|"
    r"measure|name|outline|persuade|plan|predict|prepare|present|propose|prove|provide|rank|recall|recite|recommend|"
    r"reflect|request|research|rewrite|say|search|select|share|show|sketch|state|suggest|summari[sz]e|support|teach|"
    r"tell|trace|translate|write)"
)
_LISTING = (
    r"(?:research|identify|list|find|brainstorm|describe|suggest|explain|outline|compile|provide|give me|tell me|"
    r"analy[sz]e|determine|define|investigate|name)"
)


def _asked_for(match: re.Match) -> str:
    """ "ways to X" to "What are some ways to X", "the best way to X" to "What is the best way to X"."""
    phrase = match["x"]
    head = re.match(rf"(?P<determiner>{_DETERMINER} (?:[\w'’-]+ ){{0,3}}?)?(?P<noun>{_NOUN})\b", phrase, re.I)
    several = bool(head) and re.search(r"[^s]s$", head["noun"], re.I)
    lead = "some " if several and not head["determiner"] else ""
    return f"What {'are' if several else 'is'} {lead}{_uncapitalised(phrase)}"


def _question_of(match: re.Match) -> str:
    subject = "I" if match["subject"].lower() == "i" else match["subject"].lower()
    wh = match.groupdict().get("wh")
    aux = match["aux"].lower()
    return f"{_capitalised(wh)} {aux} {subject} {match['rest']}" if wh else f"{aux.capitalize()} {subject} {match[4]}"


_TO_QUESTION: list[_Rule] = [
    (rf"{_HOW_TO} how (?:to|i can|you can|one can) (?P<x>.+)", r"How do I \g<x>"),
    (r"teach (?:me|us) to (?P<x>.+)", r"How do I \g<x>"),
    (rf"{_LISTING} (?P<x>{_NOUN_PHRASE})", _asked_for),
    (rf"(?:tell me|explain) (?P<wh>{_WH}) (?P<subject>{_PRONOUN}) (?P<aux>{_AUXILIARY}) "
     r"(?P<rest>.+)", _question_of),
    (rf"(?:tell me|explain) (whether|if) (?P<subject>{_PRONOUN}) (?P<aux>{_AUXILIARY}) (?P<rest>.+)", _question_of),
    (rf"(?P<x>{_IMPERATIVE} .+)", lambda match: f"Can you {_uncapitalised(match['x'])}"),
]  # fmt: skip


def to_instruction(question: str) -> str | None:
    """A question as an instruction with the same meaning; None for a form the rules do not know.

    >>> to_instruction("How do I bake bread?")
    'Explain how to bake bread.'
    """
    sentence = _sentence(question)
    if sentence is None:
        return None
    return _reworded(sentence, _TO_INSTRUCTION, ".")


def to_question(instruction: str) -> str | None:
    """An instruction as a question with the same meaning; None for a form the rules do not know.

    >>> to_question("Explain how to bake bread.")
    'How do I bake bread?'
    """
    sentence = _sentence(instruction)
    if sentence is None or instruction.strip().endswith("?"):
        return None
    return _reworded(sentence, _TO_QUESTION, "?")


def _sentence(text: str) -> str | None:
    """The words of a single sentence without its end mark; None where there is none, or more than one."""
    words = " ".join(text.split())
    words = re.sub(r"[\s.!?]+$", "", words)
    words = re.sub(r",? please$", "", re.sub(r"^please,? ", "", words, flags=re.I), flags=re.I)
    if not words or "\n" in text.strip() or re.search(r"[.!?;:][\"'”’)]*\s", words):
        return None
    return words


def _reworded(sentence: str, rules: list[_Rule], end: str) -> str | None:
    for pattern, form in rules:
        if match := re.fullmatch(pattern, sentence, flags=re.I):
            text = match.expand(form) if isinstance(form, str) else form(match)
            return re.sub(r"\bi(?=['’ ]|$)", "I", text) + end
    return None


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _uncapitalised(text: str) -> str:
    """The first letter made small, unless the word is "I" or in capitals."""
    word = text.split(" ", 1)[0]
    return text if word in ("I", "I'm") or (len(word) > 1 and word[1:2].isupper()) else text[:1].lower() + text[1:]
