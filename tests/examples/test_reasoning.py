"""Conclusions are computed from the evidence."""

import reasoning
from reasoning import Check
from text import Library

LIBRARY = Library(
    {
        "for": "Stone bridges are reliable and safe, and they stand for many centuries.",
        "against": "Stone bridges are expensive, and in deep water the piers are a risk and fail.",
    }
)
QUESTION = "Are stone bridges good?"


def memory_with(checks: list[Check], question: str = QUESTION) -> dict[str, object]:
    balance = reasoning.weigh(LIBRARY, question)
    return {"query": question, "verification": {**balance, "checks": checks}}


def checks_of(stance: str, source: str) -> list[Check]:
    found = reasoning.evidence(LIBRARY, QUESTION, source, stance)
    return reasoning.check(LIBRARY, stance, reasoning.make_case(QUESTION, stance, found)["quotes"])


def test_evidence_supports_its_stance() -> None:
    assert reasoning.evidence(LIBRARY, QUESTION, "for", "optimistic")
    assert not reasoning.evidence(LIBRARY, QUESTION, "for", "skeptical")
    assert reasoning.evidence(LIBRARY, QUESTION, "against", "skeptical")


def test_the_balance_counts_both_sides() -> None:
    balance = reasoning.weigh(LIBRARY, QUESTION)
    assert (balance["supporting"], balance["contradicting"], balance["neutral"]) == (1, 1, 0)


def test_the_assessment_quotes_both_sides_and_explains_its_confidence() -> None:
    both = [*checks_of("optimistic", "for"), *checks_of("skeptical", "against")]
    conclusion = reasoning.conclude(memory_with(both))
    balance = reasoning.weigh(LIBRARY, QUESTION)
    weights = (balance["weightFor"], balance["weightAgainst"])
    share = max(weights) / sum(weights)
    assert conclusion["confidence"] == round(balance["coverage"] * share, 2)
    for part in (LIBRARY.documents["for"], LIBRARY.documents["against"], "2 of 2 quotes"):
        assert part in conclusion["finalAssessment"]


def test_a_quote_that_is_not_verbatim_lowers_the_confidence_and_is_not_quoted() -> None:
    honest = checks_of("optimistic", "for")
    invented = Check(stance="skeptical", text="All bridges fall.", source="against", verbatim=False)
    conclusion = reasoning.conclude(memory_with([*honest, invented]))
    assert conclusion["confidence"] < reasoning.conclude(memory_with(honest))["confidence"]
    assert "1 of 2 quotes" in conclusion["finalAssessment"]
    assert "All bridges fall." not in conclusion["finalAssessment"]


def test_question_outside_the_library_gets_no_confidence() -> None:
    conclusion = reasoning.conclude(memory_with([], question="Do zeppelins dream?"))
    assert conclusion == {
        "finalAssessment": "Undecided: 0 passages touch it, no verified quote decides it.",
        "confidence": 0.0,
    }


def test_case_without_evidence_says_that_nothing_was_found() -> None:
    case = reasoning.make_case(QUESTION, "skeptical", [])
    assert case["argument"] == "Nothing skeptical was found."
    assert case["quotes"] == []
