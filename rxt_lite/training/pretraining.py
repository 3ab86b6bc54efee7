"""The losses of the stages before memory-aware training, the published ones and ours beside them.

    joint_lm         - mean log p(masked token | ED)  - mean log p(next token | tokens before it, slots)
                     slots = ED of the event itself (published), or of the event before it
    imitate_event    - mean cos( STM_t, a STM_{t-1} + w ED_t )             slot i is to look like token i
    fill_in_blanks   - mean log p(blanked token of an event u <= t | the rest of it, STM_t)

ED is what the encoder makes of an event, all layers. A loss that needs parameters of its own takes them as its third
argument: a module that a stage builds, trains and throws away.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import BOS, MASK, PAD, ModelConfig
from rxt_lite.data.batches import Batch
from rxt_lite.layers.attention import Attention
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.models.base import EventModel
from rxt_lite.models.rxt import RxT
from rxt_lite.training.losses import place_before, targets_of
from rxt_lite.training.processes import cross_entropy, mean

READS = ("itself", "event_before", "nothing")


class MaskedHead(nn.Module):
    """What a token was, from what the encoder made of the mask in its place: (..., D) -> logits (..., V)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, V = config.d_model, config.vocab_size
        self.layers = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.LayerNorm(D), nn.Linear(D, V))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Reader(nn.Module):
    """Fill in the blanks of an event from a memory: every token asks the slots of every layer.

    Attention sees slots without an order, so a memory may keep a token in any of them: the answer is the same.

    Shapes:
        x       (B, T, D)     the event with blanks, as the encoder saw it
        stm     (L, B, S, D)
        where   (B, T)        True at the M blanks
        returns (M, V)        logits
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_event = RMSNorm(config.d_model)
        self.norm_slots = nn.ModuleList(RMSNorm(config.d_model) for _ in range(config.n_layers))
        self.attention = nn.ModuleList(Attention(config, config.heads("cross")) for _ in range(config.n_layers))
        self.head = MaskedHead(config)

    def forward(self, x: Tensor, stm: Tensor, where: Tensor) -> Tensor:
        asking = self.norm_event(x)
        for slots, norm, attention in zip(stm, self.norm_slots, self.attention):
            x = x + attention(asking, norm(slots))
        return self.head(x[where])


def blank(tokens: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Tokens (..., T) with [MASK] in the place of a random share of them, and True (..., T) there. Never [BOS], never padding."""
    blanked = (tokens != PAD) & (tokens != BOS) & (torch.rand(tokens.shape, device=tokens.device) < share)
    return tokens.masked_fill(blanked, MASK), blanked


def needs_memory(model: EventModel) -> None:
    if not isinstance(model, RxT):
        raise ValueError(f"this stage teaches an encoder and a memory, which {type(model).__name__} does not have; it is for RxT")


# ---------------------------------------------------------------------------------------------- joint language model
def joint_lm(model: RxT, batch: Batch, head: MaskedHead, *, reads: str, targets: str = "text", mask: float = 0.15,
             noise: float = 0.15, drop: float = 0.0) -> Tensor:
    """Masked encoder and causal decoder together: mean surprise at masked tokens plus mean surprise at targets, a scalar.

    reads    what stands in for the memory: the encoding of the event "itself" (published; the decoder can look up the
             tokens it has to predict), of the "event_before" it (ours), or "nothing" but the empty memory (control)
    targets  of the decoder: one of TARGETS
    mask     share of the tokens that the encoder has to guess
    noise    standard deviation of noise on the encoding that is read, and drop: share of its vectors set to zero

    The encoding is detached, so the encoder learns from its masks alone. Sources: reference curriculum of arXiv
    2510.03561, joint pre-training (targets "text") and joint interaction tuning (targets of the answer).
    """
    needs_memory(model)
    B, N, T = batch.tokens.shape
    tokens, is_target = batch.tokens.flatten(0, 1), targets_of(batch, targets).flatten(0, 1)  # (B N, T)
    masked, blanked = blank(tokens, mask)
    encoded = model.encode(masked)  # (L, B N, T, D)
    fake, may_read = stand_in(model, encoded.detach().unflatten(1, (B, N)), batch.tokens, reads)  # (L, B N, M, D), (B N, M)
    fake = fake + noise * torch.randn_like(fake)
    fake = fake * (torch.rand(fake.shape[:3], device=fake.device) >= drop).unsqueeze(-1)
    logits = model.decode(tokens, model.read_slots(fake), where=place_before(is_target), slots_mask=may_read.unsqueeze(1))
    return cross_entropy(head(encoded[-1][blanked]), tokens[blanked]) + cross_entropy(logits, tokens[is_target])


def stand_in(model: RxT, encoded: Tensor, tokens: Tensor, reads: str) -> tuple[Tensor, Tensor]:
    """Slots (L, B N, M, D) that take the place of a memory, and True (B N, M) on those that are no padding.

    encoded (L, B, N, T, D), tokens (B, N, T). All but "itself" hold the S empty slots, so that the first event has some to read.
    """
    if reads == "itself":
        return encoded.flatten(1, 2), ~model.ignored(tokens.flatten(0, 1))
    if reads not in READS:
        raise ValueError(f"reads={reads!r} is not known; choose one of {', '.join(READS)}")
    empty = model.init_state(tokens.shape[0] * tokens.shape[1])  # (L, B N, S, D)
    everywhere = torch.ones(empty.shape[1:3], dtype=torch.bool, device=tokens.device)
    if reads == "nothing":
        return empty, everywhere
    before = torch.cat([torch.zeros_like(encoded[:, :, :1]), encoded[:, :, :-1]], dim=2).flatten(1, 2)  # (L, B N, T, D)
    real = torch.cat([torch.zeros_like(tokens[:, :1], dtype=torch.bool), tokens[:, :-1] != PAD], dim=1).flatten(0, 1)
    return torch.cat([empty, before], dim=2), torch.cat([everywhere, real], dim=1)


# ---------------------------------------------------------------------------------------------- memory attention
def published_weights(n: int) -> tuple[float, float]:
    """(a, w) of update n, what a slot keeps and what it takes: w = 0.9 first, then 0.5 - 0.05 n, never below 0.05."""
    w = 0.9 if n == 0 else max(0.05, 0.5 - 0.05 * n)
    return 1 - w, w


def spread(encoded: Tensor, length: Tensor, n_slots: int) -> Tensor:
    """One encoded token for each slot: (L, B, T, D), lengths (B) -> (L, B, S, D).

    The published label needs as many slots as tokens. Here S points lie evenly on the event's own tokens, from the
    first to the last, with linear interpolation between neighbours; an event of S tokens gives slot i its token i.
    """
    last = (length - 1).clamp(min=0)
    at = torch.linspace(0, 1, n_slots, device=encoded.device) * last[:, None]  # (B, S)
    low = at.floor().long()
    high = torch.minimum(low + 1, last[:, None])
    pick = lambda place: encoded.gather(2, place[None, :, :, None].expand(len(encoded), -1, -1, encoded.shape[-1]))  # noqa: E731
    return torch.lerp(pick(low), pick(high), (at - low)[None, :, :, None].to(encoded.dtype))


def imitate_event(model: RxT, batch: Batch, *, jitter: float = 0.15, noise: float = 0.1, change: float = 0.0) -> Tensor:
    """The published target: after update t, slot i is to point where a STM_{t-1} + w ED_t of token i points. A scalar.

    jitter   a and w move against each other by U(0, jitter), either way, anew for every update
    noise    standard deviation of noise on the encoded event and on the label (no value is published)
    change   weight of sqrt(t + 1) MSE(STM_t, STM_{t-1})

    STM_{t-1} is detached: an update learns from its own label only. Slots have no order, so a memory whose slots start
    as noise cannot know which of them is to be which token; the best it can do is the mean of all of them.
    """
    needs_memory(model)
    encoded = model.encode(batch.tokens.flatten(0, 1)).detach().unflatten(1, batch.tokens.shape[:2])  # (L, B, N, T, D)
    length = (batch.tokens != PAD).sum(-1)  # (B, N)
    stm, cosines, changes = model.init_state(len(batch.tokens)), [], []
    for n in range(batch.tokens.shape[1]):
        before, event, is_event = stm.detach(), encoded[:, :, n], length[:, n] > 0
        stm = model.write(before, event + noise * torch.randn_like(event), batch.tokens[:, n])
        a, w = published_weights(n)
        moved = jitter * torch.rand(()).item() * (1 if torch.rand(()) < 0.5 else -1)
        label = (a - moved) * before + (w + moved) * spread(event, length[:, n], stm.shape[2])
        label = label + noise * torch.randn_like(label)
        cosines.append(F.cosine_similarity(stm.float(), label.float(), dim=-1)[:, is_event].flatten())
        changes.append((n + 1) ** 0.5 * (stm - before)[:, is_event].flatten().pow(2))
    loss = -mean(torch.cat(cosines))
    return loss + change * mean(torch.cat(changes)) if change else loss


def fill_in_blanks(model: RxT, batch: Batch, reader: Reader, *, mask: float = 0.5, depth: int | None = None) -> Tensor:
    """Our target: from the memory after event n, fill in the blanks of an event u <= n, drawn anew for each n. A scalar.

    A memory can reach it with its slots in any order, and only by keeping what earlier events said.

    mask     share of the tokens of event u that are blanked; the encoder reads the others beside the memory
    depth    how many updates a gradient reaches back at most; None for all
    """
    needs_memory(model)
    B, N, T = batch.tokens.shape
    encoded = model.encode(batch.tokens.flatten(0, 1)).unflatten(1, (B, N))  # (L, B, N, T, D)
    after = torch.stack(list(model.memories(encoded, batch.tokens, depth))[1:], dim=2)  # (L, B, N, S, D)
    place = torch.arange(1, N + 1, device=batch.tokens.device)
    drawn = (torch.rand(B, N, device=batch.tokens.device) * place).long()  # u, from 0 to n
    events = batch.tokens.gather(1, drawn.unsqueeze(-1).expand(-1, -1, T))  # (B, N, T)
    masked, blanked = blank(events, mask)
    blanked = blanked & (batch.tokens != PAD).any(-1, keepdim=True)  # after the dialogue's own events only
    question = model.encode(masked.flatten(0, 1))[-1]  # (B N, T, D)
    logits = reader(question, after.flatten(1, 2), blanked.flatten(0, 1))
    return cross_entropy(logits, events[blanked])
