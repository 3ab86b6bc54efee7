"""The numbers that decide the shape of a model, and the presets of the book.

A variant is a `dataclasses.replace` of a preset; nothing else in the library holds a size.
"""

from dataclasses import dataclass, replace

# Ids of the special tokens, the same in every tokenizer of the book (as in the RxT models).
PAD, UNK, BOS, EOS, MASK, Q, A = range(7)

MEMORY_ATTENTIONS = ("simple", "self", "interlayer", "self_interlayer", "grouped")
GATES = ("none", "replace", "static", "elementwise", "linear", "slot")
GATE_ACTIVATIONS = ("sigmoid", "tanh")
GATE_STATISTICS = ("mean", "learned")
INITIAL_SLOTS = ("learned", "gaussian")
EXPERT_BIASES = ("local", "global", "off")
WRITE_POLICIES = ("content", "lru", "priority", "random")
WRITE_GATES = ("learned", "open")
ERASES = ("feature", "slot", "all")


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
    n_layers: int = 2  # L: encoder layers, banks of slots, and decoder layers that read one
    n_slots: int = 16  # S
    d_ff: int = 128  # F, inner width of the dense feed-forward layers
    max_len: int = 64  # tokens in one window: an event for RxT, a whole transcript for DecoderLM

    stateless_before: int = 0  # decoder layers without memory, below those that read it
    stateless_after: int = 0  # and above them

    self_heads: tuple[int, int] | None = None  # self-attention of encoder and decoder
    cross_heads: tuple[int, int] | None = None  # tokens reading the slots
    memory_heads: tuple[int, int] | None = None  # slots reading the event
    query_key_norm: bool = False  # RMSNorm of every query and key head (paper: no)
    attention_gate: bool = False  # a sigmoid gate on the heads' output (paper: no)

    n_experts: int = 0  # E in every decoder layer; 0: one dense feed-forward layer
    experts_per_token: int = 2  # k of them are asked for each token
    d_expert: int | None = None  # their inner width; None: d_ff
    expert_bias: str = "local"  # one of EXPERT_BIASES: in each expert (paper), one vector for their sum, none
    shared_experts: int = 0  # experts that every token asks (paper: none)
    weighted_shared_experts: bool = False  # k/(k+s) of the chosen and s/(k+s) of the shared, not 1 and 1

    memory_attention: str = "simple"  # one of MEMORY_ATTENTIONS (paper: interlayer, self_interlayer)
    memory_groups: int = 1  # grouped: so many runs of neighbouring layers, each with a mean of its own
    gate: str = "slot"  # one of GATES (paper: linear)
    gate_activation: str = "sigmoid"  # one of GATE_ACTIVATIONS
    gate_statistic: str = "mean"  # one of GATE_STATISTICS: what elementwise and linear gates know of a slot
    gate_per_slot: bool = True  # static, elementwise, linear: a gate for each slot, or one for all
    initial_slots: str = "learned"  # learned, or fresh N(0, 1) noise for every conversation (paper)
    slot_embeddings: bool = True  # give every slot a name of its own when it asks (paper: no)
    head_norm: bool = True  # RMSNorm before the language-model head (paper: no)

    def __post_init__(self):
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "n_slots", "d_ff", "max_len", "experts_per_token", "memory_groups"):
            self._at_least(1, name)
        for name in ("stateless_before", "stateless_after", "n_experts", "shared_experts"):
            self._at_least(0, name)
        self._check_heads()
        self._check_experts()
        self._check_memory()

    def _at_least(self, least: int, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")

    def _check_heads(self) -> None:
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

    def _check_experts(self) -> None:
        _one_of("expert_bias", self.expert_bias, EXPERT_BIASES)
        if self.d_expert is not None:
            self._at_least(1, "d_expert")
        if self.n_experts and self.experts_per_token > self.n_experts:
            raise ValueError(f"experts_per_token={self.experts_per_token} is more than n_experts={self.n_experts}")
        for name in ("d_expert", "shared_experts", "weighted_shared_experts"):
            if getattr(self, name) and not self.n_experts:
                raise ValueError(f"{name}={getattr(self, name)} needs experts, but n_experts=0 makes the decoder dense; set both or none")
        if self.weighted_shared_experts and not self.shared_experts:
            raise ValueError("weighted_shared_experts=True weighs shared experts, but shared_experts=0; set both or none")

    def _check_memory(self) -> None:
        for name, choices in (("memory_attention", MEMORY_ATTENTIONS), ("gate", GATES), ("gate_activation", GATE_ACTIVATIONS),
                              ("gate_statistic", GATE_STATISTICS), ("initial_slots", INITIAL_SLOTS)):
            _one_of(name, getattr(self, name), choices)
        if self.memory_groups > 1 and self.memory_attention != "grouped":
            raise ValueError(f'memory_groups={self.memory_groups} is for memory_attention="grouped" only, not {self.memory_attention!r}')
        if self.n_layers % self.memory_groups:
            raise ValueError(f"n_layers={self.n_layers} does not split into memory_groups={self.memory_groups} equal groups")
        for name, usual, gates in (
            ("gate_activation", "sigmoid", ("static", "elementwise", "linear", "slot")),
            ("gate_statistic", "mean", ("elementwise", "linear")),
            ("gate_per_slot", True, ("static", "elementwise", "linear")),
        ):
            value = getattr(self, name)
            if value != usual and self.gate not in gates:
                raise ValueError(f"{name}={value!r} has no meaning with gate={self.gate!r}; it is for {', '.join(gates)}")

    def heads(self, place: str) -> tuple[int, int]:
        """(query heads, key-value heads) of the attention at `place`: "self", "cross" or "memory"."""
        return getattr(self, f"{place}_heads") or (self.n_heads, self.n_heads)

    @property
    def d_head(self) -> int:  # K
        return self.d_model // self.n_heads

    @property
    def n_decoder_layers(self) -> int:
        return self.stateless_before + self.n_layers + self.stateless_after


@dataclass(frozen=True, kw_only=True)
class MemNetConfig(ModelConfig):
    """Shape of a MemNet: of a ModelConfig it uses V, D, H, L (layers of the controller), S (slots of its one bank), F and max_len.

    Where a default differs from the public description, `MEMNET_AS_DESCRIBED` has the description's choice.
    """

    bank_heads: int = 4  # heads that read and write the bank
    top_k: int = 8  # slots that a head may look at
    d_bottleneck: int = 32  # what a value is squeezed through before it is written
    window: int | None = None  # tokens the controller sees, itself included; None: all of them
    write_policy: str = "priority"  # one of WRITE_POLICIES
    write_gate: str = "learned"  # one of WRITE_GATES: open writes everything
    erase: str = "feature"  # one of ERASES: a learned number for each feature, one for the whole slot, or 1: what is written replaces
    separate_keys: bool = True  # a slot is found by its key; if not, by its value
    decay: float | None = 0.999  # what is left of a slot after one idle step, where learning starts; None: it never fades
    renormalise: bool = False  # give every slot length 1 after every write: then nothing fades, whatever `decay` says
    read_refreshes: bool = False  # reading a slot makes it young again

    def __post_init__(self):
        super().__post_init__()
        for name in ("bank_heads", "top_k", "d_bottleneck"):
            self._at_least(1, name)
        for name, choices in (("write_policy", WRITE_POLICIES), ("write_gate", WRITE_GATES), ("erase", ERASES)):
            _one_of(name, getattr(self, name), choices)
        if self.window is not None:
            self._at_least(1, "window")
        if self.decay is not None and not 0 < self.decay < 1:
            raise ValueError(f"decay={self.decay} must lie between 0 and 1, or be None for slots that never fade")
        if self.bank_heads > self.n_slots:
            raise ValueError(f"bank_heads={self.bank_heads} write to different slots, but n_slots={self.n_slots} are too few")


# The conventions of the published models (reference: RxT-Alpha cards, arXiv 2510.03561): use as
# ModelConfig(**PAPER, d_model=...).
PAPER = {
    "query_key_norm": False,
    "attention_gate": False,
    "expert_bias": "local",
    "shared_experts": 0,
    "memory_attention": "interlayer",
    "gate": "linear",
    "gate_activation": "sigmoid",
    "gate_statistic": "mean",
    "gate_per_slot": True,
    "initial_slots": "gaussian",
    "slot_embeddings": False,
    "head_norm": False,
}

TINY = ModelConfig()  # tests, first examples
BOOK = ModelConfig(vocab_size=767, d_model=128, n_layers=2, n_slots=16, d_ff=256, max_len=48)  # the small world
STORY = ModelConfig(vocab_size=1024, d_model=96, n_layers=2, n_slots=32, d_ff=256, max_len=112)  # real stories

# The paper's models, sizes from their cards; a test holds them to the published parameter counts.
_HALF = {"self_heads": (4, 4), "cross_heads": (4, 4), "memory_heads": (4, 4)}  # sparse-query attention with half of 8 heads
NANO_12M = ModelConfig(**PAPER, **_HALF, vocab_size=7500, d_model=128, n_heads=8, n_layers=6, n_slots=256, d_ff=384, max_len=256,
                       n_experts=12, experts_per_token=2, d_expert=256)
MICRO_26M = replace(NANO_12M, n_layers=10, n_experts=20, experts_per_token=4, memory_attention="self_interlayer")
MINI_100M = replace(MICRO_26M, vocab_size=10_000, d_model=256, n_heads=16, n_layers=8, n_slots=1024, d_ff=768, max_len=1024,
                    self_heads=(8, 8), cross_heads=(8, 8), memory_heads=(8, 8), n_experts=16, experts_per_token=2, d_expert=512)
STATELESS_22M = replace(MICRO_26M, max_len=4096)  # for DecoderLM: Micro's decoder without memory, a window for the transcript

# As large as models that were announced without their shapes; these shapes are ours, good for counting costs.
_LARGE = replace(MINI_100M, memory_attention="grouped", memory_groups=4, gate="slot", experts_per_token=4, shared_experts=1)
SHAPE_270M = replace(_LARGE, vocab_size=32_000, d_model=512, n_layers=12, d_ff=1536, n_experts=18)
SHAPE_1B = replace(_LARGE, vocab_size=32_000, d_model=1024, n_layers=16, d_ff=3072, n_experts=16, d_expert=768)
SHAPE_4B = replace(_LARGE, vocab_size=65_536, d_model=1536, n_heads=24, self_heads=(12, 4), cross_heads=(12, 4),
                   memory_heads=(12, 4), n_layers=24, n_slots=4096, d_ff=4096, n_experts=34, d_expert=768)

# MemNet for the small world, and with the sizes and choices of its public description (github.com/Ant1pozitive/memory-is-all-you-need):
# one tensor is key and value, content decides where to write, the controller sees everything, a slot is renormalised when written.
MEMNET = MemNetConfig(vocab_size=767, d_model=64, n_layers=2, n_slots=32, d_ff=128, max_len=48, bank_heads=2, top_k=32, write_policy="lru")
MEMNET_AS_DESCRIBED = MemNetConfig(vocab_size=20, d_model=128, n_heads=8, n_layers=4, n_slots=128, d_ff=512, max_len=160, bank_heads=8,
                                   top_k=16, d_bottleneck=64, write_policy="content", erase="slot", separate_keys=False, decay=0.99,
                                   renormalise=True, read_refreshes=True)

PRESETS = {
    "tiny": TINY, "book": BOOK, "story": STORY, "nano_12m": NANO_12M, "micro_26m": MICRO_26M, "mini_100m": MINI_100M,
    "stateless_22m": STATELESS_22M, "shape_270m": SHAPE_270M, "shape_1b": SHAPE_1B, "shape_4b": SHAPE_4B,
}

MEMNETS = {"memnet": MEMNET, "memnet_as_described": MEMNET_AS_DESCRIBED}


def preset(name: str) -> ModelConfig:
    """The preset called `name`, or one clear error."""
    known = PRESETS | MEMNETS
    _one_of("preset", name, tuple(known))
    return known[name]
