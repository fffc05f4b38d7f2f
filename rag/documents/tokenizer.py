"""BM25 tokens for Chinese and English: jieba words plus character uni- and bigrams, words of other scripts, numbers.

Words alone miss colloquial queries whose segmentation differs from the passage's; characters and bigrams match
those. Where a word is itself one or two characters long it counts twice, once as a word: measured better than
counting it once. English words count as their stems (Porter's second algorithm): over 2101 abstracts BM25's recall@10
of 160 claims was .86 without, .89 with them.
"""

from __future__ import annotations

import logging
import re
import threading
import unicodedata
import zlib
from functools import lru_cache

import jieba
import Stemmer

jieba.setLogLevel(logging.WARNING)

# Part of an index's identity: raise it whenever the tokens of some text change.
TOKENIZER_ID = f"jieba-{jieba.__version__}+char12+english-v2"

_CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
# Runs of letters and digits of every other script; a decimal number is one token.
_WORD = re.compile(r"(?:(?![\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])[^\W_])+(?:(?<=\d)\.\d+)?")


def normalize_text(text: str) -> str:
    """Lower case, and full-width letters and digits (as Chinese input methods type them) to plain ones."""
    return unicodedata.normalize("NFKC", text).lower()


def tokenize(text: str) -> list[str]:
    """Return the tokens of the normalised `text`, with repetitions; none exactly when it holds no letter and no
    digit."""
    text = normalize_text(text)
    tokens = [word for word in jieba.cut(text) if _CJK.match(word)]
    tokens += [_stem(word) if word.isascii() else word for word in _WORD.findall(text)]
    for run in _CJK.findall(text):
        tokens += run
        tokens += [run[i : i + 2] for i in range(len(run) - 1)]
    return tokens


_of_thread = threading.local()


def _stem(word: str) -> str:
    """Return the English stem; other words stay as they are."""
    stemmer: Stemmer.Stemmer | None = getattr(_of_thread, "stemmer", None)
    if stemmer is None:  # one for each thread: it keeps state
        stemmer = _of_thread.stemmer = Stemmer.Stemmer("english")
    stem: str = stemmer.stemWord(word)
    return stem


def token_id(token: str) -> int:
    """Return the 32-bit id of a token: the dimension it occupies in the sparse vectors."""
    return zlib.crc32(token.encode())


@lru_cache(maxsize=4096)
def query_token_ids(text: str) -> tuple[int, ...]:
    """Return the distinct token ids of a query, ascending. Cached: a training step asks the same query many times."""
    return tuple(sorted({token_id(token) for token in tokenize(text)}))


def load_dictionary() -> None:
    """Load jieba's dictionary now (about a second) rather than in the first request."""
    jieba.initialize()
