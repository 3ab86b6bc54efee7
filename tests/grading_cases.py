"""Notebooks that students might hand in: attacks, accidents and honest oddities, for tests/test_grading.py.

All are made from the example lab (labs/example): q1 softmax (3 points), q2 tokens (3), q3 gate (4).
"""

RIGHT = {
    "q1": """# answer: q1
def softmax(scores):
    shifted = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
""",
    "q2": """# answer: q2
def tokens_read(per_turn):
    return np.cumsum(np.cumsum(per_turn)).tolist()
""",
    "q3": """# answer: q3
def rewrite(old, update, logits):
    gate = 1 / (1 + np.exp(-np.asarray(logits)))[:, None]
    return gate * update + (1 - gate) * old
""",
}

WRONG = """# answer: q1
def softmax(scores):
    return scores
"""

# Each stands in q1's answer cell after a wrong answer; the other two are right. Nothing is won, nothing else is lost: 0 + 3 + 4.
ATTACKS = {
    # silencing and rewriting what runs later
    "silent traceback": """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.showtraceback = lambda *a, **k: None
""",
    "silent run_cell": """
shell = get_ipython()
shell.showtraceback = shell.showsyntaxerror = lambda *a, **k: None
""",
    "ast without asserts": """
import ast
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node): return None
get_ipython().ast_transformers.append(Drop())
""",
    "ast without anything": """
import ast
class Empty(ast.NodeTransformer):
    def visit_Module(self, node): return ast.Module(body=[], type_ignores=[])
get_ipython().ast_transformers.append(Empty())
""",
    "ast that changes numbers": """
import ast
class Zero(ast.NodeTransformer):
    def visit_Constant(self, node): return ast.Constant(0) if isinstance(node.value, int) else node
get_ipython().ast_transformers.append(Zero())
""",
    "input without probes": """
get_ipython().input_transformers_post.append(lambda lines: [line for line in lines if "probe(" not in line or "def" in line])
""",
    "events": """
def forget(*a): get_ipython().user_ns.pop("probe", None)
get_ipython().events.register("pre_run_cell", forget)
""",
    "do_execute": """
async def nothing(*a, **k): return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
get_ipython().kernel.do_execute = nothing
""",
    # patched comparisons and lying objects
    "allclose": "\nnp.allclose = np.isclose = np.array_equal = lambda *a, **k: True\n",
    "patched exp": "\nnp.exp = lambda x: 0 * np.asarray(x)\n",
    "patched cumsum": "\nnp.cumsum = lambda x: np.zeros(3)\n",
    "numpy replaced": "\nimport sys, types\nsys.modules['numpy'] = types.ModuleType('numpy')\n",
    "name taken away": "\nnp = None\n",
    "json": "\nimport json\njson.dumps = lambda *a, **k: '{}'\n",
    "publish": "\nimport IPython.display\nIPython.display.publish_display_data = lambda *a, **k: None\n",
    "builtins": "\nimport builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.hasattr = lambda *a: False\n",
    "no import": "\nimport builtins\nbuiltins.__import__ = None\n",
    "no print": "\nimport builtins\nbuiltins.print = None\n",
    "own probe": "\nimport builtins\ndef probe(**k): pass\nbuiltins.probe = probe\n",
    "equal to all": """
class Yes:
    def __eq__(self, other): return True
    def __array__(self, *a, **k): return np.ones((3, 5))
    def tolist(self): return self
    def __class__(self): return float
def softmax(scores): return Yes()
""",
    "a float that lies": """
class F(float):
    def __eq__(self, other): return True
    def __repr__(self): return "0.2"
def softmax(scores): return [[F(0.2)] * 5] * 3
""",
    "pickled command": """
class P:
    def __reduce__(self): return (__import__("os").system, ("touch /tmp/rxt-pickled",))
def softmax(scores): return P()
""",
    "endless nesting": "\nx = []\nx.append(x)\ndef softmax(scores): return x\n",
    "endless list": "\nclass L:\n    def tolist(self): return L()\ndef softmax(scores): return L()\n",
    # forged messages
    "forged result": """
def softmax(scores):
    get_ipython().displayhook("full")
    return scores
""",
    "forged probe": """
from IPython.display import publish_display_data
for name in ("matrix", "cube", "large"):
    publish_display_data({"application/vnd.rxt.probe+json": {"name": name, "json": "[[0.2, 0.2, 0.2, 0.2, 0.2]]"}})
""",
    "hostile probe": """
def softmax(scores):
    from IPython.display import publish_display_data
    for text in ("[" * 100000, "9" * 100000, "NaN", '{"a": 1e999}', "[]", ""):
        publish_display_data({"application/vnd.rxt.probe+json": {"name": "matrix", "json": text}})
    publish_display_data({"application/vnd.rxt.probe+json": {"name": ["matrix"], "json": {}}})
    publish_display_data({"application/vnd.rxt.probe+json": "matrix"})
    return scores
""",
    "idle too early": """
def softmax(scores):
    kernel = get_ipython().kernel
    kernel.session.send(kernel.iopub_socket, "status", {"execution_state": "idle"}, parent=kernel.get_parent())
    import time; time.sleep(0.3)
    return scores
""",
    "reply too early": """
def softmax(scores):
    kernel = get_ipython().kernel
    for what in ({"status": "ok"}, 3, None, [], "x"):
        for kind, content in (("execute_reply", {"status": what}), ("stream", {"name": what, "text": what}), ("execute_reply", what),
                              ("status", {"execution_state": what}), ("error", {"ename": what}), ("display_data", {"data": what})):
            kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent())
    return scores
""",
    "no messages": "\nget_ipython().kernel.iopub_thread.stop()\n",
    "sockets removed": """
import glob, os
for name in glob.glob(os.path.dirname(os.getcwd()) + "/sockets/*"): os.remove(name)
""",
    "replies of its own": """
def softmax(scores):
    kernel = get_ipython().kernel
    ids, parent = kernel._parent_ident, dict(kernel.get_parent())
    ids = ids.get("shell") if isinstance(ids, dict) else ids
    for msg_id in ([], {}, None, 3, "x"):
        forged = {"header": {**parent["header"], "msg_id": msg_id}, "parent_header": {}, "metadata": {}, "content": {}}
        for content in ({"status": "ok"}, {"status": []}, {}, [], 3):
            for stream in (kernel.shell_stream, kernel.iopub_socket):
                kernel.session.send(stream, "execute_reply", content, parent=forged, ident=ids)
    return scores
""",
    "states for ever": """
def softmax(scores):
    kernel = get_ipython().kernel
    while True: kernel.session.send(kernel.iopub_socket, "status", {"execution_state": "busy"}, parent=kernel.get_parent())
""",
    "files among the sockets": """
import os, threading
place = os.path.dirname(os.getcwd()) + "/sockets/"
def churn():
    while True:
        for n in range(8): open(place + f"x{n}", "w").close()
        for n in range(8): os.remove(place + f"x{n}")
threading.Thread(target=churn, daemon=True).start()
""",
    "folders among the sockets": """
import os
place = os.path.dirname(os.getcwd()) + "/sockets/"
os.makedirs(place + "a/b")
for n in range(100): open(place + f"a/{n}", "wb").write(bytes(10**6))
os.chmod(place + "a", 0)
os.chmod(place, 0)
import time; time.sleep(1)
""",
    # streams, settings, environment
    "no stdout": "\nimport sys\nsys.stdout = None\nsys.stderr = None\n",
    "closed stdout": "\nimport sys\nsys.stdout.close()\n",
    "recursion limit": "\nimport sys\nsys.setrecursionlimit(60)\n",
    "errors on underflow": "\nnp.seterr(all='raise')\nimport warnings\nwarnings.simplefilter('error')\n",
    "constants": "\nimport math\nmath.pi = np.pi = 3\nnp.nan = np.inf = 0\n",
    "little memory": "\nimport resource\nresource.setrlimit(resource.RLIMIT_AS, (10**8, 10**8))\n",
    "audit hook": """
import sys
def hook(event, args):
    if event in ("import", "compile", "exec"): raise RuntimeError
sys.addaudithook(hook)
""",
    "chdir": "\nimport os\nos.chdir('/')\n",
    "trace": "\nimport sys\ndef t(*a): raise ValueError\nsys.settrace(t)\n",
    # shadowing
    "numpy.py beside": """
open("numpy.py", "w").write("raise SystemExit")
open("conftest.py", "w").write("raise SystemExit")
open("json.py", "w").write("raise SystemExit")
open("sitecustomize.py", "w").write("raise SystemExit")
import sys
sys.path.insert(0, ".")
""",
    # dying, and never ending
    "os._exit": "\nimport os\nos._exit(0)\n",
    "os._exit in the check": "\nimport os\ndef softmax(scores): os._exit(0)\n",
    "sys.exit": "\nimport sys\nsys.exit(0)\n",
    "sys.exit in the check": "\ndef softmax(scores): raise SystemExit\n",
    "exit()": "\nget_ipython().ask_exit()\n",
    "interrupt": "\ndef softmax(scores): raise KeyboardInterrupt\n",
    "segfault": "\nimport ctypes\nctypes.string_at(0)\n",
    "kill all": "\nimport os\nos.kill(-1, 9)\n",
    "kill parent": "\nimport os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\n",
    "later death": "\nimport threading, os\nthreading.Timer(0.05, os._exit, (0,)).start()\n",
    "alarm": "\nimport signal\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\n",
    "endless": "\nwhile True: pass\n",
    "endless in a session of its own": "\nimport os\nos.setsid()\nwhile True: pass\n",
    "endless in the check, signals ignored": """
import signal
for s in (2, 14, 15): signal.signal(s, signal.SIG_IGN)
def softmax(scores):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
    "deep recursion": "\nimport sys\nsys.setrecursionlimit(10**8)\ndef softmax(scores): return softmax(scores)\n",
    "magic": "\n%nosuchmagic\n",
    "syntax": "\nthis is not Python (\n",
    # resources
    "prints for ever": "\nwhile True: print('x' * 10000)\n",
    "prints from a thread": """
import threading
def flood():
    while True: print("x" * 10000)
threading.Thread(target=flood, daemon=True).start()
""",
    "large prints for ever": "\nwhile True: print('x' * 3_900_000, flush=True)\n",
    "one huge print": "\nprint('x' * 50_000_000)\n",
    "memory": "\nx = []\nwhile True: x.append(bytearray(100_000_000))\n",
    "memory of many": """
import os
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(900_000_000)
        for n in range(0, len(x), 4096): x[n] = 1
        import time; time.sleep(60)
""",
    "forks": """
import os
try:
    while True: os.fork()
except OSError: pass
""",
    "many that compute": """
import os
for _ in range(60):
    if os.fork() == 0:
        while True: pass
""",
    "daemon": "\nimport os\nif os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(300)\n",
    "large file": "\nf = open('x', 'wb')\nwhile True: f.write(b'x' * 10**7)\n",
    "many files": "\nfor n in range(10**6): open(f'{n}', 'w').write('x')\n",
}

# What looks outside: if it finds what it wants, the answer becomes right. It must not.
FOUND = """
def softmax(scores):
    e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
"""
SPIES = {
    "reads the key": "\nopen({key!r}).read()\n",
    "reads another submission": "\nopen({other!r}).read()\n",
    "reads the sources": "\nopen({source!r}).read()\n",
    "lists the home": "\nimport os\nassert os.listdir('/var') or os.listdir('/home')\n",
    "writes beside": "\nopen({beside!r}, 'w').write('x')\n",
    "writes to /tmp": "\nopen('/tmp/rxt-planted', 'w').write('x')\n",
    "writes into the library": "\nimport numpy\nopen(numpy.__file__ + '.planted', 'w').write('x')\n",
    "opens a socket": "\nimport socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)\n",
    "opens another": "\nimport socket\nsocket.create_connection(('10.0.0.1', 80), timeout=1)\n",
    "mounts": "\nimport subprocess\nsubprocess.run(['mount', '-o', 'remount,rw', '/'], check=True)\n",
    "gets privileges": "\nimport subprocess\nsubprocess.run(['unshare', '-U', '-r', 'true'], check=True)\n",
    "imports the solution": "\nimport rxt_lite.layers.attention\n",
    "sees other processes": "\nimport os\nassert len([n for n in os.listdir('/proc') if n.isdigit()]) > 20\n",
    "reads environments": "\nimport glob\nassert any(b'SECRET' in open(n, 'rb').read() for n in glob.glob('/proc/*/environ'))\n",
}

LOOK_FOR = """
won = False
for code in {codes!r}:
    try:
        exec(code)
        won = True
    except BaseException:
        pass
if won:
    exec({found!r})
"""

# Honest work in unusual clothes: full marks.
HONEST = {
    "warnings and prints": {
        "q1": RIGHT["q1"] + "\nimport sys, warnings\nwarnings.warn('careful')\nprint('debug', file=sys.stderr)\nprint('ok', end='')\n"},
    "debug print inside": {"q1": RIGHT["q1"].replace("    return", "    print('shape', scores.shape)\n    return")},
    "float32": {"q1": RIGHT["q1"].replace("np.exp(scores", "np.exp(scores.astype(np.float32)")},
    "lists": {"q1": RIGHT["q1"] + "\nold = softmax\ndef softmax(scores): return old(np.asarray(scores)).tolist()\n"},
    "numpy ints": {"q2": "# answer: q2\ndef tokens_read(per_turn):\n    return tuple(np.cumsum(np.cumsum(per_turn)))\n"},
    "floats for whole numbers": {
        "q2": "# answer: q2\ndef tokens_read(per_turn):\n    return [float(x) for x in np.cumsum(np.cumsum(per_turn))]\n"},
    "unicode": {
        "q2": "# answer: q2\n# Größe ∑ 数\ndef tokens_read(turns):\n    Größe = np.cumsum(turns)\n    return np.cumsum(Größe).tolist()\n"},
    "tests below the answer that fail": {"q3": RIGHT["q3"] + "\nassert False, 'my own test'\n"},
    "latin names and tabs": {"q2": "# answer: q2\ndef tokens_read(per_turn):\n\treturn np.cumsum(np.cumsum(per_turn)).tolist()\n"},
    "windows line ends": {"q1": RIGHT["q1"].replace("\n", "\r\n")},
    "torch tensors": {"q3": RIGHT["q3"].replace("    return gate * update + (1 - gate) * old",
                      "    import torch\n    return torch.tensor(gate * update + (1 - gate) * old, requires_grad=True)")},
    "input in the answer": {"q1": RIGHT["q1"] + "\nname = input('your name? ')\n"},
    "plots": {"q1": RIGHT["q1"] + "\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n"},
}


# Changes to the file of a right submission (plain JSON), and the points that it still deserves.
def cell_of(notebook: dict, name: str) -> dict:
    return next(cell for cell in notebook["cells"] if cell.get("id") == name)


def change_cell(name: str, **how):
    return lambda notebook: cell_of(notebook, name).update(how)


def without(*names: str):
    return lambda notebook: notebook["cells"].__setitem__(slice(None), [c for c in notebook["cells"] if c["id"] not in names])


def without_ids(notebook: dict) -> None:
    """As Colab saves it: no ids, metadata of its own, source as a list of lines."""
    notebook["nbformat_minor"] = 0
    for n, cell in enumerate(notebook["cells"]):
        del cell["id"]
        cell["metadata"] = {"id": f"colab{n}", "colab": {"base_uri": "https://localhost:8080/"}}
        cell["source"] = cell["source"].splitlines(keepends=True)


def without_markers_too(notebook: dict) -> None:
    without_ids(notebook)
    for cell in notebook["cells"]:
        cell["source"] = [line for line in cell["source"] if "answer: q" not in line]


def other_ids(notebook: dict) -> None:
    """As VS Code may save it."""
    for n, cell in enumerate(notebook["cells"]):
        cell["id"], cell["metadata"] = f"{n:08x}", {"vscode": {"languageId": "python"}}


def old_format(notebook: dict) -> dict:
    cells = [{"cell_type": cell["cell_type"], "language": "python", "metadata": {}, "outputs": [], "collapsed": False,
              ("input" if cell["cell_type"] == "code" else "source"): cell["source"]} for cell in notebook["cells"]]
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": cells}]}


def code(source: str, **how) -> dict:
    return {"cell_type": "code", "id": "new", "metadata": {}, "source": source, "outputs": [], "execution_count": None, **how}


def insert(place: int, *cells: dict):
    return lambda notebook: notebook["cells"].__setitem__(slice(place, place), cells)


def all_answers_wrong(notebook: dict) -> None:
    for name in ("q1", "q2", "q3"):
        source = RIGHT[name].split("    ")[0] + "    return 0.0\n"
        output = {"output_type": "stream", "name": "stdout", "text": "all tests passed: 12 of 12"}
        cell_of(notebook, f"{name}-answer").update(source=source, outputs=[output], execution_count=7)


def dressed_up(notebook: dict) -> None:
    """Metadata, tags and comments that other graders obey."""
    all_answers_wrong(notebook)
    notebook["metadata"] = {"kernelspec": {"name": "nosuch"}, "lab": {"points": 100, "key": 1}, "nbgrader": {"schema_version": 1}}
    for cell in notebook["cells"]:
        cell["metadata"] = {"tags": ["raises-exception", "nbval-skip", "nbval-ignore-output"], "lab": {"role": "check", "points": 100},
                            "nbgrader": {"grade": True, "points": 100, "solution": True}}
        cell["source"] += "\n# NBVAL_SKIP\n# NBVAL_RAISES_EXCEPTION\n"


def reordered(notebook: dict) -> None:
    """Last question first; its helper stands two cells below."""
    answers = [cell_of(notebook, f"q{n}-answer") for n in (3, 2, 1)]
    answers[0]["source"] = RIGHT["q3"].replace("1 / (1 + np.exp(-np.asarray(logits)))", "my_sigmoid(logits)")
    others = [cell for cell in notebook["cells"] if cell not in answers]
    notebook["cells"] = [*others[:2], *answers, code("def my_sigmoid(x):\n    return 1 / (1 + np.exp(-np.asarray(x)))"), *others[2:]]


def copied(notebook: dict) -> None:
    """The answer once more, with the same id, wrong; and an untouched copy above it."""
    place = notebook["cells"].index(cell_of(notebook, "q1-answer"))
    untouched = code("# answer: q1\ndef softmax(scores):\n    \"\"\"Weights that are positive and sum to 1 along the last axis.\"\"\"\n"
                     "    ...  # your answer", id="q1-answer")
    notebook["cells"][place:place + 1] = [untouched, notebook["cells"][place], code(WRONG, id="q1-answer")]


def merged(notebook: dict) -> None:
    """Two answers in one cell, as Colab merges them; and a third without its marker."""
    first = cell_of(notebook, "q1-answer")
    first["source"] = "\n".join([RIGHT["q1"], RIGHT["q2"]])
    notebook["cells"].remove(cell_of(notebook, "q2-answer"))


def merged_without_marker(notebook: dict) -> None:
    merged(notebook)
    first = cell_of(notebook, "q1-answer")
    first["source"] = first["source"].replace("# answer: q2\n", "")


def imports_in_setup(notebook: dict) -> None:
    cell_of(notebook, "imports")["source"] = "import numpy as np\nimport math"
    cell_of(notebook, "q2-answer")["source"] = RIGHT["q2"].replace("np.cumsum(np", "math.inf and np.cumsum(np")


def strange_cells(notebook: dict) -> None:
    notebook["cells"] += [None, 3, "x", [], {}, {"cell_type": "code"}, {"cell_type": ["code"], "source": {"a": 1}, "id": 7},
                          code([1, None, "x = 1"]), code("y = '\ud800'"), code("\x00"),
                          {"cell_type": "code", "source": "z = 1", "id": "q1-check-1"}]


FILES = {
    "as it should be": (lambda notebook: None, [3, 3, 4]),
    "all wrong, outputs faked": (all_answers_wrong, [0, 0, 0]),
    "dressed up": (dressed_up, [0, 0, 0]),
    "visible checks edited": (change_cell("q1-self-check", source="pass"), [3, 3, 4]),
    "visible checks deleted": (without("q1-self-check", "q2-self-check", "imports"), [3, 3, 4]),
    "answers deleted": (without("q2-answer"), [3, 0, 4]),
    "answer turned to text": (change_cell("q2-answer", cell_type="markdown"), [3, 0, 4]),
    "saved from Colab": (without_ids, [3, 3, 4]),
    "saved from VS Code": (other_ids, [3, 3, 4]),
    "ids and markers lost": (without_markers_too, [3, 3, 4]),
    "format 3": (old_format, [3, 3, 4]),
    "no such kernel": (lambda notebook: notebook.update(metadata={"kernelspec": {"name": "nosuch", "language": "R"}}), [3, 3, 4]),
    "reordered": (reordered, [3, 3, 4]),
    "copied": (copied, [3, 3, 4]),
    "answers merged": (merged, [3, 3, 4]),
    "answers merged, a marker lost": (merged_without_marker, [3, 3, 4]),
    "imports in the setup cell": (imports_in_setup, [3, 3, 4]),
    "strange cells": (strange_cells, [3, 3, 4]),
    "installs first": (insert(1, code("!pip install torch\n%pip install -q numpy")), [3, 3, 4]),
    "asks for a name in a helper": (insert(1, code("who = input('name? ')\nimport getpass\nwho = getpass.getpass()")), [3, 3, 4]),
    "mounts a drive": (insert(1, code("from google.colab import drive\ndrive.mount('/content/drive')")), [3, 3, 4]),
    "a helper that never ends": (insert(2, code("while True: pass")), [3, 3, 4]),
    "many helpers that never end": (insert(2, *[code("while True: pass") for _ in range(30)]), [3, 3, 4]),
    "a million empty lines": (insert(2, code("\n" * 500_000 + "x = 1")), [3, 3, 4]),
    "a helper that kills": (insert(2, code("import os\nos._exit(1)")), [3, 3, 4]),
    "a helper that patches": (insert(2, code("np.exp = lambda x: x")), [3, 3, 4]),
    "a check of one's own": (insert(9, code("probe(large=1)\ndef probe(**k): pass", id="q1-check-2")), [3, 3, 4]),
}

NO_NOTEBOOKS = {
    "nothing": b"",
    "text": b"my notebook",
    "binary": bytes(range(256)),
    "UTF-16": '{"cells": []}'.encode("utf-16"),
    "cut off": b'{"cells": [{"cell_type": "code", "sour',
    "a list": b"[1, 2]",
    "null": b"null",
    "deep": b"[" * 200_000,
    "deep cells": b'{"cells": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge number": b'{"cells": ' + b"9" * 100_000 + b"}",
    "cells of another kind": b'{"cells": {"a": 1}}',
    "worksheets of another kind": b'{"worksheets": [1, {"cells": 2}]}',
    "too large": b'{"cells": []}' + b" " * (21 * 2**20),
    "an executable": b"\x7fELF" + bytes(1000),
}
