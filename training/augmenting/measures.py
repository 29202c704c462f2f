"""What can be seen of an answer without a model: how much it repeats itself, and in which script it is. No torch here."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

RUN = 4  # words
NO_SPACES = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Kana, Han, Thai, Lao, Burmese and Khmer: written without spaces between words, so each character counts as one."""
WORD = re.compile(rf"[{NO_SPACES}]|[^\W{NO_SPACES}]+")
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)

TOGETHER = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "IDEOGRAPHIC": "CJK", "KANGXI": "CJK"}
"""Scripts that stand beside each other in one language's texts."""

LANGUAGES: dict[str, tuple[str, ...]] = {
    "LATIN": (
        "english", "french", "german", "spanish", "italian", "portuguese", "dutch", "polish", "czech", "turkish",
        "vietnamese", "indonesian", "swedish", "romaniz", "transliterat", "pinyin", "romaji", "latin",
        "англи", "француз", "немец", "испан", "латин", "英语", "英文", "英語", "法语", "德语", "西班牙语",
        "拼音", "ローマ字", "フランス語", "ドイツ語", "영어", "الإنجليزية", "إنجليزي", "انگلیسی", "अंग्रेज", "αγγλικ",
        "אנגלית", "อังกฤษ",
    ),
    "CYRILLIC": ("russian", "ukrainian", "bulgarian", "serbian", "kazakh", "cyrillic", "俄语", "俄文", "ロシア語", "러시아어"),
    "CJK": ("chinese", "mandarin", "cantonese", "japanese", "kanji", "hiragana", "katakana", "китай", "япон", "중국어", "일본어"),
    "HANGUL": ("korean", "hangul", "корей", "韩语", "韩文", "韓国語"),
    "ARABIC": ("arabic", "persian", "farsi", "urdu", "араб", "阿拉伯", "アラビア語"),
    "DEVANAGARI": ("hindi", "marathi", "nepali", "sanskrit", "devanagari", "хинди", "印地语"),
    "GREEK": ("greek", "греч", "希腊语"),
    "HEBREW": ("hebrew", "yiddish", "иврит"),
    "THAI": ("thai", "тай", "泰语"),
    "BENGALI": ("bengali", "bangla"),
    "TAMIL": ("tamil",),
    "TELUGU": ("telugu",),
    "GEORGIAN": ("georgian", "грузин"),
    "ARMENIAN": ("armenian", "армян"),
}  # fmt: skip
"""How a prompt asks for a script: by the name of a language that is written in it, in some languages."""


def repetition(text: str) -> float:
    """The share of a text's runs of four words that stand in it before already; 0 where it has none."""
    words = WORD.findall(text.casefold())
    runs = [tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def same_script(prompt: str, answer: str) -> bool:
    """Whether an answer's script is one that its prompt has letters of, or asks for by a language's name.

    Code counts for nothing, and neither does an answer, or a prompt, without letters.
    """
    asked, said = _scripts(prompt), _scripts(CODE.sub(" ", answer))
    if not asked or not said:
        return True
    script = max(said, key=lambda each: (said[each], each))
    return script in asked or any(name in prompt.casefold() for name in LANGUAGES.get(script, ()))


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script a text has."""
    found: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha() and (script := _script(character)):
            found[script] += count
    return found


@lru_cache(maxsize=8192)
def _script(character: str) -> str:
    """By the first word of its name in Unicode, such as LATIN; empty for letters of no script (µ, ª, ...)."""
    script = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    script = TOGETHER.get(script, script)
    return (
        script
        if script not in {"MICRO", "FEMININE", "MASCULINE", "MODIFIER", "MATHEMATICAL", "FULLWIDTH", "HALFWIDTH"}
        else ""
    )
