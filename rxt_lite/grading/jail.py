"""Where untrusted code runs: Linux namespaces with a read-only world, or plain limits where those are not to be had.

    namespaces   a root of its own that holds Python, the libraries and one empty folder; no network; no other process;
                 no privileges; limits on memory, processes, file size and disk
    limits       the same limits and an empty folder, but the files and the network of the machine

`Jail().level` says which of the two this machine gives: it is tried, not guessed. jail.sh does the work.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SCRIPT = Path(__file__).with_name("jail.sh").read_text()
LEVELS = ("namespaces", "limits")
SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/sbin", "/usr", "/etc/alternatives", "/etc/fonts", "/etc/group", "/etc/ld.so.cache",
          "/etc/localtime", "/etc/passwd", "/etc/ssl")
WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()  # whoever kills the grader ends what it had started
NAMESPACES = ("--net", "--ipc", "--pid", "--mount", "--fork", "--kill-child")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one answer, and one notebook, may use. Sizes in MB, times in seconds of wall clock."""

    cell: float = 30.0          # seconds for one cell
    notebook: float = 300.0     # seconds for the whole notebook
    memory: int = 4096          # address space of one process, and resident memory of all of them together
    processes: int = 64
    output: int = 8             # what one cell may print
    file: int = 64              # one file
    disk: int = 256             # all files together


def world(library: bool, private: tuple[str, ...] = ()) -> list[str]:
    """What exists in the jail, in the order in which it is built: "+path" is shown, "-path" is hidden although a shown folder holds it.

    Shown are the system's programs, this Python and its packages, and rxt_lite where a lab needs it. Hidden are the rest of
    this repository, rxt_lite where its layers would be answers, and the `private` files and folders of a course.
    """
    package = Path(__file__).absolute().parent.parent
    shown = {*SYSTEM, sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *([str(package)] if library else [])}
    secret = [*private, package, *([package.parent] if (package.parent / "pyproject.toml").exists() else [])]
    hidden = {form(path) for path in secret for form in (os.path.abspath, os.path.realpath)}
    lines: dict[str, str] = {}
    for path in sorted(path for path in shown | hidden if os.path.lexists(path)):
        sign = "+" if path in shown else "-"
        around = max((other for other in lines if path.startswith(other + "/")), key=len, default="")
        through_a_link = around and sign == "-" and os.path.realpath(path) != os.path.realpath(around) + path[len(around):]
        if sign != lines.get(around, "-") and not through_a_link:
            lines[path] = sign
    return [sign + path for path, sign in lines.items()]


class Jail:
    """A folder that exists until `close`, and commands that run in it."""

    def __init__(self, limits: Limits, *, library: bool, level: str, private: tuple[str, ...] = ()):
        self.limits, self.library, self.level, self.private = limits, library, level, private
        self.home = Path(tempfile.mkdtemp(prefix="rxt-", dir="/tmp"))  # short: the path of a socket has 107 bytes
        self.work, self.sockets = self.home / "work", self.home / "sockets"
        self.user = 100_000 + os.getpid() if os.getuid() == 0 else 0  # of this worker alone, so that limits are too
        self.home.chmod(0o711)
        for folder in (self.work, self.sockets):
            folder.mkdir()
            if self.user:
                os.chown(folder, self.user, self.user)

    def environment(self) -> dict[str, str]:
        """All that student code can read of our environment: nothing."""
        work = str(self.work)
        programs = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        return {"PATH": os.pathsep.join(programs), "HOME": work, "TMPDIR": work, "IPYTHONDIR": work, "RXT_JAIL": work, "LANG": "C.UTF-8",
                "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def command(self, *argv: str) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment that run `argv` in here."""
        kb = 1024
        settings = {"SCRIPT": SCRIPT, "WORK": self.work, "SOCKETS": self.sockets, "WORLD": "\n".join(world(self.library, self.private)),
                    "USER_ID": self.user, "MEMORY": self.limits.memory * kb, "FILE": self.limits.file * kb,
                    "PROCESSES": self.limits.processes * 8 if self.user or self.level == "namespaces" else "unlimited",
                    "DISK": self.limits.disk * kb}
        environment = {**self.environment(), **{name: str(value) for name, value in settings.items()}}
        if self.level == "limits":
            return [*WITH_US, "bash", "-c", SCRIPT, "jail", "limit", *argv], environment
        user = () if self.user else ("--user", "--map-root-user")
        return [*WITH_US, "unshare", *user, *NAMESPACES, "bash", "-c", SCRIPT, "jail", "build", *argv], environment

    def start(self, *argv: str, **how) -> subprocess.Popen:
        command, environment = self.command(*argv)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **how}
        return subprocess.Popen(command, env=environment, cwd=self.home, start_new_session=True, **quiet)

    def close(self) -> None:
        for process in leftovers(str(self.work)) if self.level == "limits" else ():
            process.kill()
        # A student may have made folders that Python's rmtree cannot enter, or nested them beyond its recursion.
        clear = 'chmod -R u+rwX "$1" 2> /dev/null; rm -rf "$1"'
        subprocess.run(["bash", "-c", clear, "clear", str(self.home)], stderr=subprocess.DEVNULL, check=False)


def leftovers(work: str) -> list:
    """Processes that still carry the mark of a jail: without a pid namespace, they outlive their parent."""
    import psutil

    def marked(process) -> bool:
        try:
            return process.environ().get("RXT_JAIL") == work
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if marked(process)]


@cache
def best_level() -> str:
    """The strongest level that works here: a command is run in namespaces, and must see its folder and nothing of ours."""
    if not all(shutil.which(name) for name in ("unshare", "setpriv", "pivot_root")):
        return "limits"
    jail = Jail(Limits(), library=False, level="namespaces")
    try:
        test = (f"import os, threading; threading.Thread(target=int).start(); assert os.listdir({str(jail.work)!r}) == []; "
                "assert not os.path.exists('/var'); print('jailed')")
        process = jail.start(sys.executable, "-c", test, stdout=subprocess.PIPE)
        said, _ = process.communicate(timeout=60)
        return "namespaces" if said.strip() == b"jailed" else "limits"
    except (OSError, subprocess.TimeoutExpired):
        return "limits"
    finally:
        jail.close()
