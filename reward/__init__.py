"""The reward of a run. The way of one rollout:

1. `verl_reward.compute_score` takes the trainer's completion and reads the sample out of the parquet row.
2. `engine.RewardEngine.score` logs what comes of it, and checks the judge now and then (`judge.canary`).
3. `scorer.Scorer.score` asks the task (`task.Task`): parse the completion, gate it, name the calls it needs.
4. `services` and `judge` make the calls, each once (`ledger.calls`): memory, then ledger, then budget, then network.
5. `rewrite.combination.combine` turns what they found into a reward; its formulas are `rewrite.formulas`.
6. `verl_sampler.RewardReplayBuffer` drops what must not train and logs the step.

What a failure becomes:

1. A call that fails after its attempts is a `ServiceFailure`: recorded in the ledger, kept by nobody, no score.
2. The rollout that needed it is `Abstained`. It has no reward: score 0 with `abstained` 1 for the trainer's dict.
3. The sampler takes it out of the batch, and its whole group where fewer than half of the siblings are left.
4. Too many of them, a spent budget or a broken health rule stop the run: checkpoint, `stopped.json`, exit 75, 76 or 77.
5. The same command resumes it, and repeats no call that was answered.
"""
