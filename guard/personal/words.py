"""jieba, loaded when a text asks for it: its dictionaries take a second."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any


@cache
def segmenter() -> Any:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return jieba


@cache
def tagger() -> Any:
    segmenter()
    from jieba import posseg

    return posseg
