"""The checks beside the exercises of "Attention" and "The KV cache": the solution passes, each known mistake gets its own sentence."""

import pytest
import torch
from test_chapters import cells, published, run, verdict

INF = torch.inf


@pytest.fixture(scope="module")
def attention():
    chapter = cells("attention")
    return run([chapter[name] for name in ("imports", "turn", "checks")], PROFILE="ci")


@pytest.fixture(scope="module")
def cache():
    chapter = cells("kv-cache")
    return run([chapter[name] for name in ("imports", "dialogue", "class", "checks")], PROFILE="ci")


# --------------------------------------------------------------------------------------------------------- Attention
SHARES, MIXTURE = (0.1, 0.2, 0.4, 0.1, 0.2), (4.0, 4.0)


@pytest.mark.parametrize(
    "shares, mixture, says",
    [
        (None, None, "no answer yet"),
        (SHARES, None, "no answer yet"),
        (SHARES, MIXTURE, "right"),
        ((0.125, 0.25, 0.5, 0.125), MIXTURE, "turn 5 is missing"),
        ((1, 2, 4, 1, 2), MIXTURE, "these are the powers"),
        ((0, 0.25, 0.5, 0, 0.25), MIXTURE, "even n = 0 gets a share"),
        ((0.083, 0.333, 0.167, 0.083, 0.333), MIXTURE, "this is Otto's pet"),
        ((0.5, 0.5), MIXTURE, "count what fits"),
        (SHARES, (0, 4), "the best entry alone"),
        (SHARES, (4.8, 4.8), "the plain mean"),
        (SHARES, (40, 40), "divide by 10"),
        (SHARES, (1, 1), "0.1 (0, 8)"),
    ],
)
def test_check_by_hand(attention, capsys, shares, mixture, says):
    assert says in verdict(capsys, attention["check_by_hand"], shares, mixture)


def test_numbers_of_the_exercise_by_hand(attention):
    """Counted from the table in the text, not from what the check believes."""
    names = run(["import math", cells("attention")["by-hand"], "keys.append([1, 1, 0, 0]); values.append([8, 4])"])
    shares, mixture = names["look_up"]([names["c"], 0, names["c"], 0], names["keys"], names["values"])
    assert attention["near"](shares, SHARES) and attention["near"](mixture, MIXTURE)


def see(scores, diagonal=0):
    return torch.ones(scores.shape[-2:], dtype=torch.bool).tril(diagonal)


@pytest.mark.parametrize(
    "causal_shares, says",
    [
        (lambda s: None, "no answer yet"),
        (lambda s: s.masked_fill(~see(s), -INF).softmax(-1), "right"),
        (lambda s: s.softmax(-1), "nothing is hidden"),
        (lambda s: s.masked_fill(~see(s), 0).softmax(-1), "not a share of 0"),
        (lambda s: s.softmax(-1) * see(s), "hidden after the softmax"),
        (lambda s: s.masked_fill(~see(s).T, -INF).softmax(-1), "upside down"),
        (lambda s: s.masked_fill(~see(s, -1), -INF).softmax(-1), "A token may look at itself"),
        (lambda s: s.masked_fill(~see(s), -INF).softmax(-2), "runs over those who ask"),
        (lambda s: s.masked_fill_(~see(s), -INF).softmax(-1), "changed in place"),
        (lambda s: s.masked_fill(~see(s), -INF).softmax(-1)[0], "the shape of the scores"),
        (lambda s: s.masked_fill(~see(s, 1), -INF).softmax(-1), "not right"),
    ],
)
def test_check_of_the_mask(attention, capsys, causal_shares, says):
    assert says in verdict(capsys, attention["check_causal_shares"], causal_shares)


def turned(attention, x, place):
    return attention["turn"](x, attention["angles"](torch.tensor([place]), 16)[0])


@pytest.mark.parametrize(
    "score_at, says",
    [
        (lambda at, q, k, p, j: None, "no answer yet"),
        (lambda at, q, k, p, j: at(q, p) @ at(k, j) / 4, "right"),
        (lambda at, q, k, p, j: at(q, p - j) @ k / 4, "right"),
        (lambda at, q, k, p, j: at(q, p) @ at(k, j), "the root of K is missing"),
        (lambda at, q, k, p, j: at(q, p) @ at(k, j) / 16, "by K, not by its root"),
        (lambda at, q, k, p, j: q @ k / 4, "nothing was turned"),
        (lambda at, q, k, p, j: at(q, p) @ k / 4, "only the query was turned"),
        (lambda at, q, k, p, j: q @ at(k, j) / 4, "only the key was turned"),
        (lambda at, q, k, p, j: at(q, j) @ at(k, p) / 4, "have changed places"),
        (lambda at, q, k, p, j: at(q, p + 1) @ at(k, j) / 4, "is not right; turn each"),
    ],
)
def test_check_of_the_score(attention, capsys, score_at, says):
    def answer(q, k, p, j):
        return score_at(lambda x, place: turned(attention, x, place), q, k, p, j)

    assert says in verdict(capsys, attention["check_score_at"], answer)


@pytest.mark.parametrize(
    "bytes_kept, says",
    [
        (lambda heads, K, layers, tokens: None, "no answer yet"),
        (lambda heads, K, layers, tokens: 8 * heads[1] * K * layers * tokens, "right"),
        (lambda heads, K, layers, tokens: 8 * heads[0] * K * layers * tokens, "counted query heads"),
        (lambda heads, K, layers, tokens: 4 * heads[1] * K * layers * tokens, "both kept"),
        (lambda heads, K, layers, tokens: 2 * heads[1] * K * layers * tokens, "those are numbers"),
        (lambda heads, K, layers, tokens: 8 * heads[1] * K * tokens, "one layer"),
        (lambda heads, K, layers, tokens: 8 * heads[1] * K * layers, "one token"),
        (lambda heads, K, layers, tokens: 7, "one factor at a time"),
    ],
)
def test_check_of_the_bytes(attention, capsys, bytes_kept, says):
    assert says in verdict(capsys, attention["check_bytes_kept"], bytes_kept)


@pytest.mark.parametrize(
    "share, says",
    [
        (lambda k, n: None, "no answer yet"),
        (lambda k, n: k.repeat_interleave(n // k.shape[1], 1), "right"),
        (lambda k, n: k.repeat(1, n // k.shape[1], 1, 1), "take turns"),
        (lambda k, n: k.repeat_interleave(n // k.shape[1], 2), "need keys of shape"),
        (lambda k, n: k.flip(1).repeat_interleave(n // k.shape[1], 1), "side by side"),
    ],
)
def test_check_of_the_sharing(attention, capsys, share, says):
    assert says in verdict(capsys, attention["check_share"], share)


@pytest.mark.parametrize(
    "check, function",
    [
        ("check_causal_shares", "causal_shares"),
        ("check_score_at", "score_at"),
        ("check_bytes_kept", "bytes_kept"),
        ("check_share", "share"),
    ],
)
def test_published_solutions_of_attention_pass(attention, capsys, check, function):
    solved = run([published("attention", function)], **{name: attention[name] for name in ("torch", "math", "turn", "angles")})
    assert verdict(capsys, attention[check], solved[function]) == "right\n"


# ------------------------------------------------------------------------------------------------------- The KV cache
@pytest.mark.parametrize(
    "answer, says",
    [
        ((None, None), "no answer yet"),
        ((8192, None), "no answer yet"),
        ((8192, 1024), "right"),
        ((2048, 1024), "those are numbers"),
        ((4096, 1024), "both kept"),
        ((1024, 1024), "every layer keeps"),
        ((16384, 1024), "only key-value heads"),
        ((7, 1024), "4 times 2 times"),
        ((8192, 512), "for full heads"),
        ((8192, 2048), "divide by 2"),
        ((8192, 8192), "the bytes of a token"),
        ((8192, 3), "S D over"),
    ],
)
def test_check_of_the_sizes(cache, capsys, answer, says):
    assert says in verdict(capsys, cache["check_sizes"], *answer)


def common_start(kept, wanted):
    n = 0
    while n < min(len(kept), len(wanted)) and kept[n] == wanted[n]:
        n += 1
    return n


@pytest.mark.parametrize(
    "reusable, says",
    [
        (lambda kept, wanted: None, "no answer yet"),
        (lambda kept, wanted: min(common_start(kept, wanted), len(wanted) - 1), "right"),
        (common_start, "Leave one"),
        (lambda kept, wanted: sum(a == b for a, b in zip(kept, wanted)), "behind the first difference"),
        (lambda kept, wanted: len(set(kept) & set(wanted)), "the order counts"),
        (lambda kept, wanted: 0, "count the equal tokens"),
    ],
)
def test_check_of_what_can_be_used_again(cache, capsys, reusable, says):
    assert says in verdict(capsys, cache["check_reusable"], reusable)


def restarting(is_token):
    positions = torch.zeros(is_token.shape, dtype=torch.long)
    for row in range(len(is_token)):
        n = 0
        for place in range(is_token.shape[1]):
            positions[row, place] = n
            n = n + 1 if is_token[row, place] else 0
    return positions


@pytest.mark.parametrize(
    "positions_of, says",
    [
        (lambda t: None, "no answer yet"),
        (lambda t: t.cumsum(1) - 1, "right"),
        (lambda t: t.cumsum(1), "position 0, not 1"),
        (lambda t: torch.arange(t.shape[1]).expand_as(t), "padding is counted"),
        (lambda t: t.cumsum(0) - 1, "along each row"),
        (restarting, "begin again at 0"),
        (lambda t: torch.arange(t.shape[1]), "one position for each place"),
        (lambda t: 0 * t.long(), "not right"),
    ],
)
def test_check_of_the_positions(cache, capsys, positions_of, says):
    assert says in verdict(capsys, cache["check_positions"], positions_of)


def window(cache, first=False, values=True, used=None, reverse=False):
    def keep_last(kept, n):
        new = cache["KeyValues"](cache["model"].config, kept.keys.shape[1], kept.keys.shape[3])
        rows = slice(0, n) if first else slice(kept.used - n, kept.used)
        new.keys[:, :, :, :n] = kept.keys[:, :, :, rows].flip(3) if reverse else kept.keys[:, :, :, rows]
        new.values[:, :, :, :n] = (kept.values[:, :, :, rows] if values else kept.values[:, :, :, :n])
        new.used = n if used is None else used
        return new

    return keep_last


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({}, "right"),
        ({"first": True}, "these are the first rows"),
        ({"values": False}, "the values have not"),
        ({"used": 10}, "used is 4"),
        ({"reverse": True}, "the rows 6 to 9"),
    ],
)
def test_check_of_the_window(cache, capsys, wrong, says):
    assert says in verdict(capsys, cache["check_window"], window(cache, **wrong))


def test_check_of_the_window_without_an_answer(cache, capsys):
    assert "no answer yet" in verdict(capsys, cache["check_window"], lambda kept, n: None)
    assert "return a KeyValues" in verdict(capsys, cache["check_window"], lambda kept, n: kept.keys)


@pytest.mark.parametrize(
    "check, function",
    [("check_reusable", "reusable"), ("check_positions", "positions_of"), ("check_window", "keep_last")],
)
def test_published_solutions_of_the_cache_pass(cache, capsys, check, function):
    solved = run([published("kv-cache", function)], KeyValues=cache["KeyValues"], model=cache["model"])
    assert verdict(capsys, cache[check], solved[function]) == "right\n"
