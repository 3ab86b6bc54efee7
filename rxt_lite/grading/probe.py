"""What runs in the student's kernel beside the student's code: `probe`, and a look at whether the kernel is still as it was.

Both are text that the grader sends. Neither knows an expected value, so whoever patches them can only lose.
"""

MIME = "application/vnd.rxt.probe+json"
SENTINEL = "application/vnd.rxt.sentinel+json"
UNKNOWN = "an object of type"

# Sent before every hidden check: `probe(name=value)` publishes plain JSON, never an object.
PROBE = '''
def probe(**values):
    import json
    import numpy
    from IPython.display import publish_display_data

    def plain(x, depth=0):
        if depth > 20:
            return {"deeper than": depth}
        if x is None or isinstance(x, (bool, int, float, str)):
            return x
        if hasattr(x, "detach"):
            x = x.detach().cpu()
        if hasattr(x, "tolist"):
            return plain(x.tolist(), depth + 1)
        if isinstance(x, dict):
            return {str(key): plain(value, depth + 1) for key, value in x.items()}
        if isinstance(x, (list, tuple, range)):
            return [plain(value, depth + 1) for value in x]
        if isinstance(x, (set, frozenset)):
            return sorted((plain(value, depth + 1) for value in x), key=repr)
        return {"%s": type(x).__name__}

    for name, value in values.items():
        publish_display_data({"%s": {"name": name, "json": json.dumps(plain(value))}})
''' % (UNKNOWN, MIME)

# Before the first cell: nobody is there to answer input(), and nothing written beside the notebook is imported.
START = """
get_ipython().kernel.raw_input = lambda prompt="": ""
get_ipython().kernel.getpass = lambda prompt="", stream=None: ""
import sys
sys.path[:] = [folder for folder in sys.path if folder]
del sys
"""

# What cells of a notebook share and one of them may spoil for the others: each line is compared before and after a cell.
LOOK = '''
def _look():
    import builtins, gc, os, random, resource, signal, sys, threading, warnings
    from IPython.display import publish_display_data
    shell = get_ipython()

    def same(names, constants=True):
        """Functions by identity and code, constants by value."""
        found = []
        for name, value in names.items():
            if callable(value) and not str(name).endswith(("hook", "hook__")):
                found.append((str(name), id(value), id(getattr(value, "__code__", None))))
            elif constants and isinstance(value, (int, float, str)) and not str(name).startswith("_"):
                found.append((str(name), 0, hash(value)))
        return hash(tuple(sorted(found)))

    def content(value):
        """Of what the lab's own cells define: what a cell may change in it without binding the name anew."""
        if isinstance(value, (type, type(os))):
            return same(vars(value))
        if hasattr(value, "state_dict"):
            return [content(part) for part in value.state_dict().values()]
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        if hasattr(value, "tobytes"):
            return hash(value.tobytes()) if value.nbytes < 10**7 else 0
        if isinstance(value, (list, tuple, dict, set)):
            return hash(repr(value)[:100_000]) if len(value) < 10_000 else len(value)
        return id(getattr(value, "__code__", None))

    seen = {"builtins": same(vars(builtins)) ^ id(vars(builtins).get("print"))}
    for name in ("json", "math", "random", "time", "os", "sys", "numpy", "numpy.linalg", "numpy.random", "torch", "torch.linalg",
                 "torch.nn", "torch.nn.functional", "torch.optim", "itertools", "functools", "copy", "statistics", "IPython.display"):
        if name in sys.modules:
            seen[name] = same(vars(sys.modules[name]))
    torch = sys.modules.get("torch")
    if torch is not None:
        for kind in (torch.Tensor, torch.nn.Module, torch.nn.Linear):
            seen[kind.__name__] = same(vars(kind))
        seen["torch settings"] = (str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.get_num_threads(),
                                  torch.are_deterministic_algorithms_enabled(), str(torch.get_default_device()))
    seen["streams"] = [str(type(x)) for x in (sys.stdout, sys.stderr, sys.displayhook, sys.excepthook)] + [sys.getrecursionlimit()]
    seen["tracing"] = [sys.gettrace() is None, sys.getprofile() is None, gc.isenabled()]
    lines = shell.input_transformer_manager
    seen["shell"] = [len(shell.ast_transformers), len(shell.input_transformers_post), len(lines.cleanup_transforms),
                     len(lines.line_transforms), len(lines.token_transformers),
                     same(vars(type(shell))), same(vars(shell), False), id(shell.display_pub), same(vars(shell.kernel), False),
                     [len(calls) for calls in shell.events.callbacks.values()]]
    seen["signals"] = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGALRM, signal.SIGTERM)]
    seen["timers"] = [signal.getitimer(which)[0] > 0 for which in (0, 1, 2)]
    seen["threads"] = len(threading.enumerate())
    seen["path"] = [os.getcwd(), *sys.path, *map(str, map(type, sys.meta_path))]
    seen["environment"] = hash(tuple(sorted(os.environ.items())))
    if "numpy" in sys.modules:
        seen["numpy settings"] = sorted(sys.modules["numpy"].geterr().items())
    seen["warnings"] = sum(line[0] == "error" for line in warnings.filters)
    seen["limits"] = hash(tuple(resource.getrlimit(which) for which in range(16)))
    for name in %r:
        value = shell.user_ns.get(name)
        try:
            seen["name " + name] = [id(value), content(value)]
        except Exception as error:
            seen["name " + name] = [id(value), type(error).__name__]
    publish_display_data({"%s": {name: repr(value)[:400] for name, value in seen.items()}})
_look(); del _look
'''


def look(names: list[str]) -> str:
    """The text that looks, also at `names`: those that the lab's own cells define."""
    return LOOK % (names, SENTINEL)
