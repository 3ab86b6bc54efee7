"""What a conversation costs, counted from the shapes of the models before anything is timed.

Four arms, a row for each at every turn of a conversation with Tq query and Ta answer tokens a turn:

    rxt_answer      read the query, say the answer, with the slots at hand          what the user waits for
    rxt_update      encode the finished event, rewrite the slots                    what happens afterwards
    reread          a stateless decoder reads the whole transcript at every turn
    prefix_cached   the same decoder with a perfect cache of all keys and values

For the shape of a MemNet the first two are memnet_answer and memnet_update: the bank is read by every token, and written once.

`macs` are multiply-adds of all matrix products (a causal product is counted whole, as profilers do):
a test holds them to PyTorch's own count. `state_bytes` is what must be kept from turn to turn: float32
slots; the transcript's int64 ids; float32 keys and values.

`total_rows` adds the turns up, with a fifth arm, rxt = rxt_answer + rxt_update, and says how fast each total grows:
the exponent p of c n^p through the totals after n turns, by least squares on logarithms over the later half of the
conversation. It is the slope there, and may still be on its way: for long conversations the multiply-adds of
`reread` go to n^3 and those of `prefix_cached` to n^2, once comparing with the past outweighs all else.
"""

import math
from itertools import accumulate

import torch

from rxt_lite.config import MemNetConfig, ModelConfig
from rxt_lite.models.base import EventModel

FLOAT, INT = 4, 8  # bytes


def attention_macs(config: ModelConfig, heads: tuple[int, int], queries: int, keys: int, new_keys: int) -> int:
    """Project `queries` and `new_keys`, compare every query with all `keys`, project back."""
    K, (Hq, G) = config.d_head, heads
    gate = max(heads) if config.attention_gate else 0
    project = queries * (Hq + max(heads) + gate) * K * config.d_model + 2 * new_keys * G * K * config.d_model
    return project + 2 * queries * keys * max(heads) * K


def feedforward_macs(config: ModelConfig, tokens: int) -> int:
    return 3 * tokens * config.d_model * config.d_ff


def experts_macs(config: ModelConfig, tokens: int) -> int:
    """The decoder's feed-forward layer: route, ask k experts and the shared ones; dense where there are none."""
    c = config
    if not c.n_experts:
        return feedforward_macs(c, tokens)
    share = c.shared_experts if c.shared_experts > 1 else 0
    asked = c.experts_per_token + c.shared_experts
    return tokens * c.d_model * (c.n_experts + share + 3 * asked * (c.d_expert or c.d_ff))


def decode_macs(config: ModelConfig, tokens: int, past: int, slots: bool) -> int:
    """`tokens` new tokens in one pass after `past` cached ones, with or without slots (their keys and values at hand)."""
    layer = attention_macs(config, config.heads("self"), tokens, past + tokens, tokens) + experts_macs(config, tokens)
    reading = attention_macs(config, config.heads("cross"), tokens, config.n_slots, 0) if slots else 0
    return config.n_decoder_layers * layer + config.n_layers * reading + tokens * config.d_model * config.vocab_size


def answer_macs(config: ModelConfig, prompt: int, past: int, answer: int, slots: bool) -> int:
    """Read `prompt` tokens at once, then feed the answer back token by token; its last token is not fed."""
    macs = decode_macs(config, prompt, past, slots)
    macs += sum(decode_macs(config, 1, past + prompt + t, slots) for t in range(answer - 1))
    if slots:  # keys and values of the slots, once per event
        macs += config.n_layers * 2 * config.n_slots * config.heads("cross")[1] * config.d_head * config.d_model
    return macs


def update_macs(config: ModelConfig, tokens: int) -> int:
    """Encode an event of `tokens` tokens and let the slots read it."""
    c, S, D = config, config.n_slots, config.d_model
    layer = attention_macs(c, c.heads("self"), tokens, tokens, tokens) + feedforward_macs(c, tokens)
    layer += attention_macs(c, c.heads("memory"), S, tokens, tokens)
    gate = {"slot": 2 * D * S, "linear": S * (S if c.gate_per_slot else 1)}.get(c.gate, 0)
    gate += S * D if c.gate_statistic == "learned" else 0
    gates = {"simple": 1, "self": 2, "interlayer": 2, "self_interlayer": 3, "grouped": 3}[c.memory_attention]
    if c.memory_attention != "simple":
        layer += attention_macs(c, c.heads("memory"), S, S, S)
    return c.n_layers * (layer + gates * gate)


def memnet_macs(config: MemNetConfig, tokens: int, past: int) -> int:
    """`tokens` new tokens of a MemNet in one pass after `past` cached ones: controller, reading the bank, head."""
    c, D, H = config, config.d_model, config.bank_heads
    controller = c.n_layers * (attention_macs(c, c.heads("self"), tokens, past + tokens, tokens) + feedforward_macs(c, tokens))
    reading = tokens * H * (2 * D * D + 2 * c.n_slots * D)  # the queries and what comes out; cosines and what was found
    return controller + reading + feedforward_macs(c, tokens) + tokens * D * c.vocab_size


def memnet_answer_macs(config: MemNetConfig, prompt: int, answer: int) -> int:
    return memnet_macs(config, prompt, 0) + sum(memnet_macs(config, 1, prompt + t) for t in range(answer - 1))


def memnet_update_macs(config: MemNetConfig, tokens: int) -> int:
    """An event of `tokens` tokens goes through the controller and is written; how it would be read counts as use."""
    c, D, H, N = config, config.d_model, config.bank_heads, config.n_slots
    controller = c.n_layers * (attention_macs(c, c.heads("self"), tokens, tokens, tokens) + feedforward_macs(c, tokens))
    use = tokens * H * (D * D + N * D)
    wish = 2 * tokens * D * 2 * H + H * (D * D + 2 * D * c.d_bottleneck)  # which token, its mean; keys and values
    wish += H * 2 * D * (c.write_gate == "learned") + H * D * {"feature": D, "slot": 1, "all": 0}[c.erase]
    place = H * N * (D * (c.write_policy in ("content", "priority")) + 3 * (c.write_policy == "priority"))
    return controller + use + wish + place + N * H * D * (2 if c.separate_keys else 1)


def parameter_counts(kind: type[EventModel], config: ModelConfig) -> dict[str, int]:
    """{"total", "active"}: parameters of a model, and those of them that one token passes, without building it.

    Experts that are not asked are not active; embedding, encoder and memory attention are.
    """
    with torch.device("meta"):
        model = kind(config)
    total = sum(p.numel() for p in model.parameters())
    chosen = [p for name, p in model.named_parameters() if ".feedforward.to_" in name and p.ndim == 3]  # (E, ...)
    idle = sum(p.numel() * (config.n_experts - config.experts_per_token) // config.n_experts for p in chosen)
    return {"total": total, "active": total - idle}


def cost_rows(config: ModelConfig, turns: int, query_tokens: int = 12, answer_tokens: int = 8) -> list[dict]:
    """Rows {"arm", "turn", "tokens", "macs", "state_bytes"}; the stateless decoder has the RxT decoder's shape.

    query_tokens counts [BOS], [Q] and [A], answer_tokens counts [EOS]. tokens: tokens run through a network.
    """
    for name, value in (("turns", turns), ("query_tokens", query_tokens), ("answer_tokens", answer_tokens)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    c, Tq, Ta, event = config, query_tokens, answer_tokens, query_tokens + answer_tokens
    if isinstance(c, MemNetConfig):
        stm, own = FLOAT * c.n_slots * (2 * c.d_model + 3), "memnet"
        macs = memnet_answer_macs(c, Tq, Ta), memnet_update_macs(c, event)
    else:
        stm, own = FLOAT * c.n_layers * c.n_slots * c.d_model, "rxt"
        macs = answer_macs(c, Tq, 0, Ta, slots=True), update_macs(c, event)
    key_value = FLOAT * 2 * c.n_decoder_layers * c.heads("self")[1] * c.d_head
    rows = []
    for turn in range(1, turns + 1):
        past = (turn - 1) * event
        late = 1 if turn > 1 else 0  # the last answer's [EOS] is in the transcript but not yet in the cache
        arms = {
            f"{own}_answer": (Tq + Ta - 1, macs[0], stm),
            f"{own}_update": (event, macs[1], stm),
            "reread": (past + Tq + Ta - 1, answer_macs(c, past + Tq, 0, Ta, slots=False), INT * turn * event),
            "prefix_cached": (
                Tq + late + Ta - 1,
                answer_macs(c, Tq + late, past - late, Ta, slots=False),
                key_value * (turn * event - 1),
            ),
        }
        rows += [{"arm": arm, "turn": turn, "tokens": t, "macs": m, "state_bytes": b} for arm, (t, m, b) in arms.items()]
    return rows


def growth_exponent(totals: list[int]) -> float:
    """The p of c n^p fitted to totals[n - 1], n = 1, 2, ..., N: least squares of log on log over n = N/2 ... N.

    >>> growth_exponent([5 * n**2 for n in range(1, 9)])
    2.0
    """
    N = len(totals)
    if N < 2:
        raise ValueError(f"turns={N} must be at least 2: a growth needs two points")
    later = range(max(1, N // 2), N + 1)
    x, y = [math.log(n) for n in later], [math.log(totals[n - 1]) for n in later]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y)) / sum((a - x_mean) ** 2 for a in x)
    return round(slope, 12)  # what is exact stays exact


def total_rows(config: ModelConfig, turns: int, query_tokens: int = 12, answer_tokens: int = 8) -> list[dict]:
    """Rows {"arm", "turns", "tokens", "macs", "state_bytes", "exponent_tokens", "exponent_macs"} of a whole conversation.

    tokens, macs   summed over its turns
    state_bytes    kept after the last turn
    exponent_*     see `growth_exponent`: 1 is linear in the number of turns, 2 quadratic
    """
    rows = cost_rows(config, turns, query_tokens, answer_tokens)
    totals = []
    answer, update, *others = dict.fromkeys(row["arm"] for row in rows)
    both = answer.removesuffix("_answer")
    for arm in (answer, update, both, *others):
        of = [row for row in rows if row["arm"] == arm or (arm == both and row["arm"].startswith(both))]
        a_turn = len(of) // turns  # rows of one turn
        tokens, macs = (list(accumulate(row[key] for row in of))[a_turn - 1 :: a_turn] for key in ("tokens", "macs"))  # by turn
        totals.append({"arm": arm, "turns": turns, "tokens": tokens[-1], "macs": macs[-1], "state_bytes": of[-1]["state_bytes"],
                       "exponent_tokens": growth_exponent(tokens), "exponent_macs": growth_exponent(macs)})
    return totals
