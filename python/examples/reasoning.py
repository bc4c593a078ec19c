"""Turn passages into cases and a conclusion: by a language model, or by counting where none is.

The numbers always come from the text: a model writes prose, it never sets the confidence.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import model
import text
from text import Library, Passage

LEANINGS = {"optimistic": 1, "skeptical": -1}


class Case(TypedDict):
    """What one side has to say, and the quotes that it builds on."""

    argument: str
    quotes: list[Passage]
    writtenBy: str


class Check(TypedDict):
    """One quote of one side, and whether its source says it word for word."""

    stance: str
    text: str
    source: str
    verbatim: bool


class Balance(TypedDict):
    """What the library as a whole says to a question; the weights are summed relevance."""

    supporting: int
    contradicting: int
    neutral: int
    weightFor: float
    weightAgainst: float
    coverage: float


def evidence(
    library: Library, question: str, source: str, stance: str, at_most: int = 3
) -> list[Passage]:
    """Return what a document says to the question that leans the way of the stance."""
    return [
        passage
        for passage in library.passages(question, source)
        if text.leaning(passage["text"]) * LEANINGS[stance] > 0
    ][:at_most]


def make_case(question: str, stance: str, found: Sequence[Passage]) -> Case:
    """Argue one side from the passages that were found for it."""
    strongest = sorted(found, key=lambda passage: -passage["relevance"])[:3]
    if not strongest:
        return Case(argument=f"Nothing {stance} was found.", quotes=[], writtenBy="extraction")
    if written_by := model.name():
        answer = model.ask_for_json(CASE.format(stance=stance, question=question, found=found))
        quotes = [
            Passage(text=quote["text"], source=quote["source"], relevance=0.0)
            for quote in answer["quotes"]
        ]
        return Case(argument=answer["argument"], quotes=quotes, writtenBy=written_by)
    sources = len({passage["source"] for passage in found})
    argument = f"{len(found)} passages of {sources} documents, above all {cite(strongest[0])}"
    return Case(argument=argument, quotes=strongest, writtenBy="extraction")


def check(library: Library, stance: str, quotes: Sequence[Passage]) -> list[Check]:
    """Look every quote up in the document that it names."""
    return [
        Check(
            stance=stance,
            text=quote["text"],
            source=quote["source"],
            verbatim=library.holds(quote["text"], quote["source"]),
        )
        for quote in quotes
    ]


def weigh(library: Library, question: str, nearest: int = 50) -> Balance:
    """Weigh the passages nearest to the question, whichever side they take."""
    passages = library.passages(question)[:nearest]
    leanings = [text.leaning(passage["text"]) for passage in passages]
    weighed = list(zip(leanings, (passage["relevance"] for passage in passages), strict=True))
    return Balance(
        supporting=sum(leaning > 0 for leaning in leanings),
        contradicting=sum(leaning < 0 for leaning in leanings),
        neutral=sum(leaning == 0 for leaning in leanings),
        weightFor=round(sum(weight for leaning, weight in weighed if leaning > 0), 1),
        weightAgainst=round(sum(weight for leaning, weight in weighed if leaning < 0), 1),
        coverage=round(library.covered(question), 2),
    )


def conclude(memory: Mapping[str, Any]) -> dict[str, Any]:
    """Return the final assessment, and a confidence that is computed from the evidence alone."""
    verification = memory["verification"]
    checks: list[Check] = verification["checks"]
    verbatim = [one for one in checks if one["verbatim"]]
    weights = {"for": verification["weightFor"], "against": verification["weightAgainst"]}
    heavier = max(weights, key=lambda side: weights[side])
    if not verbatim or not weights[heavier]:
        touching = sum(verification[side] for side in ("supporting", "contradicting", "neutral"))
        undecided = f"Undecided: {touching} passages touch it, no verified quote decides it."
        return {"finalAssessment": undecided, "confidence": 0.0}
    verified, share = len(verbatim) / len(checks), weights[heavier] / sum(weights.values())
    confidence = round(verified * verification["coverage"] * share, 2)
    why = (
        f"Confidence {confidence}: {len(verbatim)} of {len(checks)} quotes stand word for word in"
        f" their sources, the library knows {verification['coverage']:.0%} of the question's words,"
        f" and {share:.0%} of the weight of its {verification['supporting']} supporting and"
        f" {verification['contradicting']} contradicting passages is {heavier} it."
    )
    assessment = f"{verdict(memory, heavier, verbatim)} {why}"
    return {"finalAssessment": assessment, "confidence": confidence}


def verdict(memory: Mapping[str, Any], heavier: str, verbatim: Sequence[Check]) -> str:
    """Say what the evidence comes to, in the model's words or in the library's own."""
    if model.name():
        return model.ask(VERDICT.format(question=memory["query"], heavier=heavier, quotes=verbatim))
    strongest = [
        f"{side}: {cite(first)}"
        for side, stance in (("For", "optimistic"), ("Against", "skeptical"))
        if (first := next((one for one in verbatim if one["stance"] == stance), None))
    ]
    return " ".join([f"The evidence leans {heavier} it.", *strongest])


def cite(quote: Passage | Check) -> str:
    """Return a quote with its source, as it is printed."""
    return f"“{quote['text']}” ({quote['source']})."


CASE = """You are the {stance} researcher. The question: {question}
Evidence from the library: {found}
Argue the {stance} side in at most three sentences, from this evidence alone. Answer with JSON:
{{"argument": "...", "quotes": [{{"text": "copied word for word", "source": "as given"}}]}}
with one to three quotes. Every quote will be looked up in its source."""

VERDICT = """The question: {question}
Verified quotes of two researchers: {quotes}
The weight of the library's evidence is {heavier}. Answer the question in at most four sentences,
from these quotes alone, and name their sources."""
