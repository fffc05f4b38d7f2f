"""The drop-in for the deployed rewriter: which rewriter answers, within which time, and what is known of it later.

A request's way: bounds (`contract`) → which arm (`assignment`) → its rewriter (`rewriters`, `model_slot`) within the
time limit → the rewrite, or the original query with the reason in a header → one line of the log (`outcome_log`).
"""
