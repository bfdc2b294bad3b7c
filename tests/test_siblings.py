"""Which runs are one program: those of the same shapes, as many as fill a device."""

import dataclasses

import pytest

from msm_jax.errors import UserError
from msm_jax.training import population, run_config, siblings


def test_what_is_no_sibling_is_told_apart_by_what_differs(monkeypatch, capfd):
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  shape = {"seq_len": 8, "batch_size": 4, "the frozen base": None}
  one, two, three = (siblings.Task(("a", name), 0) for name in "bcd")
  shapes = {one: shape, two: shape | {"seq_len": 9, "batch_size": 2}, three: shape}
  assert siblings.groups(shapes, lambda _: 8) == [[one, three], [two]]
  assert capfd.readouterr().err == (
    "note: a+b seed 0 and a+c seed 0 are not one program: they differ in seq_len, "
    "batch_size\n"
  )


def test_groups_are_divided_into_equal_parts():
  tasks = [siblings.Task(("a",), seed) for seed in range(10)]
  found = siblings.groups({task: {"seq_len": 8} for task in tasks}, lambda _: 8)
  assert [len(group) for group in found] == [5, 5]
  assert [task for group in found for task in group] == tasks


@pytest.mark.parametrize(
  ("num_tokens", "num_devices", "platform", "most"),
  [
    (8 * 4096, 1, "gpu", 1),  # fills it by itself
    (8 * 4096, 8, "tpu", 2),
    (4 * 256, 1, "gpu", 8),
    (5000, 1, "gpu", 1),
    (4 * 256, 4, "cpu", 1),
  ],
)
def test_a_population_is_as_large_as_fills_the_devices(
  num_tokens, num_devices, platform, most
):
  assert population.most_together(num_tokens, num_devices, platform) == most


def test_every_stage_has_its_own_greatest_population():
  small, large = (siblings.Task((name,), 0) for name in ("small", "large"))
  more = [dataclasses.replace(task, seed=1) for task in (small, large)]
  shapes = {task: {"name": task.path[0]} for task in (small, large, *more)}
  found = siblings.groups(shapes, lambda task: 2 if task.path[0] == "small" else 1)
  assert found == [[small, more[0]], [large], [more[1]]]


def test_a_population_of_none_at_all_is_refused():
  with pytest.raises(UserError, match=r"config\.run\.population \(0\) must be"):
    run_config.parse({"population": 0})
