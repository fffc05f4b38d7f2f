"""Create, list and revoke the keys of a data folder. A running service knows of it at its next request.

    python -m rag.manage_keys create --index DIR --tenant fivedoctors --scope manage --note "web shop"
    python -m rag.manage_keys list --index DIR
    python -m rag.manage_keys revoke --index DIR --id 3

A key is shown once; only its hash is kept. `search` may search, answer and send feedback; `manage` may also read and
write documents. The first key closes a service that
ran without: from then on its callers need one (unless it was started with `--auth off`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.command import command
from rag.documents.records import IngestError


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rag.manage_keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="print a new key")
    create.add_argument("--tenant", required=True, help="whose knowledge bases it opens")
    create.add_argument("--scope", choices=("search", "manage"), default="search", help="default: %(default)s")
    create.add_argument("--note", default="", help="what it is for")
    revoke = commands.add_parser("revoke", help="end a key")
    revoke.add_argument("--id", type=int, required=True, help="its number in the list")
    for one in (create, commands.add_parser("list", help="show the keys, without the secrets"), revoke):
        one.add_argument("--index", type=Path, required=True, help="data folder of the service")
    args = parser.parse_args(argv)
    if not args.index.is_dir():
        raise IngestError(f"{args.index}: no such folder")
    catalogue = Catalogue(args.index)
    try:
        keys = AccessKeys(catalogue)
        if args.command == "create":
            print(keys.create(args.tenant, args.scope, args.note))
        elif args.command == "list":
            for row in keys.rows():
                state = f"revoked {row.revoked_at}" if row.revoked_at else "in use"
                print(f"{row.key_id}\t{row.tenant_id}\t{row.scope}\t{row.created_at}\t{state}\t{row.note}")
        elif not keys.revoke(args.id):
            raise IngestError(f"no key {args.id} in use")
    finally:
        catalogue.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
