"""A program that saves: counts to a number, one step after another, and goes on where it was warned.

The file it makes has one line a step, so that a step done twice or left out shows.
"""

import os
import signal
import sys
import time
from pathlib import Path

output, state, steps, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
warned = []
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: warned.append(number))
print("handlers are set", flush=True)
done = state.read_text() if state.exists() else ""
for step in range(done.count("\n"), steps):
    time.sleep(pause)
    done += f"{step}\n"
    if warned:
        state.write_text(done)
        if marker := os.environ.get("REQUEUE_MARKER"):
            Path(marker).touch()
        print(f"saved after step {step}", flush=True)
        sys.exit(75)
output.write_text(done)
