"""Query expansion as a task: typed lines for a hybrid search.

`lex` lines are for BM25, `vec` and `hyde` lines for the dense channel.
"""
