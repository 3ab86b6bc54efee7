"""nbval's kernel, in a jail: it is watched while it works, and its loss is noticed at once.

    nbval.kernel.RunningKernel      waits the whole limit for a dead kernel, and keeps all it prints
    JailedKernel                    polls the process, its memory, its processes and its output; raises Lost("killed", why)
"""

import contextlib
import json
import math
import os
import sys
import time
from collections import deque
from queue import Empty

import psutil
import zmq
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.session import Session
from nbval.kernel import RunningKernel

from rxt_lite.grading.jail import Jail, Limits
from rxt_lite.grading.probe import MIME, SENTINEL, START, look

LARGEST_MESSAGE = 4 * 2**20
KEPT = 2**20          # bytes of output that matter (probes), kept for one cell
MOST_MESSAGES = 5000  # kept of one cell: states, probes and errors
WATCH = 0.25          # seconds between two looks at memory and processes
PATIENCE = 4          # a cell that waits for a processor may take so many times its limit
START_UP = 60.0


class Lost(Exception):
    """The kernel is gone: `status` is timeout or killed, `why` a word from our own vocabulary."""

    def __init__(self, status: str, why: str):
        super().__init__(f"{status}: {why}")
        self.status, self.why = status, why


def client_of(jail: Jail) -> tuple[BlockingKernelClient, str]:
    """A client with small buffers, and the connection file of the kernel it will talk to."""
    session = Session(key=os.urandom(32).hex().encode())
    file, info = write_connection_file(str(jail.sockets / "kernel.json"), ip=str(jail.sockets / "k"), transport="ipc", key=session.key)
    if jail.user:
        os.chown(file, jail.user, jail.user)
        os.chown(jail.sockets, jail.user, jail.user)
    context = zmq.Context()
    for option, value in ((zmq.MAXMSGSIZE, LARGEST_MESSAGE), (zmq.RCVHWM, 64), (zmq.LINGER, 0)):
        context.setsockopt(option, value)
    client = BlockingKernelClient(context=context, session=session)
    client.load_connection_info(info)
    return client, file


class JailedKernel(RunningKernel):
    """A fresh Python in a jail of its own, with what nbval asks of a kernel. `deadline`: when the notebook's time is up."""

    def __init__(self, limits: Limits, *, library: bool, level: str, deadline: float, private: tuple[str, ...] = ()):
        self.limits, self.deadline = limits, math.inf  # its start is ours: no notebook's time is spent on it
        self.jail = Jail(limits, library=library, level=level, private=private)
        self.kc, file = client_of(self.jail)
        quiet = ("--HistoryManager.enabled=False", "--IPKernelApp.capture_fd_output=False", "--Completer.use_jedi=False")
        self.process = self.jail.start(sys.executable, "-m", "ipykernel_launcher", "-f", file, *quiet)
        self.messages, self.reply, self.awaited, self.raised, self.ready, self.inside = deque(), None, "", "", False, []
        self.printed, self.kept, self.watched = 0, 0, 0.0
        self.kc.start_channels(stdin=False, hb=False, control=False)
        try:
            self._wait_until_ready()
            self.ready, self.inside = True, self._family()
            self.run(START, START_UP)
            self.deadline = deadline
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        """A kernel answers on both channels, or it is none. It may take long to start on a busy machine."""
        end = time.monotonic() + START_UP
        while time.monotonic() < end:
            request = self.kc.kernel_info()
            with contextlib.suppress(Empty):
                self.await_reply(request, timeout=START_UP)
                self.await_idle(request, timeout=0.1)  # the first may come before we hear
                return
        raise Lost("killed", "did not start")

    # ------------------------------------------------------------------------------------------- what nbval asks
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def execute_cell_input(self, cell_input, allow_stdin=None) -> str:
        self.messages.clear()
        self.printed = self.kept = 0
        self.request = super().execute_cell_input(cell_input or "pass", allow_stdin=False)
        return self.request

    def await_reply(self, msg_id, timeout=None) -> None:
        """Until the shell replies: drain what is printed, watch the process, and lose the kernel at the limit.

        Time that the kernel spent waiting for a processor is not the student's, who must not lose to a neighbour.
        """
        self.awaited, self.reply = msg_id, None
        start, waited = time.monotonic(), self._waited()
        while self.reply is None:
            now = time.monotonic()
            if now > self.deadline or now - start > PATIENCE * timeout or (
                    now - start > timeout and now - start - (self._waited() - waited) > timeout):
                raise Lost("timeout", "time")
            self._poll(0.1)

    def get_message(self, stream, timeout=None):
        end = time.monotonic() + timeout
        while not self.messages:
            if time.monotonic() > end and not self.ready:
                raise Empty
            if time.monotonic() > end:  # it has replied, and does not say that it is done
                raise Lost("killed", "silent")
            self._poll(0.1)
        return self.messages.popleft()

    def interrupt(self) -> None:
        """Never asked for: a kernel past its limit is lost, since it may ignore an interrupt."""

    def stop(self) -> None:
        family = {*self.inside, *self._family()}
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, 9)
        for process in family:  # the first process of the jail may have left its group; with it, all others end
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()
        self.kc.stop_channels()
        self.kc.context.destroy(linger=0)
        self.jail.close()

    # -------------------------------------------------------------------------------------------------- beneath
    def run(self, source: str, limit: float) -> list[dict]:
        """Run a cell of ours and return the data it displayed."""
        request = self.execute_cell_input(source)
        self.await_reply(request, timeout=limit)
        shown = []
        while True:
            message = self.get_message("iopub", timeout=5)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return shown
            if message["msg_type"] == "display_data":
                shown.append(message["content"]["data"])

    def look(self, names: list[str]) -> dict:
        """What cells share, as it is now; empty if the kernel does not say."""
        shown = [data[SENTINEL] for data in self.run(look(names), 10.0) if isinstance(data.get(SENTINEL), dict)]
        return shown[0] if shown else {}

    def _family(self) -> list[psutil.Process]:
        """All processes in the jail, as they are now; the first of them is the kernel."""
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            return [*([root] if self.jail.level == "limits" else []), *root.children(recursive=True)]
        return []

    def _waited(self) -> float:
        """Seconds that the kernel was ready to run and another process had the processor; 0 where Linux does not say."""
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{self.inside[0].pid}/schedstat") as stat:
            return int(stat.read().split()[1]) / 1e9
        return 0.0

    def _poll(self, seconds: float) -> None:
        shell, iopub = self.kc.shell_channel, self.kc.iopub_channel
        poller = zmq.Poller()
        poller.register(shell.socket, zmq.POLLIN)
        poller.register(iopub.socket, zmq.POLLIN)
        ready = dict(poller.poll(seconds * 1000))
        if iopub.socket in ready:
            self._take(iopub)
        if shell.socket in ready and iopub.socket not in ready:  # what was printed before the reply comes first
            message = self._received(shell)
            if message is not None and message["parent_header"].get("msg_id") == self.awaited:
                self.reply = message["content"]
            self._count()
        if not ready and not self.is_alive():
            raise Lost("killed", "died")
        if time.monotonic() - self.watched > WATCH:
            self._watch()

    def _received(self, channel) -> dict | None:
        """The next message; what is no message at all (a student may write to the sockets) does not exist."""
        try:
            frames = channel.socket.recv_multipart(zmq.NOBLOCK)
            self.printed += sum(map(len, frames))
            _, frames = channel.session.feed_identities(frames)
            message = channel.session.deserialize(frames)
            return message if isinstance(message["content"], dict) and isinstance(message["parent_header"], dict) else None
        except (zmq.ZMQError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError):
            return None

    def _take(self, channel) -> None:
        """Count all that is published and keep what the grader reads: states, probes and the names of errors."""
        for _ in range(64):
            if not channel.socket.poll(0):
                break
            message = self._received(channel)
            if message is not None and self._matters(message):
                self.messages.append(message)
        self._count()

    def _count(self) -> None:
        if self.printed > self.limits.output * 2**20 or len(self.messages) > MOST_MESSAGES:
            raise Lost("killed", "output")

    def _matters(self, message: dict) -> bool:
        kind, content = message["msg_type"], message["content"]
        if kind == "status":
            return isinstance(content.get("execution_state"), str)
        if kind == "error":
            self.raised = str(content.get("ename"))[:100] or "nameless"
            message["content"] = {"ename": self.raised, "evalue": "", "traceback": []}
            return True
        data = content.get("data")
        if kind != "display_data" or not isinstance(data, dict) or not ({MIME, SENTINEL} & data.keys()):
            return False
        content["data"], content["metadata"] = {key: data[key] for key in (MIME, SENTINEL) if key in data}, {}
        self.kept += len(json.dumps(content["data"]))
        return self.kept < KEPT

    def _watch(self) -> None:
        """Memory and number of all processes in the jail, and what lies in the folder of the sockets."""
        self.watched = time.monotonic()
        memory, processes = 0, 0
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    used = process.memory_info()
                    memory, processes = memory + used.rss - used.shared, processes + 1
        if memory > self.limits.memory * 2**20:
            raise Lost("killed", "memory")
        if processes > self.limits.processes:
            raise Lost("killed", "processes")
        sizes = [0]
        try:
            with os.scandir(self.jail.sockets) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        sizes.append(2**30 if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size)
        except OSError:  # it was ours; the student took it away
            sizes.append(2**30)
        if len(sizes) > 17 or sum(sizes) > 2**20:
            raise Lost("killed", "files")
