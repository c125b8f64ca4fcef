"""`m2pt` for a workflow of many short jobs: a process forked from one interpreter that has imported torch.

What a command does, reads and writes is the same; only the seconds in which each process imports the same
libraries are saved. Run as a file, this is the interpreter. A command that is to be killed needs a process of
its own: killing the program that stands for it does not reach the fork.
"""

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("accelerate", "av", "matplotlib.pyplot", "pandas", "scipy.spatial", "timm", "torchvision")

PROGRAM = """#!{python} -IS
import json, os, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
code = server.recv(1)
sys.exit(code[0] if code else "m2pt was killed by a signal")
"""


@contextlib.contextmanager
def forked_commands() -> Iterator[Path]:
    """Yield a folder for PATH in which `m2pt` asks the interpreter that runs meanwhile."""
    with tempfile.TemporaryDirectory(prefix="m2pt-") as short:  # a socket's path may have 107 characters
        folder, address = Path(short), f"{short}/socket"
        (folder / "m2pt").write_text(PROGRAM.format(python=sys.executable, address=address))
        (folder / "m2pt").chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen(64)
            command = [sys.executable, __file__, str(listening.fileno())]
            server = subprocess.Popen(command, pass_fds=[listening.fileno()])
        try:
            yield folder
        finally:
            server.kill()
            server.wait()


def serve(listening: socket.socket) -> None:
    """Fork a process for each command that is asked for, until this one is killed."""
    from m2pt.commands import command_module, commands

    for name in (*LIBRARIES, *map(command_module, commands())):
        importlib.import_module(name)
    while True:
        asking, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _answer(asking)
        asking.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _answer(asking: socket.socket) -> None:
    """Run the command in a child of this process, which survives it to tell how it has ended."""
    size, streams, _, _ = socket.recv_fds(asking, 8, 3)
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += asking.recv(2**16)
    arguments, folder, environment = json.loads(asked)
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(OSError):
            asking.sendall(bytes([code]) if code >= 0 else b"")
        os._exit(0)
    asking.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    _run(arguments, folder, environment)


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    from m2pt.commands import main

    code: object = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["m2pt", *arguments]
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
