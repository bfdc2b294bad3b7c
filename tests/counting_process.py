"""What stands in for launch.py on a host: counts, saves, and fails as it is told.

    python counting_process.py OUT NUM_STEPS STEP_S

Process 0 counts to NUM_STEPS and saves the count every 5 steps in OUT/count, with a
hash over all numbers so far; the others live as long as it does. OUT/trace gets a line
for every start and step. OUT/orders is JSON: [{"host", "step", "code" (or minus a
signal), "times"}]; when a host obeyed, host 0 ends with 75 and saves nothing, as one
whose peer is lost. While OUT/hold is there, process 0 stays at the step in it until it
is told to stop: what a test does there happens there, however slow the machine.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import time

from msm_jax.progress import Progress

OUT, STEPS, STEP_S = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
HOST = int(os.environ["JAX_PROCESS_ID"])
COUNT, PULSE, LOST = OUT / "count", OUT / "pulse", OUT / "lost"
HOLD = OUT / "hold"


def note(line: str) -> None:
  with (OUT / "trace").open("a") as file:
    file.write(f"{HOST} {line}\n")


def obey(step: int) -> None:
  path = OUT / "orders"
  orders = json.loads(path.read_text()) if path.exists() else []
  for i, order in enumerate(orders):
    done = OUT / f"order-{i}"
    times = len(done.read_text()) if done.exists() else 0
    if order["host"] == HOST and step >= order["step"] and times < order["times"]:
      done.write_text("x" * (times + 1))
      note(f"order {i}")
      LOST.touch()
      if order["code"] < 0:
        os.kill(os.getpid(), -order["code"])
        time.sleep(60)
      print(order.get("says", f"error: order {i}"), file=sys.stderr, flush=True)
      sys.exit(order["code"])


def hold(step: int, stopped: list[int]) -> None:
  while not stopped and HOLD.exists() and HOLD.read_text() == str(step):
    time.sleep(0.02)
    PULSE.write_text(f"{os.getpid()} {step} {time.monotonic()}")  # the others wait, too


def main() -> int:
  stopped = []
  signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
  step, chain = 0, ""
  if COUNT.exists():
    step, chain = json.loads(COUNT.read_text())
  note(f"start {step}")
  print(f"counting from {step}", flush=True)
  if HOST:
    return follow(stopped)
  LOST.unlink(missing_ok=True)
  with Progress("train count", STEPS, "step", done=step, tokens=10) as bar:
    while step < STEPS:
      time.sleep(STEP_S)
      step += 1
      chain = hashlib.sha256(f"{chain}{step}".encode()).hexdigest()
      obey(step)
      if LOST.exists():
        return 75
      bar.advance(loss=f"{1 / step:.3f}")
      note(f"step {step}")
      PULSE.write_text(f"{os.getpid()} {step}")
      hold(step, stopped)
      if stopped or step % 5 == 0 or step == STEPS:
        COUNT.with_suffix(".new").write_text(json.dumps([step, chain]))
        COUNT.with_suffix(".new").replace(COUNT)
      if stopped:
        return 75
  (OUT / "done").touch()
  return 0


def follow(stopped: list[int]) -> int:
  said, since = "", time.monotonic()
  while not (OUT / "done").exists():
    time.sleep(0.02)
    now = PULSE.read_text() if PULSE.exists() else ""
    if now != said:
      said, since = now, time.monotonic()
    obey(int(now.split()[1]) if " " in now else 0)
    if stopped or time.monotonic() - since > 10:
      return 75
  return 0


if __name__ == "__main__":
  sys.exit(main())
