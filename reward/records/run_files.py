"""Names of the files in a run's output folder that the reward's side writes and others read."""

METRICS_FILE = "reward_metrics.jsonl"  # a line a training step
VALIDATION_FILE = "validation_metrics.jsonl"  # a line a validation
HEALTH_FILE = "health.jsonl"  # a line a warning
CANARY_FILE = "canary.jsonl"  # a line a check of the judge
RETRIEVER_FILE = "retriever.json"  # the retrievers that the run met
STOP_FILE = "stopped.json"  # why the run stopped itself
UNLOGGED_FILE = "logs/unlogged.json"  # a step's metrics that the trainer's loggers do not have yet
