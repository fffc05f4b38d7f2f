"""The versions of a tenant's model: the rules of a promotion, the signed decisions, the folders and the champion.

<registry>/<tenant>/decisions.jsonl   every decision, a signed line each, chained by hashes; the truth
                    models/v1, v2, …  the promoted models, copied: a later training cannot change them
                    champion.json     the version to serve; replaced atomically, made again from the decisions
                    lock              held by the command that decides
"""
