"""Jobs and settings for tests of targets."""

import dataclasses
from typing import Any

from tpu import settings as settings_lib
from tpu import slices
from tpu.job import Job, Provisioning, Step

CPU_STEPS = (
  Step(name="generate", mode="generate", place="cpu"),
  Step(name="train", mode="train"),
  Step(name="evaluate", mode="evaluate"),
  Step(name="report", mode="report", place="cpu"),
)


def a_job(slice_: str = "v6e-16", num_slices: int = 1, **fields: Any) -> Job:
  """Returns a job on a slice; `fields` of Job replace ours."""
  job = Job(
    name="cheese",
    config="configs/cheese_tiny.py",
    machines=slices.parse(slice_, num_slices),
    workdir="gs://my-bucket/msm/studies/cheese",
    code="0123456789ab",
  )
  return dataclasses.replace(job, **fields)


def some_settings(**fields: Any) -> settings_lib.Settings:
  """Returns settings of a cloud; `fields` of tpu.toml replace ours."""
  known = {
    "bucket": "gs://my-bucket/msm",
    "project": "my-project",
    "zone": "us-east5-b",
    "reservation": "my-reservation",
    "image": "us-docker.pkg.dev/my-project/msm/msm-jax",
    "secrets": {"GEMINI_API_KEY": "gemini-key"},
    "environment": {"HF_HUB_OFFLINE": "1"},
    "labels": {"team": "interp"},
    "gke": {"cluster": "my-cluster"},
    "slurm": {"directory": "/shared/me/msm", "partition": "gpu"},
  }
  return settings_lib.parse(known | fields)


PROVISIONED = {
  "on_demand": {},
  "spot": {"provisioning": Provisioning.SPOT},
  "reserved": {"provisioning": Provisioning.RESERVED},
  "flex": {"provisioning": Provisioning.FLEX},
}
