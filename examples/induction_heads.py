"""Lay induction heads into a random Qwen3: it copies from its prompt, and hardly repeats itself, before any training.

A rewriter keeps most of its input's words. Copying is two attention heads working together (Olsson et al. 2022,
"In-context Learning and Induction Heads"): one notes at every token which token stood before it, one looks for the
place whose predecessor is the token just written, and repeats what it finds there. A pretrained model has them, a
random one must find them first. Starting near a known circuit is Trockman and Kolter's "Mimetic Initialization of
Self-Attention Layers" (2023). Copying alone repeats what has just been copied, so one more head speaks against every
token of the last two dozen ("Copy Suppression", McDougall et al. 2023). Nothing about any language, task or data is
laid in, and training may change all of it.

The residual stream is divided at the start: five eighths hold the token itself, three eighths the token before it. The
first dimension is the same for every token, for heads that go by position alone; with tied embeddings it shifts all
logits alike.
"""

from __future__ import annotations

from math import ceil

import torch
from transformers import Qwen3ForCausalLM

# Attention logits reach this square times sqrt(head_dim): sharp enough to single out one token of a few hundred.
_POSITION_SHARPNESS, _MATCH_SHARPNESS = 4.0, 2.0
# Rotary planes that turn fast separate neighbours; the slower half hardly turns within a prompt, so that tokens match
# at any distance.
_FAST_PLANES = 6
# Frequencies, in radians a token, of which a sum of cosines falls off over some two dozen tokens.
_SLOWEST_RECENT, _FASTEST_RECENT = 0.007, 0.033
# The normalised stream is some ten times as large as the stream itself.
_NOTE_SCALE, _COPY_SCALE, _SUPPRESSION_SCALE = 0.1, 0.3, 1.5
# What is not laid begins quiet: it would drown the circuit.
_QUIET = 0.05


@torch.no_grad()
def lay_induction_heads(model: Qwen3ForCausalLM) -> None:
    """Change `model`'s weights in place. Seed torch before: the subspaces are random.

    Raises:
        ValueError: fewer than two layers, shared key heads, untied embeddings, or heads too few for the width.
    """
    config = model.config
    width, head, heads = config.hidden_size, config.head_dim, config.num_attention_heads
    token = width * 5 // 8
    note = width - token
    note_heads, copy_heads = ceil(note / head), ceil((token - 1) / head)
    if config.num_hidden_layers < 2 or config.num_key_value_heads != heads or not config.tie_word_embeddings:
        raise ValueError("induction heads need two layers, a key head for each query head and tied embeddings")
    if max(note_heads, copy_heads + 1) > heads or head // 2 < _FAST_PLANES:
        raise ValueError(f"{heads} heads of {head} dimensions are too few for a width of {width}")

    # Divide the stream: five eighths hold the token, three eighths the note of the one before; all else begins quiet.
    embeddings = model.model.embed_tokens.weight
    embeddings[:, token:] *= _QUIET
    embeddings[:, 0] = 1.0
    for layer in model.model.layers:
        layer.mlp.down_proj.weight *= _QUIET
        layer.self_attn.o_proj.weight *= _QUIET
    noted = torch.linalg.qr(torch.randn(token - 1, token - 1)).Q[:note]

    # First layer: each head looks one token back and notes what it finds.
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(0, head, 2) / head)
    fast = torch.arange(_FAST_PLANES)
    key = torch.zeros(head)
    key[fast] = 1.0
    # A key turned by its position meets this query turned by the next one.
    query = torch.zeros(head)
    query[fast], query[fast + head // 2] = torch.cos(-frequencies[fast]), torch.sin(-frequencies[fast])
    for number in range(note_heads):
        head_rows = _quieten(first, number, head)
        first.q_proj.weight[head_rows, 0] += query
        first.k_proj.weight[head_rows, 0] += key
        part = torch.arange(number, note, note_heads)
        values = number * head + torch.arange(len(part))
        first.v_proj.weight[values, 1:token] = noted[part]
        first.o_proj.weight[token + part, values] = _NOTE_SCALE
    first.q_norm.weight.fill_(_POSITION_SHARPNESS)
    first.k_norm.weight.fill_(_POSITION_SHARPNESS)

    # Second layer: match the note with the token just written, and copy the token that was found.
    slow = torch.arange(head // 4, head // 2)
    slow = torch.cat([slow, slow + head // 2])
    for number in range(copy_heads):
        _quieten(second, number, head)
        view = torch.linalg.qr(torch.randn(note, note)).Q[: len(slow)]
        rows = number * head + slow[: len(view)]
        second.q_proj.weight[rows, 1:token] += view @ noted
        second.k_proj.weight[rows, token:] += view
        part = torch.arange(number, token - 1, copy_heads)
        values = number * head + torch.arange(len(part))
        second.v_proj.weight[values, 1 + part] = 1.0
        second.o_proj.weight[1 + part, values] = _COPY_SCALE

    # One more head speaks against recent tokens, so that copying does not repeat itself.
    head_rows = _quieten(second, copy_heads, head)
    recent = (frequencies > _SLOWEST_RECENT) & (frequencies < _FASTEST_RECENT)
    # Query and key are one: nearest to itself a token attends most.
    for projection in (second.q_proj, second.k_proj):
        projection.weight[head_rows, 0] += torch.cat([recent, torch.zeros_like(recent)])
    part_of_token = torch.linalg.qr(torch.randn(token - 1, token - 1)).Q[:head]
    values = copy_heads * head + torch.arange(len(part_of_token))
    second.v_proj.weight[values, 1:token] = part_of_token
    second.o_proj.weight[1:token, values] = -_SUPPRESSION_SCALE * part_of_token.T
    second.q_norm.weight.fill_(_MATCH_SHARPNESS)
    second.k_norm.weight.fill_(_MATCH_SHARPNESS)


def _quieten(attention: torch.nn.Module, number: int, head: int) -> slice:
    """Take the random values and outputs out of one head and most of its queries and keys; return its rows."""
    rows = slice(number * head, (number + 1) * head)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[rows] *= _QUIET / 2
    attention.v_proj.weight[rows] = 0.0
    attention.o_proj.weight[:, rows] = 0.0
    return rows
