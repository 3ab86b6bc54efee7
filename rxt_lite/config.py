"""The numbers that decide the shape of a model, and the presets of the book.

A variant is a `dataclasses.replace` of a preset; nothing else in the library holds a size.
"""

from dataclasses import dataclass

# Ids of the special tokens, the same in every tokenizer of the book (as in the RxT models).
PAD, UNK, BOS, EOS, MASK, Q, A = range(7)

MEMORY_ATTENTIONS = ("simple", "self", "interlayer", "self_interlayer")
GATES = ("none", "static", "elementwise", "linear", "slot")
GATE_ACTIVATIONS = ("sigmoid", "tanh")
INITIAL_SLOTS = ("learned", "gaussian")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of an RxT or of a stateless decoder. Letters as in the book's notation page.

    `*_heads` are pairs (query heads, key-value heads) of width K = D / H each; None means (H, H).
    (H, G) is grouped-query, (H, 1) multi-query, (H/2, H/2) sparse-query attention
    (arXiv 2510.01817). The last block of fields names the choices in which our defaults may differ
    from the paper's; `PAPER` lists the paper's settings of all of them.
    """

    vocab_size: int = 256  # V
    d_model: int = 64  # D
    n_heads: int = 4  # H, fixes the width of a head
    n_layers: int = 2  # L: the STM has one bank of slots per layer
    n_slots: int = 16  # S
    d_ff: int = 128  # F, inner width of the feed-forward layers
    max_len: int = 64  # tokens in one window: an event for RxT, a whole transcript for DecoderLM

    self_heads: tuple[int, int] | None = None  # self-attention of encoder and decoder
    cross_heads: tuple[int, int] | None = None  # tokens reading the slots
    memory_heads: tuple[int, int] | None = None  # slots reading the event

    memory_attention: str = "simple"  # one of MEMORY_ATTENTIONS (paper: interlayer, self_interlayer)
    gate: str = "slot"  # one of GATES (paper: linear)
    gate_activation: str = "sigmoid"  # one of GATE_ACTIVATIONS
    initial_slots: str = "learned"  # learned, or fresh N(0, 1) noise for every conversation (paper)
    slot_embeddings: bool = True  # give every slot a name of its own when it asks (paper: no)
    head_norm: bool = True  # RMSNorm before the language-model head (paper: no)

    def __post_init__(self):
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "n_slots", "d_ff", "max_len"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} does not split into n_heads={self.n_heads} heads")
        if self.d_head % 2:
            raise ValueError(
                f"d_model={self.d_model} over n_heads={self.n_heads} gives heads of odd width {self.d_head}; "
                "rotary positions turn pairs of features, so the width must be even"
            )
        for place in ("self", "cross", "memory"):
            name, pair = f"{place}_heads", self.heads(place)
            if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
                raise ValueError(f"{name}={pair} must be two whole numbers (query heads, key-value heads)")
            if max(pair) > self.n_heads or max(pair) % min(pair):
                raise ValueError(
                    f"{name}={pair} does not fit n_heads={self.n_heads}: neither count may exceed it, "
                    "and the larger must be a multiple of the smaller"
                )
        _one_of("memory_attention", self.memory_attention, MEMORY_ATTENTIONS)
        _one_of("gate", self.gate, GATES)
        _one_of("gate_activation", self.gate_activation, GATE_ACTIVATIONS)
        _one_of("initial_slots", self.initial_slots, INITIAL_SLOTS)

    def heads(self, place: str) -> tuple[int, int]:
        """(query heads, key-value heads) of the attention at `place`: "self", "cross" or "memory"."""
        return getattr(self, f"{place}_heads") or (self.n_heads, self.n_heads)

    @property
    def d_head(self) -> int:  # K
        return self.d_model // self.n_heads


# The conventions of the published models (reference: RxT-Alpha cards, arXiv 2510.03561): use as
# ModelConfig(**PAPER, d_model=...).
PAPER = {
    "memory_attention": "interlayer",
    "gate": "linear",
    "gate_activation": "sigmoid",
    "initial_slots": "gaussian",
    "slot_embeddings": False,
    "head_norm": False,
}

TINY = ModelConfig()  # tests, first examples
BOOK = ModelConfig(vocab_size=767, d_model=64, n_layers=2, n_slots=16, d_ff=128, max_len=48)  # the small world
STORY = ModelConfig(vocab_size=1024, d_model=96, n_layers=2, n_slots=32, d_ff=256, max_len=112)  # real stories

PRESETS = {"tiny": TINY, "book": BOOK, "story": STORY}


def preset(name: str) -> ModelConfig:
    """The preset called `name`, or one clear error."""
    _one_of("preset", name, tuple(PRESETS))
    return PRESETS[name]
