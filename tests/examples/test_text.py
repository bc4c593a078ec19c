"""The text helpers find passages, judge their leaning and verify quotes."""

from pathlib import Path

import pytest
import text
from text import Library

SHELF = Library(
    {
        "bridges": "A bridge of stone is reliable and carries heavy loads for centuries. "
        "However, stone bridges are expensive to build in deep water.\n\n    code = bridge()\n",
        "ferries": "A ferry crosses deep water without any building on the river bed. "
        "Ferries do not run in a storm, and that delay is a risk for hospitals.",
        "recipes": "Boil the water, then add salt and the pasta and wait for nine minutes.",
    }
)


def test_best_source_matches_the_question_most() -> None:
    assert SHELF.best_sources("Are stone bridges reliable?", at_most=2)[0] == "bridges"
    assert SHELF.best_sources("astronomy", at_most=2) == []


def test_only_relevant_passages_are_found_best_first() -> None:
    found = SHELF.passages("stone bridges in deep water")
    assert [passage["source"] for passage in found] == ["bridges", "bridges", "ferries"]
    assert found[0]["relevance"] >= found[1]["relevance"] > 0
    assert SHELF.passages("ferry in a storm", source="bridges") == []


def test_single_matching_word_of_a_long_question_is_not_enough() -> None:
    assert [p["source"] for p in SHELF.passages("Does a ferry run in a storm?")] == ["ferries"]
    assert len(SHELF.passages("water")) == 3


def test_words_about_leaning_are_not_part_of_the_topic() -> None:
    assert text.topic("Is stone reliable?") == {"ston"}
    assert text.topic("Is it safe?") == {"saf"}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("This is reliable and safe.", 2),
        ("This is not guaranteed to happen.", -1),
        ("It doesn't fail.", 1),
        ("A list is a sequence.", 0),
        ("Careful: it leaks.", -2),
    ],
)
def test_negation_reverses_a_leaning(sentence: str, expected: int) -> None:
    assert text.leaning(sentence) == expected


def test_quote_must_be_verbatim() -> None:
    assert SHELF.holds("stone bridges  are\nexpensive", "bridges")
    assert not SHELF.holds("stone bridges are cheap", "bridges")
    assert not SHELF.holds("stone bridges are expensive", "ferries")
    assert not SHELF.holds("stone bridges are expensive", "no such document")
    assert not SHELF.holds(" ", "bridges")


def test_coverage_is_the_share_of_words_that_the_library_knows() -> None:
    assert SHELF.covered("stone ferry") == 1.0
    assert SHELF.covered("stone zeppelin") == 0.5
    assert SHELF.covered("") == 0.0


def test_repeated_sentence_belongs_to_the_shortest_document() -> None:
    repeated = "Every word of this sentence stands in two documents at once."
    shelf = Library(
        {
            "long": f"{repeated}\n\nAnd there is more to read in the longer one of them.",
            "short": repeated,
        }
    )
    assert [source for source, sentence in shelf.sentences if sentence == repeated] == ["short"]


def test_code_and_headings_are_not_sentences() -> None:
    assert (
        text.sentences("Title\n=====\n\n>>> print('this is a long enough line of code.')\n") == []
    )


def test_library_reads_the_text_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.md").write_text(
        "Storks build their nests on the roofs of old houses."
    )
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    shelf = text.library(str(tmp_path))
    assert list(shelf.documents) == ["deep/one.md"]


def test_folder_without_text_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no text files"):
        text.library(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        text.library(str(tmp_path / "missing"))
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match="no text"):
        text.library(str(tmp_path))


def test_default_library_is_the_language_reference() -> None:
    shelf = text.library()
    assert len(shelf.documents) > 50
    assert "garbage collection" in text.plain(shelf.documents["python/objects"])


def test_a_summary_is_a_sentence_of_its_text() -> None:
    body = SHELF.documents["ferries"]
    assert text.summary(body) in text.sentences(body)
    assert text.summary("12 34") is None
