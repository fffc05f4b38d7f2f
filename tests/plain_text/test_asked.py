"""What a reranker reads of a conversation and a query."""

import pytest

from plain_text.asked import asked_text


@pytest.mark.parametrize(
    ("query", "context", "asked"),
    [
        ("能吃吗", "孕妇", "孕妇\n能吃吗"),
        ("能吃吗", "", "能吃吗"),
        ("", "孕妇", "孕妇\n"),
        ("能吃吗", "开头" + "孕" * 197, "孕" * 197 + "\n能吃吗"),
        ("能" * 150, "开头" + "孕" * 50, "孕" * 50 + "\n" + "能" * 150),
        ("能" * 200, "孕妇", "能" * 200),
        ("能" * 300, "孕" * 500, "能" * 300),
    ],
)
def test_the_contexts_end_comes_before_the_whole_query(query, context, asked):
    assert asked_text(query, context) == asked
