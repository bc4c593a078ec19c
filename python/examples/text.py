"""Read a library of text: find what bears on a question, and which way it leans. No database here.

A library is a folder of text files, or, where none is named, the Python language reference that
every Python carries along (`pydoc_data.topics`). Ranking is BM25; leaning is a count of words.
"""

import functools
import math
import re
import string
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import TypedDict

SUFFIXES = frozenset({".txt", ".md", ".rst", ".text", ".markdown"})

STOP_WORDS = """
    a about an and any are as at be been being but by can could did do does for from had has have
    he her his how i if in into is it its may me my no nor not of on one or our she should so some
    such than that the their them then there these they this those to too us was we were what
    when where which while who why will with would you your"""
NEGATIONS = "no not never nor without cannot neither hardly"
HOPEFUL = """advantage benefit best better convenient correct depend easy effective efficient
    enable ensure fast gain good grow guarantee help ideal improve offer prefer proper protect
    recommend reliable rely robust safe simple strong succeed success support useful well"""
DOUBTFUL = """ambiguous avoid bad careful caution confuse danger dangerous delay deprecate difficult
    discourage error expensive fail failure forbid hard harm however illegal impossible incorrect
    invalid lack leak limit loss mistake obsolete postpone problem refuse risk slow surprise
    surprising undefined unfortunate unlikely unreliable unsafe warn warning weak worse wrong"""

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(*`])|(?<=:\*\*)\s+")
WORD = re.compile(r"\w+(?:['\u2019]t)?")


class Passage(TypedDict):
    """A sentence, the document it stands in, and how well it fits the question."""

    text: str
    source: str
    relevance: float


class Ranking:
    """Rank texts by how well they fit a query (BM25)."""

    def __init__(self, texts: Iterable[str], saturation: float = 1.4, length_weight: float = 0.6):
        """Count the words of every text."""
        self.counts = [Counter(stems(text)) for text in texts]
        self.lengths = [sum(count.values()) for count in self.counts]
        self.mean_length = (sum(self.lengths) / len(self.lengths) if self.lengths else 0) or 1.0
        self.found_in = Counter(stem for count in self.counts for stem in count)
        self.saturation, self.length_weight = saturation, length_weight

    def rarity(self, stem: str) -> float:
        """Return how much a word tells apart: rare words weigh more."""
        found = self.found_in[stem]
        return math.log(1 + (len(self.counts) - found + 0.5) / (found + 0.5))

    def scores(self, wanted: Collection[str], at_least: int = 1) -> list[float]:
        """Return one score for each text, in the order in which the texts were given.

        A text that holds fewer than `at_least` of the wanted stems scores nothing.
        """
        weights = {stem: self.rarity(stem) for stem in wanted}
        return [
            self._score(weights, count, length) if len(weights.keys() & count) >= at_least else 0.0
            for count, length in zip(self.counts, self.lengths, strict=True)
        ]

    def _score(self, weights: dict[str, float], count: Counter[str], length: int) -> float:
        relative_length = 1 - self.length_weight + self.length_weight * length / self.mean_length
        damping = self.saturation * relative_length
        return sum(
            weight * count[stem] * (self.saturation + 1) / (count[stem] + damping)
            for stem, weight in weights.items()
        )


class Library:
    """Hold documents by name, and answer questions about them."""

    def __init__(self, documents: dict[str, str]):
        """Take documents apart into sentences. Raises ValueError where there is no text."""
        if not any(text.strip() for text in documents.values()):
            raise ValueError("the library holds no text")
        self.documents = documents
        self.sentences = list(each_once(documents))
        self.document_ranking = Ranking(documents.values())
        self.sentence_ranking = Ranking(sentence for _, sentence in self.sentences)

    def best_sources(self, question: str, at_most: int) -> list[str]:
        """Return the names of the documents that say most about the question, best first."""
        scored = zip(self.document_ranking.scores(topic(question)), self.documents, strict=True)
        best = sorted(((score, name) for score, name in scored if score > 0), reverse=True)
        return [name for _, name in best[:at_most]]

    def passages(self, question: str, source: str | None = None) -> list[Passage]:
        """Return the sentences of a document (or of all) that touch the question, best first."""
        scores = self._scores(question)
        touching = [
            Passage(text=sentence, source=name, relevance=round(score, 2))
            for (name, sentence), score in zip(self.sentences, scores, strict=True)
            if score > 0 and source in (None, name)
        ]
        return sorted(touching, key=lambda passage: -passage["relevance"])

    def holds(self, quote: str, source: str) -> bool:
        """Tell whether a document says this, word for word (line breaks aside)."""
        return bool(quote.strip()) and plain(quote) in plain(self.documents.get(source, ""))

    def covered(self, question: str) -> float:
        """Return the share (0 to 1) of the question's topic that the library knows at all."""
        wanted = topic(question)
        known = self.document_ranking.found_in
        return sum(stem in known for stem in wanted) / len(wanted) if wanted else 0.0

    @functools.lru_cache(maxsize=8)  # noqa: B019 - libraries live as long as the process
    def _scores(self, question: str) -> list[float]:
        wanted = topic(question)
        return self.sentence_ranking.scores(wanted, at_least=min(2, len(wanted)))


@functools.lru_cache(maxsize=4)
def library(folder: str | None = None) -> Library:
    """Open a folder of text files, or the Python language reference where none is named."""
    if folder is None:
        return Library({f"python/{name}": body for name, body in topics.items()})
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    files = [file for file in sorted(root.rglob("*")) if file.suffix.lower() in SUFFIXES]
    if not files:
        raise FileNotFoundError(f"no text files ({', '.join(sorted(SUFFIXES))}) in {root}")
    return Library(
        {file.relative_to(root).as_posix(): file.read_text("utf-8", "replace") for file in files}
    )


def each_once(documents: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield every sentence once, under the shortest document that says it: the most specific."""
    seen: set[str] = set()
    for name in sorted(documents, key=lambda name: len(documents[name])):
        for sentence in sentences(documents[name]):
            if sentence not in seen:
                seen.add(sentence)
                yield name, sentence


def topic(question: str) -> frozenset[str]:
    """Return the stems that a question is about: not those that only ask which way it leans."""
    asked = frozenset(stems(question))
    return (asked - hopeful_stems - doubtful_stems) or asked


def leaning(sentence: str) -> int:
    """Return how far a sentence leans: above zero hopeful, below zero doubtful.

    Every hopeful or doubtful word counts one; a negation among the three words before it turns it
    around, so that "is not guaranteed" is a doubt.
    """
    spoken = WORD.findall(sentence.lower())
    total = 0
    for place, word in enumerate(spoken):
        weight = (stem(word) in hopeful_stems) - (stem(word) in doubtful_stems)
        negated = any(
            before in negations or before.endswith(("n't", "n\u2019t"))
            for before in spoken[max(0, place - 3) : place]
        )
        total += -weight if negated else weight
    return total


def sentences(text: str) -> list[str]:
    """Return the sentences of a text's prose, without code, tables and headings."""
    blocks = re.split(r"\n\s*\n", text)
    return [
        sentence
        for block in blocks
        for sentence in SENTENCE_END.split(plain(block).lstrip("*-•#> "))
        if is_prose(sentence)
    ]


def is_prose(sentence: str) -> bool:
    """Tell whether this reads like a sentence of 40 to 320 letters and not like code."""
    letters = sum(character.isalpha() or character == " " for character in sentence)
    return (
        40 <= len(sentence) <= 320
        and sentence[-1] in ".!?"
        and letters / len(sentence) > 0.85
        and not any(mark in sentence for mark in (">>>", "::=", " = ", "====", "----"))
    )


def keywords(text: str, at_most: int = 5) -> list[str]:
    """Return the words that a text uses most, stop words aside."""
    spoken = [word for word in WORD.findall(text.lower()) if len(word) > 3 and word.isalpha()]
    counted = Counter(word for word in spoken if word not in stop_words)
    return [word for word, _ in counted.most_common(at_most)]


def summary(text: str) -> str | None:
    """Return the sentence that says most of what its text says; null where there is no prose."""
    candidates = sentences(text)
    scores = Ranking(candidates).scores(set(map(stem, keywords(text, 8))))
    return max(zip(scores, candidates, strict=True))[1] if candidates else None


def plain(text: str) -> str:
    """Return the text with every run of white space as one space."""
    return " ".join(text.split())


def stems(text: str) -> list[str]:
    """Return the words that carry meaning, cut to their stems."""
    return [stem(word) for word in WORD.findall(text.lower()) if word not in stop_words]


@functools.lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """Cut the commonest English endings, so that `closed`, `closes` and `closing` are one word."""
    if word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("ations", "ation", "ings", "ing", "edly", "ed", "es", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word.strip(string.punctuation)


stop_words, negations = frozenset(STOP_WORDS.split()), frozenset(NEGATIONS.split())
hopeful_stems = frozenset(map(stem, HOPEFUL.split()))
doubtful_stems = frozenset(map(stem, DOUBTFUL.split()))
