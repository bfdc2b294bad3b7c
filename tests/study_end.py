"""What a study came to: all of it that does not depend on the clock."""

import pathlib


def of(workdir: pathlib.Path) -> dict[str, object]:
  """Returns the results, and of every run what its last checkpoint holds: digests of
  all parameters and moments, made from the arrays when they were saved.
  """
  from orbax.checkpoint import v1 as ocp

  found = {"results": (workdir / "report" / "results.csv").read_text()}
  for run in sorted(workdir.glob("runs/*/seed0")):
    last = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    meta = ocp.load(last)
    assert meta["step"] == int(last.name) and len(meta["digests"]) > 8 * 30
    found[run.parent.name] = meta
  assert set(found) == {"results", "pretrain", "pretrain+aft"}
  return found
