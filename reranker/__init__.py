"""Train the reranker that the RAG service uses: score(query, relevant passage) > score(query, other passage).

The way of a line of training data:

1. `data.reading` finds its kind (JSONL, click feedback, a BVT export, a BEIR folder) and reads it; a line that cannot
   be used is kept aside with file, row, field and reason.
2. `data.cleaning` removes contradictions: a text that is positive and negative for one query, texts given twice.
3. `data.split` puts queries that share the text of a query or of an answer on one side: train, validation, held out.
4. `data.mining` finds hard negatives, and leaves out what scores like an answer.
5. `data.sampling` draws a group of passages for each query, anew every epoch, from (seed, epoch) alone.
6. `training` runs sentence-transformers' trainer on the groups, and watches: one constant score, a loss at chance.
7. `training.outcome` compares base and trained model on the whole validation and forgetting sets. A model that is not
   better, or that forgot, is not exported.
8. `modelling.export` merges, calibrates to [0, 1], writes, loads again, and compares the scores.
"""
