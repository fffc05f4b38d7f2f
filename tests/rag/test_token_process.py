"""Long texts are tokenised in a process of its own: the same tokens, and a search goes on without it."""

import os
import signal
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.documents.token_process import TokenProcess
from rag.documents.tokenizer import remember_token_ids, remembers_token_ids, token_ids


@pytest.fixture(scope="module")
def process():
    process = TokenProcess()
    ready(process)
    yield process
    process.close()


def ready(process: TokenProcess) -> None:
    deadline = time.monotonic() + 60
    while process.token_ids("鱼油") is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@given(st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_the_tokens_are_the_same(process, text):
    assert process.token_ids(text).tolist() == token_ids(text)


def test_text_that_is_no_unicode_is_tokenised(process):
    assert process.token_ids("鱼油\ud800 omega-3").tolist() == token_ids("鱼油\ud800 omega-3")


def test_a_process_that_was_killed_is_started_anew():
    process = TokenProcess()
    ready(process)
    os.kill(process._process.pid, signal.SIGKILL)
    assert process.token_ids("鱼油") is None
    ready(process)
    process.close()


def test_the_process_ends_with_its_input(process):
    other = TokenProcess()
    ready(other)
    child = other._process
    child.stdin.close()
    assert child.wait(30) == 0


def test_what_was_found_is_what_others_get():
    assert not remembers_token_ids("一种 没有人 问过的 文字")
    process = TokenProcess()
    ready(process)
    remember_token_ids("一种 没有人 问过的 文字", process.token_ids("鱼油 钙片"))
    process.close()
    assert token_ids("一种 没有人 问过的 文字") == token_ids("鱼油 钙片")
