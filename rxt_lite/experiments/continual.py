"""Continual learning: one task after the other, and what is left of the earlier ones.

    permuted   5 tasks of all ten digits, the pixels of each task in an order of their own          the inputs change
    split      5 tasks of two digits each, answered among all ten                                   the answers change
    pairs      5 tasks of twenty random patterns with a label each, seen with noise                 everything is new

Digits are the 1,797 images of 8 x 8 points that come with scikit-learn (UCI optical recognition of handwritten digits). After each
task the model is tested on all of them: R[i, j] is the accuracy on task j after learning task i, b[j] before learning anything.

    ACC         mean over j of R[T-1, j]
    BWT         mean over the T - 1 first tasks of R[T-1, j] - R[j, j]                 < 0: forgotten
    FWT         mean over the T - 1 last tasks of R[j-1, j] - b[j]                     what earlier tasks have taught for a new one
    forgetting  mean over the T - 1 first tasks of max over i < T-1 of R[i, j] - R[T-1, j]

(Lopez-Paz and Ranzato, arXiv 1706.08840; forgetting: Chaudhry et al., arXiv 1801.10112. Both average over T - 1 tasks; code in
circulation divides by T. Forward transfer means nothing where the answers change.) The arms:

    naive        a network, one task after the other
    replay       the same; the loss on as many examples from a reservoir of 200 is added to that on each batch
    joint        the same, at task i all tasks up to i at once: the upper bound
    ewc          the same, with a penalty on moving weights that mattered (Kirkpatrick et al., arXiv 1612.00796)
    lstm         reads an image row by row
    transformer  the controller of MemNet, reads an image row by row
    memnet       the network of `naive` beside a memory bank of 200 slots that outlives the tasks: a reservoir
    memnet, last   the same with a bank that keeps the last 200
    memnet, off  `memnet`, answering from its network alone

MemNet's bank holds images as keys and labels as values. A network that goes on learning would make keys stale, so here the keys
are the images themselves, each less its own mean: their cosine is a correlation. Where the key most like an image is like it, with
a cosine above 0.5, the bank answers; else the network does. That gate and that choice are rules, not learned: what is shown is what
a bank that persists is worth, and that it is worth as much as its policy for forgetting. (Log: writing what the bank gets wrong
fills it with the last two tasks.)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import MemNetConfig
from rxt_lite.layers.memory_bank import MultiHeadMemoryBank, Wish, sparse_softmax
from rxt_lite.models.memnet import TransformerController

LABELS, SIDE = 10, 8
PIXELS = SIDE * SIDE
Data = tuple[Tensor, Tensor]  # images (M, 64), labels (M)


@dataclass(frozen=True)
class Split:
    """One task: what is learned from and what is tested on."""

    train: Data
    test: Data


# ------------------------------------------------------------------------------------------------ streams
def digits(seed: int) -> Split:
    """All images, points from 0 to 1; a fifth of them held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, rest = order[: len(x) // 5], order[len(x) // 5 :]
    return Split((x[rest], y[rest]), (x[held], y[held]))


def permuted(seed: int, tasks: int = 5) -> list[Split]:
    generator, whole = torch.Generator().manual_seed(seed), digits(seed)
    orders = [torch.arange(PIXELS)] + [torch.randperm(PIXELS, generator=generator) for _ in range(tasks - 1)]
    return [Split(*((x[:, order], y) for x, y in (whole.train, whole.test))) for order in orders]


def split(seed: int, tasks: int = 5) -> list[Split]:
    whole, each = digits(seed), LABELS // tasks
    of = lambda data, task: tuple(part[data[1] // each == task] for part in data)  # noqa: E731
    return [Split(of(whole.train, task), of(whole.test, task)) for task in range(tasks)]


def pairs(seed: int, tasks: int = 5, patterns: int = 20, examples: int = 300, noise: float = 0.5) -> list[Split]:
    generator = torch.Generator().manual_seed(seed)

    def some(keys: Tensor, labels: Tensor, n: int) -> Data:
        which = torch.randint(patterns, (n,), generator=generator)
        return keys[which] + noise * torch.randn(n, PIXELS, generator=generator), labels[which]

    stream = []
    for _ in range(tasks):
        keys, labels = torch.randn(patterns, PIXELS, generator=generator), torch.randint(LABELS, (patterns,), generator=generator)
        stream.append(Split(some(keys, labels, examples), some(keys, labels, examples)))
    return stream


STREAMS: dict[str, Callable[[int], list[Split]]] = {"permuted": permuted, "split": split, "pairs": pairs}


# ------------------------------------------------------------------------------------------------ measures
def measures(R: Tensor, before: Tensor) -> dict[str, float]:
    """{"acc", "bwt", "fwt", "forgetting"} of accuracies R (T, T) and those of an untrained model (T).

    >>> R = torch.tensor([[0.9, 0.1], [0.5, 0.8]])
    >>> {name: round(value, 2) for name, value in measures(R, torch.tensor([0.1, 0.2])).items()}
    {'acc': 0.65, 'bwt': -0.4, 'fwt': -0.1, 'forgetting': 0.4}
    """
    T = len(R)
    if T < 2:
        raise ValueError("one task alone is never forgotten: backward and forward transfer need at least two")
    final, own = R[-1], R.diagonal()
    return {"acc": final.mean().item(), "bwt": (final - own)[:-1].mean().item(),
            "fwt": (R.diagonal(1) - before[1:]).mean().item(),
            "forgetting": (R[:-1, :-1].amax(0) - final[:-1]).mean().item()}


# ------------------------------------------------------------------------------------------------ networks
def network(width: int = 64) -> nn.Module:
    return nn.Sequential(nn.Linear(PIXELS, width), nn.ReLU(), nn.Linear(width, LABELS))


class RowLSTM(nn.Module):
    """Images (M, 64) as eight rows -> logits (M, 10)."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.lstm = nn.LSTM(SIDE, width, batch_first=True)
        self.head = nn.Linear(width, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.unflatten(1, (SIDE, SIDE)))[0][:, -1])


class RowTransformer(nn.Module):
    """The same with MemNet's controller, which sees all rows and has no bank."""

    def __init__(self, width: int = 32):
        super().__init__()
        config = MemNetConfig(d_model=width, n_heads=2, n_layers=2, d_ff=64, max_len=SIDE, n_slots=4)
        self.embed, self.controller, self.head = nn.Linear(SIDE, width), TransformerController(config), nn.Linear(width, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.controller(self.embed(x.unflatten(1, (SIDE, SIDE))))[:, -1])


class Learner:
    """Learns one task after the other by plain gradient descent: the arm `naive`, which the others change."""

    off = False  # has it a memory that can be taken away?

    def __init__(self, make: Callable[[], nn.Module] = network, *, lr: float = 0.1, epochs: int = 15, batch_size: int = 10, seed: int = 0):
        torch.manual_seed(seed)
        self.model, self.lr, self.epochs, self.batch_size = make(), lr, epochs, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def learn(self, tasks: Sequence[Split]) -> None:
        """The last of `tasks`, which are all that there have been."""
        x, y = tasks[-1].train
        optimizer = self.optimizer()
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x), generator=self.generator).split(self.batch_size):
                optimizer.zero_grad()
                self.loss(x[rows], y[rows]).backward()
                optimizer.step()

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=self.lr)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x), y)

    @torch.no_grad()
    def answer(self, x: Tensor, memory: bool = True) -> Tensor:
        """Labels (M) of images (M, 64)."""
        return self.model(x).argmax(-1)


class ByRows(Learner):
    """Networks that read rows learn with Adam: plain gradient descent hardly moves them."""

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=3e-3)


class Joint(Learner):
    def learn(self, tasks: Sequence[Split]) -> None:
        together = Split(tuple(torch.cat(part) for part in zip(*(task.train for task in tasks))), tasks[-1].test)
        super().learn([together])


class Replay(Learner):
    """A reservoir: of everything seen so far, `kept` examples, each as likely as any other (Vitter 1985)."""

    def __init__(self, *args, kept: int = 200, **how):
        super().__init__(*args, **how)
        self.kept, self.seen = kept, 0
        self.x, self.y = torch.zeros(0, PIXELS), torch.zeros(0, dtype=torch.long)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if not len(self.x):
            return super().loss(x, y)
        rows = torch.randint(len(self.x), (len(x),), generator=self.generator)
        return super().loss(x, y) + super().loss(self.x[rows], self.y[rows])

    def learn(self, tasks: Sequence[Split]) -> None:
        super().learn(tasks)
        for x, y in zip(*tasks[-1].train):
            self.seen += 1
            if len(self.x) < self.kept:
                self.x, self.y = torch.cat([self.x, x[None]]), torch.cat([self.y, y[None]])
            elif (place := int(torch.randint(self.seen, (), generator=self.generator))) < self.kept:
                self.x[place], self.y[place] = x, y


class EWC(Learner):
    """Elastic weight consolidation: after each task, weights are held where the task's squared gradients are large.

    Gradient descent swings ever further where learning rate x strength x a weight's summed importance exceeds 2: at 30 it did.
    """

    def __init__(self, *args, strength: float = 5.0, **how):
        super().__init__(*args, **how)
        self.strength, self.held = strength, []  # (weights, importance) of each task

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = super().loss(x, y)
        for weights, importance in self.held:
            moved = sum((i * (p - w).pow(2)).sum() for p, w, i in zip(self.model.parameters(), weights, importance))
            loss = loss + self.strength / 2 * moved
        return loss

    def learn(self, tasks: Sequence[Split]) -> None:
        super().learn(tasks)
        x, importance = tasks[-1].train[0], [torch.zeros_like(p) for p in self.model.parameters()]
        for image in x:  # one at a time: the square of a mean gradient is not the mean of squares
            logits = self.model(image)  # and its own answer, not the true one: Fisher's information
            label = torch.multinomial(logits.detach().softmax(-1), 1, generator=self.generator)[0]
            for i, gradient in zip(importance, torch.autograd.grad(F.cross_entropy(logits, label), list(self.model.parameters()))):
                i += gradient.pow(2) / len(x)
        self.held.append(([p.detach().clone() for p in self.model.parameters()], importance))


class WithBank(Learner):
    """The naive network and a bank of `slots` that outlives the tasks. Of everything seen it keeps each example with the same
    probability (`keep="reservoir"`), or the last ones (`keep="last"`)."""

    def __init__(self, *args, slots: int = 200, keep: str = "reservoir", sharpness: float = 30.0, trust: float = 0.5, **how):
        super().__init__(*args, **how)
        config = MemNetConfig(d_model=PIXELS, n_slots=slots, bank_heads=1, top_k=3, write_policy="lru", decay=None)
        self.bank, self.keep, self.sharpness, self.trust, self.seen = MultiHeadMemoryBank(config), keep, sharpness, trust, 0
        self.off = keep == "reservoir"
        empty = self.bank.first_slots(1)
        self.slots = empty._replace(keys=torch.zeros_like(empty.keys))  # an empty slot is like no image

    @staticmethod
    def key_of(x: Tensor) -> Tensor:
        """Images (M, 64) less the mean of each: a cosine of two such is a correlation, and grey paper is like nothing."""
        return x - x.mean(-1, keepdim=True)

    @torch.no_grad()
    def recall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the bank says of images (M, 64): shares of labels (M, 10), and the cosine of the key most like each (M)."""
        cosines = self.bank.cosines(self.key_of(x).unsqueeze(0), self.slots)[0]  # (M, N)
        weights = sparse_softmax(self.sharpness * cosines, self.bank.config.top_k)
        return weights @ self.slots.values[0, :, :LABELS], cosines.amax(-1)

    @torch.no_grad()
    def answer(self, x: Tensor, memory: bool = True) -> Tensor:
        net = self.model(x).softmax(-1)
        if not memory:
            return net.argmax(-1)
        shares, like = self.recall(x)
        return torch.where(like.unsqueeze(-1) > self.trust, shares, net).argmax(-1)

    def learn(self, tasks: Sequence[Split]) -> None:
        super().learn(tasks)
        with torch.no_grad():
            for x, y in zip(*tasks[-1].train):  # each image once
                self.remember(x, y)

    def remember(self, x: Tensor, y: Tensor) -> None:
        """The image is the key, its label the value; all of a slot is written, or nothing."""
        N, self.seen = self.bank.config.n_slots, self.seen + 1
        place = self.seen - 1  # while slots are empty, the next
        if self.seen > N:
            place = int(torch.randint(self.seen, (), generator=self.generator)) if self.keep == "reservoir" else place % N
        if place < N:  # else the gate stays closed
            value = F.one_hot(y, PIXELS).float().view(1, 1, -1)
            wish = Wish(self.key_of(x).view(1, 1, -1), value, torch.ones(1, 1), torch.ones(1, 1, PIXELS))
            self.slots = self.bank.put(self.slots, wish, F.one_hot(torch.tensor([[place]]), N).float())


ARMS: dict[str, Callable[..., Learner]] = {
    "naive": Learner, "replay": Replay, "joint": Joint, "ewc": EWC,
    "lstm": partial(ByRows, RowLSTM), "transformer": partial(ByRows, RowTransformer), "memnet": WithBank,
    "memnet, last": partial(WithBank, keep="last"),
}


# ------------------------------------------------------------------------------------------------ rows
def accuracy(learner: Learner, tasks: Sequence[Split], memory: bool = True) -> Tensor:
    """On the held-out images of each task, (T)."""
    return torch.stack([(learner.answer(task.test[0], memory) == task.test[1]).float().mean() for task in tasks])


def continual_rows(streams: Sequence[str] = tuple(STREAMS), arms: Sequence[str] = tuple(ARMS), seeds: Sequence[int] = (0, 1, 2),
                   epochs: int = 15) -> Iterator[dict]:
    """Rows {"table": "matrix", "stream", "arm", "seed", "after", "task", "accuracy"} and
    {"table": "measures", "stream", "arm", "seed", "acc", "bwt", "fwt", "forgetting"}."""
    for stream in streams:
        if stream not in STREAMS:
            raise ValueError(f"unknown stream {stream!r}; choose from {', '.join(STREAMS)}")
        for seed in seeds:
            tasks = STREAMS[stream](seed)
            for arm in arms:
                if arm not in ARMS:
                    raise ValueError(f"unknown arm {arm!r}; choose from {', '.join(ARMS)}")
                learner = ARMS[arm](epochs=epochs, seed=seed)
                yield from arm_rows(learner, tasks, {"stream": stream, "arm": arm, "seed": seed})


def arm_rows(learner: Learner, tasks: Sequence[Split], about: dict) -> Iterator[dict]:
    """Learn all tasks; the rows of an arm, and where it has a memory those of the same without it, called "ARM, off"."""
    sides = {about["arm"]: True} | ({f"{about['arm']}, off": False} if learner.off else {})
    before = {arm: accuracy(learner, tasks, memory) for arm, memory in sides.items()}
    R = {arm: [] for arm in sides}
    for n in range(len(tasks)):
        learner.learn(tasks[: n + 1])
        for arm, memory in sides.items():
            R[arm].append(accuracy(learner, tasks, memory))
    for arm, rows in R.items():
        matrix = torch.stack(rows)
        for after, of_task in enumerate(matrix.tolist()):
            for task, value in enumerate(of_task):
                yield {"table": "matrix", **about, "arm": arm, "after": after, "task": task, "accuracy": value}
        yield {"table": "measures", **about, "arm": arm, **measures(matrix, before[arm])}
