"""From a query to an answer, one token at a time, and the event cycle around it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from rxt_lite.config import EOS, PAD
from rxt_lite.models.base import EventModel, State, join


def sample(logits: Tensor, *, temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None,
           generator: torch.Generator | None = None) -> Tensor:
    """Choose one token per row: logits (B, V) -> (B).

    temperature 0 takes the most likely token. Otherwise the logits are divided by the temperature,
    only the `top_k` most likely tokens stay, and of these the smallest set whose probability reaches
    `top_p` (Holtzman et al., arXiv 1904.09751).
    """
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(
            f"temperature={temperature} must be at least 0, top_k={top_k} at least 1, top_p={top_p} above 0 and at most 1"
        )
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    if top_p is not None:
        ordered, index = logits.softmax(-1).sort(descending=True)
        cut = ordered.cumsum(-1) - ordered >= top_p  # the token that reaches top_p stays
        logits = logits.masked_fill(torch.zeros_like(cut).scatter(-1, index, cut), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)


@torch.no_grad()
def stream(model: EventModel, query: Tensor, state: State, max_new_tokens: int, **how) -> Iterator[Tensor]:
    """Yield the next token (B) of every row until all have said [EOS]; a finished row yields PAD.

    query (B, T): right-padded prompts [BOS][Q]...[A], of any lengths. `how`: see `sample`.
    """
    model.check_tokens(query)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    if (query[:, 0] == PAD).any():
        raise ValueError("a query is empty: every row needs at least one token")
    model.check_tokens(query.new_ones(1, query.shape[1] + max_new_tokens - 1))
    cache = model.open(state, query.shape[1] + max_new_tokens - 1)
    last = (query != PAD).sum(1) - 1  # (B)
    logits = model.extend(query, cache)[torch.arange(len(query)), last]  # (B, V)
    done = torch.zeros(len(query), dtype=torch.bool, device=query.device)
    for step in range(max_new_tokens):
        token = sample(logits, **how).masked_fill(done, PAD)
        yield token
        done = done | (token == EOS)
        if step + 1 == max_new_tokens or bool(done.all()):
            return
        logits = model.extend(token[:, None], cache)[:, -1]


def generate(model: EventModel, query: Tensor, state: State, max_new_tokens: int, **how) -> Tensor:
    """Answers (B, <= max_new_tokens) to the queries (B, T), each ended by [EOS] and then padded."""
    return torch.stack(list(stream(model, query, state, max_new_tokens, **how)), dim=1)


def converse(model: EventModel, queries: list[Tensor], max_new_tokens: int, **how) -> Iterator[Tensor]:
    """Answer each query (B, T) in turn, carrying the model's state from event to event: the event cycle, whole."""
    state = model.init_state(len(queries[0]))
    for query in queries:
        answer = generate(model, query, state, max_new_tokens, **how)  # the user waits for this
        yield answer
        state = model.remember(join(query, answer), state)  # and not for this
