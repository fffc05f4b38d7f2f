"""Index one tenant's knowledge base, from a folder of documents or from what was stored before.

    python -m rag.build_index --kb-dir knowledge/fivedoctors --out data --tenant fivedoctors
    python -m rag.build_index --kb-dir docs --out data --questions --llm-url http://127.0.0.1:8000/v1 --rewrite-model m
    python -m rag.build_index --kb-dir docs --out data --questions --settings rag.yaml

`--kb-dir` holds a BEIR corpus.jsonl (one passage a document), or .txt, .md, .pdf, .xlsx and .jsonl files, cut at
sentence ends to 300 characters. The knowledge base is made to hold these documents and no others. Nothing is done
when it does already and its index was made by the same code. A file that cannot be read is named and passed over;
what the knowledge base holds of it already stays. Without `--kb-dir` the index is built anew from what the
knowledge base holds. `--out` may hold any number of tenants, and may be served meanwhile: the service goes on with
the earlier index until the new one is complete. With QDRANT_URL set, the vectors go to that server. With `--questions`
a language model writes questions for the passages that have none (rag.write_questions), and the best are indexed.
`--settings` is the file of rag.serve: its embedder and its language model.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from rag.catalogue.catalogue import Catalogue, KnowledgeBaseExists
from rag.catalogue.database import FILE
from rag.catalogue.records import KnowledgeBase
from rag.command import command
from rag.documents.read_documents import find_documents, read_documents
from rag.documents.records import Document, IngestError
from rag.documents.tokenizer import TOKENIZER_ID
from rag.index.engine import Space
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import DEFAULT_RETRIEVER, embedder_maker
from rag.settings import model_options, read_settings
from rag.write_questions import CONCURRENCY, KEEP, QUESTIONS, Options, count, share, write_missing_questions

TENANT = "default"


def build_index(
    kb_dir: Path | None,
    out: Path,
    tenant_id: str = TENANT,
    kb_name: str = "default",
    retriever: str = DEFAULT_RETRIEVER,
    write_questions: Callable[[Catalogue, KnowledgeBase], None] | None = None,
) -> tuple[KnowledgeBase, bool, list[str]]:
    """Make the knowledge base hold the documents of `kb_dir` and index it, unless that is so already; returns it,
    whether an index was built, and a line for each file that cannot be read. `write_questions` adds questions to what
    is stored, before it is indexed.

    Raises:
        IngestError: nothing to index, a damaged .jsonl file, or `out` exists and is no data folder.
        ModelFailure, EngineUnavailable: of a model behind an endpoint, of a Qdrant server.
    """
    if not (out / FILE).is_file() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise IngestError(f"{out}: exists and is no data folder: choose another --out")
    if kb_dir is None and not (out / FILE).is_file():
        raise IngestError(f"{out}: no data folder: --kb-dir says what to put there")
    # Everything is read before the catalogue is touched: a damaged file leaves it as it was.
    models = embedder_maker(retriever)
    documents, refused = ([], {}) if kb_dir is None else _read(kb_dir)
    catalogue = Catalogue(out)
    try:
        indexer = Indexer(catalogue, open_engine(out), models)
        try:
            found = catalogue.find_knowledge_base(tenant_id, kb_name)
            if kb_dir is not None:
                found = found or _create(catalogue, tenant_id, kb_name)
                catalogue.put_documents(found.id, documents, prune=True, keep=refused)
                found = catalogue.find_knowledge_base(tenant_id, kb_name)
            if found is None:
                raise IngestError(f"{out}: no knowledge base {tenant_id}/{kb_name}")
            if write_questions is not None:
                write_questions(catalogue, found)
                found = catalogue.find_knowledge_base(tenant_id, kb_name) or found
            if kb_dir is not None and _is_current(catalogue, indexer, found, models.id):
                return found, False, list(refused.values())
            with Progress(console=Console(stderr=True), transient=True) as progress:
                task = progress.add_task("indexing", total=1.0)
                indexer.rebuild(found, lambda share: progress.update(task, completed=share))
            indexer.drop_retired()
            return catalogue.find_knowledge_base(tenant_id, kb_name) or found, True, list(refused.values())
        finally:
            indexer.close()
    finally:
        catalogue.close()


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rag.build_index", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kb-dir", "--kb_dir", type=Path, help="folder of documents; without it, what is stored is indexed anew"
    )
    parser.add_argument("--out", type=Path, required=True, help="data folder, created or added to")
    parser.add_argument("--tenant", default=TENANT, help="tenant_id that requests will name (default: %(default)s)")
    parser.add_argument("--kb-name", "--kb_name", default="default", help="knowledge base name (default: %(default)s)")
    parser.add_argument(
        "--retriever",
        help="keyword (no vectors; default), hashing, a model's folder, or http(s)://…/v1#model, with ?prompts=NAME",
    )
    parser.add_argument("--query-prompt", "--query_prompt", help="what the model wants before a query, if no preset")
    parser.add_argument("--passage-prompt", "--passage_prompt", help="and before a passage")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML of rag.serve; options count before it")
    parser.add_argument(
        "--questions",
        type=count,
        nargs="?",
        const=QUESTIONS,
        metavar="N",
        help=f"write N questions a passage (default: {QUESTIONS}) where there are none (by --rewrite-model)",
    )
    parser.add_argument(
        "--keep", type=share, default=KEEP, help="share of the questions that is indexed (default: %(default)s)"
    )
    parser.add_argument("--llm-url", "--llm_url", help="OpenAI-compatible endpoint ending in /v1; key: LLM_API_KEY")
    parser.add_argument("--rewrite-model", "--rewrite_model", help="name of the model there, or at that of --settings")
    args = parser.parse_args(argv)
    named = {"retriever": args.retriever, "query_prompt": args.query_prompt, "passage_prompt": args.passage_prompt}
    given = {name: value for name, value in named.items() if value is not None}
    settings = read_settings(args.settings, given | {"language_model": model_options(args.llm_url, args.rewrite_model)})
    write = None
    code = 0
    if args.questions:
        if settings.language_model is None:
            parser.error("--questions needs --llm-url and --rewrite-model, or a language_model in --settings")
        asked = Options(settings.language_model, None, args.questions, CONCURRENCY, args.keep)

        def write(catalogue: Catalogue, kb: KnowledgeBase) -> None:
            nonlocal code
            code = asyncio.run(write_missing_questions(asked, catalogue, kb))

    kb, built, refused = build_index(args.kb_dir, args.out, args.tenant, args.kb_name, settings.embedder, write)
    for line in refused:
        print(f"passed over: {line}", file=sys.stderr)
    state = "built" if built else "up to date"
    questions = f" and {kb.questions} questions" if kb.questions else ""
    print(f"{args.out}: {kb.tenant_id}/{kb.name}, {kb.passages} passages{questions}, {state}")
    return code


def _read(folder: Path) -> tuple[list[Document], dict[str, str]]:
    """Read the documents; return them, and name → reason for those that cannot be read.

    Raises:
        IngestError: no file can be, or a .jsonl file is damaged: which documents it held is not known then.
    """
    documents: list[Document] = []
    refused: dict[str, str] = {}
    for path, name in find_documents(folder):
        try:
            documents += read_documents(path, name)
        except IngestError as error:  # it begins with the name, which is relative to the folder
            refused[name] = f"{folder}/{error}"
            if path.suffix.lower() == ".jsonl":
                raise IngestError(refused[name]) from None
    if not documents:
        raise IngestError(next(iter(refused.values())))
    return documents, refused


def _create(catalogue: Catalogue, tenant_id: str, kb_name: str) -> KnowledgeBase:
    try:
        return catalogue.create_knowledge_base(tenant_id, kb_name)
    except KnowledgeBaseExists as error:
        raise IngestError(f"{error}: another process is creating it") from None


def _is_current(catalogue: Catalogue, indexer: Indexer, kb: KnowledgeBase, embedder_id: str) -> bool:
    """Return whether the live version was built from what the knowledge base holds now, by the same code, and is
    there."""
    if kb.live_version is None:
        return False
    version = catalogue.version(kb.live_version)
    made = version.recipe
    return (
        version.built_revision == kb.revision
        and (made.embedder_id, made.tokenizer_id, made.engine_id) == (embedder_id, TOKENIZER_ID, indexer.engine.id)
        and indexer.engine.exists(Space(version.id, made.dimension))
    )


if __name__ == "__main__":
    raise SystemExit(main())
