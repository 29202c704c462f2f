"""What makes another prompt of one that is worded alike: other numbers, other names, another word in the same frame.

Sentence embeddings hear that two prompts are of one pattern, and hardly that "increase" became "decrease". No torch here.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

from training.data.normal import normal

STEM = 6  # letters that words of one stem share: butterfly and butterflies, differ and difference
FRAME = 0.6  # share of the words that must stand still around a word that was replaced
MOST_WORDS = 400  # that are aligned word by word; longer prompts are compared by which words they have
OVERLAP = 0.8  # of the words of two prompts that are longer than that, or than what an embedder reads

UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
TENS = {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
        "hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000"}  # fmt: skip
ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
NUMBER_WORDS = {
    **{word: str(value) for value, word in enumerate(UNITS.split())}, **TENS,
    **{word: f"{place}." for place, word in enumerate(ORDINALS, 1)},
}  # fmt: skip
DIGITS = re.compile(r"\d+(?:[.,:]\d+)*(?:(?:st|nd|rd|th)\b)?")

FUNCTION_WORDS = frozenset(
    ["a", "about", "after", "all", "also", "am", "an", "and", "any", "anymore", "are", "as", "at", "be", "been", "before", "being", "between", "both", "but", "by", "can", "cant", "could", "did", "do", "does", "doing", "done", "dont", "each", "either", "etc", "for", "from", "had", "has", "have", "he", "her", "here", "hers", "him", "his", "how", "i", "id", "if", "ill", "im", "in", "into", "is", "it", "its", "ive", "just", "let", "lets", "many", "may", "me", "might", "mine", "more", "most", "much", "must", "my", "no", "nor", "not", "of", "off", "on", "only", "or", "other", "our", "ours", "out", "over", "own", "s", "shall", "she", "should", "so", "some", "such", "t", "than", "that", "thats", "the", "their", "theirs", "them", "then", "there", "these", "they", "this", "those", "through", "to", "too", "under", "until", "up", "us", "very", "was", "we", "were", "what", "whats", "when", "where", "which", "while", "who", "whom", "whose", "why", "will", "with", "within", "wont", "would", "you", "your", "yours"]
)  # fmt: skip
REQUESTS = frozenset(
    [
        "answer",
        "ask",
        "come",
        "compose",
        "create",
        "define",
        "describe",
        "draft",
        "explain",
        "find",
        "generate",
        "get",
        "give",
        "help",
        "know",
        "like",
        "list",
        "make",
        "name",
        "need",
        "please",
        "produce",
        "provide",
        "question",
        "recommend",
        "say",
        "show",
        "start",
        "suggest",
        "tell",
        "think",
        "use",
        "want",
        "way",
        "wish",
        "write",
    ]
)
"""Words of asking rather than of what is asked for."""
DIRECTIONS = frozenset(["after", "before", "by", "from", "into", "minus", "over", "than", "to", "under", "when"])

UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
SENTENCE = re.compile(r"[.!?:;]\s+|\n+|^\W*")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
QUOTED = re.compile(
    r"(?<!\w)(?:'([^'\n]{1,80})'|\"([^\"\n]{1,80})\"|“([^”\n]{1,80})”|‘([^’\n]{1,80})’|`([^`\n]{1,80})`)(?!\w)"
)


def stem(word: str) -> str:
    return word[:STEM]


def words_of(text: str) -> list[str]:
    """The words of a normal text; each character is one where a script writes no spaces."""
    return text.split() if text.isascii() else UNSPACED.sub(r" \g<0> ", text).split()


def content_stems(text: str) -> list[str]:
    """Of a normal text: the stems of its words, but for those that any question may have."""
    return [word[:STEM] for word in words_of(text) if word not in FUNCTION_WORDS and word not in REQUESTS]


@dataclass(frozen=True)
class Asked:
    """A prompt's text, and what of it is compared."""

    text: str

    @cached_property
    def normal(self) -> str:
        return normal(re.sub(r"(?<=\w)['’]s\b", "", self.text))

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.normal)

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset(map(stem, self.words))

    @cached_property
    def numbers(self) -> tuple[Counter[str], Counter[str]]:
        """Written in digits, and in words."""
        digits, named = Counter[str](), Counter[str]()
        for word in self.words:
            if word in NUMBER_WORDS:
                named[NUMBER_WORDS[word]] += 1
            else:
                digits.update(map(_plain_number, DIGITS.findall(word)))
        return digits, named

    @cached_property
    def quoted(self) -> frozenset[str]:
        return frozenset(normal("".join(groups)) for groups in QUOTED.findall(self.text))

    @cached_property
    def names(self) -> frozenset[str]:
        """Capitalised words that begin no sentence."""
        found: set[str] = set()
        for sentence in SENTENCE.split(self.text):
            for word in WORD.findall(sentence)[1:]:
                if word[0].isupper() and word.casefold() not in FUNCTION_WORDS:
                    found.add(re.sub(r"['’]s$", "", word).casefold())
        return frozenset(found)


def _plain_number(text: str) -> str:
    if text[-1].isalpha():
        return text[:-2] + "."
    return re.sub(r",(?=\d{3}(\D|$))", "", text)


def other_prompt(one: Asked, other: Asked) -> bool:
    """Whether something in their words says that two prompts ask for different things."""
    return (
        _other_numbers(one, other)
        or _apart(one.quoted, other.normal, other.quoted, one.normal)
        or _other_names(one, other)
        or bool(replaced(one, other))
        or _turned_round(one, other)
    )


def _other_numbers(one: Asked, other: Asked) -> bool:
    """Digits without a partner, or number words without one on both sides: "one" alone may be an article."""
    (digits, named), (other_digits, other_named) = one.numbers, other.numbers
    left, right = digits + named, other_digits + other_named
    return bool((left - right) & digits or (right - left) & other_digits or (left - right and right - left))


def _apart(quoted: frozenset[str], other_text: str, other_quoted: frozenset[str], text: str) -> bool:
    """Whether both quote, and nothing of it is in the other."""
    if not quoted or not other_quoted:
        return False
    return not any(each in other_text for each in quoted) and not any(each in text for each in other_quoted)


def _other_names(one: Asked, other: Asked) -> bool:
    """Whether both have names, and none of them is in the other, not as its initials either."""
    if not one.names or not other.names:
        return False
    stems, other_stems = map(stem, one.names), map(stem, other.names)
    if any(each in other.stems for each in stems) or any(each in one.stems for each in other_stems):
        return False
    return not (_initials(one) & other.names or _initials(other) & one.names)


def _initials(asked: Asked) -> set[str]:
    found = "".join(word[0] for word in asked.words if word in asked.names)
    return {found[a:b] for a in range(len(found)) for b in range(a + 2, min(len(found), a + 6) + 1)}


def _turned_round(one: Asked, other: Asked) -> bool:
    """Whether the same words stand in another order around one of direction: from large to small, from small to large.

    A beginning that moved to the end changes nothing.
    """
    if one.words == other.words or not DIRECTIONS.intersection(one.words) or Counter(one.words) != Counter(other.words):
        return False
    return " ".join(other.words) not in " ".join([*one.words, *one.words])


def replaced(one: Asked, other: Asked) -> list[tuple[str, str]]:
    """Words that others stand for where all around them stands still; both sides, as texts.

    Of long prompts too few common words count as one such replacement.
    """
    if max(len(one.words), len(other.words)) > MOST_WORDS:
        return [] if overlap(one, other) >= OVERLAP else [("", "")]
    blocks = SequenceMatcher(None, one.words, other.words, autojunk=False).get_opcodes()
    still = sum(end - start for kind, start, end, _, _ in blocks if kind == "equal")
    if still < FRAME * max(len(one.words), len(other.words)):
        return []
    found = []
    for kind, a, b, c, d in blocks:
        if kind == "replace":
            left, right = _own(one.words[a:b], other.stems), _own(other.words[c:d], one.stems)
            if left and right:
                found.append((" ".join(left), " ".join(right)))
    return found


def _own(words: list[str], others: frozenset[str]) -> list[str]:
    """The words of content whose stems the other prompt lacks, but for numbers, which are compared as such."""
    own = []
    for word in words:
        known = word in FUNCTION_WORDS or word in REQUESTS or word in NUMBER_WORDS or stem(word) in others
        if not known and not DIGITS.fullmatch(word):
            own.append(word)
    return own


def overlap(one: Asked, other: Asked) -> float:
    """Words that both have, of the words that they have on average."""
    counts, others = Counter(one.words), Counter(other.words)
    return 2 * (counts & others).total() / max(1, len(one.words) + len(other.words))
