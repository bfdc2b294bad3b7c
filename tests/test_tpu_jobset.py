"""The manifest of a job: golden renders, schemas, exit codes, bad input."""

import copy
import dataclasses
import os
import subprocess

import cloud_jobs
import golden_files
import manifests
import pytest
import yaml

from msm_jax.errors import UserError
from tpu.job import Provisioning, Step
from tpu.targets import jobset

IMAGE = "us-docker.pkg.dev/my-project/msm/msm-jax:0123456789ab-tpu"
_KUEUE = {"cluster": "my-cluster", "queue": "research", "priority": "low"}
_MULTI = {"slice_": "v5p:2x2x2", "num_slices": 2}

CASES = {
  **{name: (more, {}) for name, more in cloud_jobs.PROVISIONED.items()},
  "multi_slice": (_MULTI, {}),
  "multi_slice_identity": (
    _MULTI,
    {"gke": {"cluster": "my-cluster", "service_account": "msm"}},
  ),
  "one_host": ({"slice_": "v5e-8"}, {}),
  "gpu": ({"slice_": "h100:16"}, {}),
  "kueue": ({"provisioning": Provisioning.SPOT}, {"gke": _KUEUE}),
  "kueue_flex": ({"provisioning": Provisioning.FLEX}, {"gke": _KUEUE}),
  "cpu_steps": ({"steps": cloud_jobs.CPU_STEPS}, {}),
  "overrides": (
    {"overrides": ("--config.seeds=(0, 1)", "--config.a=$(HOME) $$ '")},
    {},
  ),
}


def rendered(case):
  fields, settings = CASES[case]
  job = cloud_jobs.a_job(**fields)
  return job, jobset.render(job, cloud_jobs.some_settings(**settings), IMAGE)


def pod_specs(manifest):
  jobs = manifest["spec"]["replicatedJobs"]
  return [job["template"]["spec"]["template"]["spec"] for job in jobs]


@pytest.mark.parametrize("case", CASES)
def test_the_manifest_is_what_it_was(case):
  golden_files.check(f"tpu/gke_{case}.yaml", rendered(case)[1])


@pytest.mark.parametrize("case", CASES)
def test_a_cluster_takes_the_manifest(case):
  job, text = rendered(case)
  assert manifests.faults(yaml.safe_load(text)) == []
  jobset.check(job, cloud_jobs.some_settings())


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_own_schemas_take_every_job_in_it(case):
  validator = pytest.importorskip("kubernetes_validate")
  for job in yaml.safe_load(rendered(case)[1])["spec"]["replicatedJobs"]:
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}}
    validator.validate(whole | {"spec": job["template"]["spec"]}, "1.32", strict=True)


def test_the_schema_refuses_what_a_cluster_would():
  manifest = yaml.safe_load(rendered("cpu_steps")[1])

  def spoilt(spoil):
    other = copy.deepcopy(manifest)
    spoil(other["spec"])
    return manifests.faults(other)

  assert spoilt(lambda spec: spec.update(replicas=2))
  assert spoilt(lambda spec: spec["failurePolicy"].update(maxRestarts="20"))
  assert spoilt(lambda spec: spec["failurePolicy"]["rules"][0].update(action="Restart"))
  assert spoilt(lambda spec: spec["replicatedJobs"][0].update(dependsOn=[{}]))
  assert spoilt(lambda spec: spec["replicatedJobs"].reverse())
  assert spoilt(lambda spec: spec["replicatedJobs"][1].update(name="x" * 60))
  assert spoilt(lambda spec: pod_specs({"spec": spec})[0].pop("restartPolicy"))


def test_hosts_of_all_slices_are_numbered_through():
  job, text = rendered("multi_slice")
  (pod,) = pod_specs(yaml.safe_load(text))
  script = pod["containers"][0]["args"][0]
  # As Kubernetes leaves it to the shell; `exec` of an echo in place of Python.
  script = script.replace("$$", "$").replace("exec python", "exec echo")
  seen = []
  for slice_index, index in ((0, 0), (0, 1), (1, 0), (1, 1)):
    given = {"MSM_SLICE": str(slice_index), "JOB_COMPLETION_INDEX": str(index)}
    said = subprocess.run(
      ["sh", "-c", script], env=os.environ | given, capture_output=True, text=True
    ).stdout
    assert "--num_hosts=4" in said and "-- python launch.py run" in said
    seen.append(int(said.split("--host=")[1].split()[0]))
    assert seen[-1] == jobset.host_number(job, job.steps[0], slice_index, index)
  assert seen == [0, 1, 2, 3]


def test_an_override_reaches_the_command_as_it_was_typed(tmp_path):
  job, text = rendered("overrides")
  script = pod_specs(yaml.safe_load(text))[0]["containers"][0]["args"][0]
  # Kubernetes: $$ is $, and $(NAME) the variable; here there is none that it knows.
  script = script.replace("$$", "$").partition(" -- \\\n")[2]
  said = subprocess.run(
    ["sh", "-c", f"printf '%s\\n' {script}"], capture_output=True, text=True
  ).stdout
  assert said.splitlines() == job.command(job.steps[0])


@pytest.mark.parametrize(
  ("fields", "settings", "words"),
  [
    ({"name": "9lives"}, {}, "--name=9lives.*begins with a letter"),
    ({"name": "A_b"}, {}, "lower-case letters"),
    (
      {"name": "n" * 40, "steps": (Step(name="evaluate-again", mode="evaluate"),)},
      {},
      "over 63 letters: take a name of at most 3[0-9]",
    ),
    ({"slice_": "b300:8"}, {}, "on GKE GPUs are a100, h100"),
    (
      {"provisioning": Provisioning.RESERVED},
      {"reservation": None},
      "--target=gke --reserved needs reservation",
    ),
    ({}, {"secrets": {"KEY": "My_Key"}}, "secrets.KEY = 'My_Key'.*lower-case"),
  ],
)
def test_what_kubernetes_would_refuse_is_refused_first(fields, settings, words):
  settings = cloud_jobs.some_settings(
    **{name: value for name, value in settings.items() if value is not None}
  )
  if "reservation" in words:
    settings = dataclasses.replace(settings, reservation=None)
  with pytest.raises(UserError, match=words):
    jobset.check(cloud_jobs.a_job(**fields), settings)


def test_other_code_or_settings_have_another_digest():
  job, settings = cloud_jobs.a_job(), cloud_jobs.some_settings()

  def digest(job, settings):
    found = yaml.safe_load(jobset.render(job, settings, IMAGE))
    return found["metadata"]["annotations"][jobset.DIGEST]

  same = digest(job, settings)
  assert digest(job, settings) == same
  assert digest(dataclasses.replace(job, code="other"), settings) != same
  assert digest(job, cloud_jobs.some_settings(environment={"A": "1"})) != same
