"""What runs in the student's kernel beside the student's code: `probe`, and a look at whether the kernel is still as it was.

Both are text that the grader sends. Neither knows an expected value, so whoever patches them can only lose.
"""

MIME = "application/vnd.rxt.probe+json"
SENTINEL = "application/vnd.rxt.sentinel+json"

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
        return {"an object of type": type(x).__name__}

    for name, value in values.items():
        publish_display_data({"%s": {"name": name, "json": json.dumps(plain(value))}})
''' % MIME

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
    import builtins, gc, os, random, signal, sys, threading
    from IPython.display import publish_display_data
    shell = get_ipython()

    def same(names):
        return hash(tuple(sorted((str(name), id(value)) for name, value in names.items()
                          if callable(value) and not str(name).endswith(("hook", "hook__")))))

    seen = {"builtins": same(vars(builtins)) ^ id(vars(builtins).get("print"))}
    for name in ("json", "math", "random", "time", "os", "sys", "numpy", "numpy.linalg", "numpy.random", "torch", "torch.linalg",
                 "torch.nn", "torch.nn.functional", "IPython.display"):
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
                     same(vars(type(shell))), same(vars(shell)), id(shell.display_pub), same(vars(shell.kernel)),
                     [len(calls) for calls in shell.events.callbacks.values()]]
    seen["signals"] = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGALRM, signal.SIGTERM)]
    seen["timers"] = [signal.getitimer(which)[0] > 0 for which in (0, 1, 2)]
    seen["threads"] = len(threading.enumerate())
    seen["path"] = [os.getcwd(), *sys.path, *map(str, map(type, sys.meta_path))]
    seen["environment"] = hash(tuple(sorted(os.environ.items())))
    seen["names"] = [id(shell.user_ns.get(name)) for name in %r]
    publish_display_data({"%s": {name: repr(value)[:400] for name, value in seen.items()}})
_look(); del _look
'''


def look(names: list[str]) -> str:
    """The text that looks, also at `names`: those that the lab's own cells define."""
    return LOOK % (names, SENTINEL)
