"""The queries that expansions are evaluated on, in categories."""
