"""The LLM judge: what it is asked, what it costs, how far it can be trusted."""
