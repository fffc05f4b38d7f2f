"""Processes that write to a data folder until they are killed: forked from this one, which has imported everything.

A line of stdin starts one: `<ingest|rebuild> <folder> <seed>`; `echo` answers `echo`. What the writers say on stdout:
`<pid> started`; `<pid> try <name> <text>` before a document is stored (text `-`: deleted), `<pid> done` once that is
acknowledged; `<pid> built` after a rebuild.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase
from rag.documents.records import Document, Passage
from rag.documents.tokenizer import load_dictionary
from rag.index.edge_engine import EdgeEngine
from rag.index.indexer import Indexer
from rag.models.embedder import HashingMaker

TENANT, KB, NAMES = "t", "default", 80
# One token each: a word with digits is found by its parts, too; and no two with one stem, as "wordb" and "wordbe" have.
_AS_LETTERS = str.maketrans("0123456789", "bcfghkmnqv")


def open_indexer(folder: Path) -> tuple[Catalogue, Indexer, KnowledgeBase]:
    catalogue = Catalogue(folder)
    kb = catalogue.find_knowledge_base(TENANT, KB)
    assert kb is not None
    return catalogue, Indexer(catalogue, EdgeEngine(folder), HashingMaker()), kb


def document(name: str, text: str) -> Document:
    """Two passages of which the second stays when the text changes, and a question."""
    passages = (Passage(f"{name}#1", text, (f"{text}怎么吃",)), Passage(f"{name}#2", f"{name} 鱼油随餐服用", ()))
    return Document(name, passages)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write: lines of different processes do not mix


def ingest(folder: Path, seed: int) -> None:
    """As a service does: store, bring the index up to date, acknowledge."""
    generator, me = random.Random(seed), os.getpid()
    catalogue, indexer, kb = open_indexer(folder)
    say(f"{me} started")
    for step in range(10**9):
        name = f"name{generator.randrange(NAMES)}"
        text = "-" if generator.random() < 0.2 else f"word{seed}x{step}z".translate(_AS_LETTERS)
        say(f"{me} try {name} {text}")
        if text == "-":
            catalogue.delete_document(kb.id, name)
        else:
            catalogue.put_documents(kb.id, [document(name, text)])
        say(f"{me} done")
        if generator.random() < 0.5:
            indexer.catch_up(kb)


def rebuild(folder: Path, seed: int) -> None:
    """As the build command does, again and again."""
    say(f"{os.getpid()} started")
    while True:
        catalogue, indexer, kb = open_indexer(folder)
        indexer.rebuild(kb, lambda share: None)
        indexer.drop_retired()
        indexer.close()
        catalogue.close()
        say(f"{os.getpid()} built")


def main() -> None:
    load_dictionary()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        task, *arguments = line.split()
        if task == "echo":
            say("echo")
        elif os.fork() == 0:
            folder, seed = arguments
            {"ingest": ingest, "rebuild": rebuild}[task](Path(folder), int(seed))


if __name__ == "__main__":
    main()
