"""The prompt set of a medical assistant: rows read, sampled by stratum, written for the trainer."""
