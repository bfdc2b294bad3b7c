"""Jobs on a fake cluster: from submission to deletion, with pods taken away."""

import dataclasses

import cloud_jobs
import drives
import fake_cluster
import gke_drive
import pytest

from msm_jax.errors import UserError
from tpu import submitting, supervisor
from tpu.archive import Archive
from tpu.board import Submission
from tpu.job import Provisioning, State, Step
from tpu.shell import Failed, Shell
from tpu.targets import Found, jobset
from tpu.targets.gke import Gke

EMPTY = {"contexts": [], "images": []}


@pytest.fixture
def on_gke(tmp_path):
  with gke_drive.clusters(tmp_path) as make:
    yield make


def test_a_job_loses_a_node_is_stopped_goes_on_ends_and_is_deleted(on_gke):
  first = Step(name="generate", mode="generate", place="cpu")
  steps = (first, Step(name="study", mode="run"))
  drive = on_gke(slice_="v5p:2x2x2", goal=100_000, steps=steps)
  drive.submit()
  drive.wait_for_step(5)
  found = drive.target.find(drive.job)
  assert found.state is State.READY
  assert drive.board.attempt("generate").phase == "finished"
  assert [host.rsplit("-", 1)[0] for host in found.hosts] == [
    *("cheese-study-0-0", "cheese-study-0-1")
  ]
  fake_cluster.take_node(drive.root, found.hosts[1], grace_s=0.0)
  # Another pod takes the place of the one that is gone; the other one waits for it.
  drive.wait_for(lambda: len(drive.starts()) == 2)
  again = drive.target.find(drive.job)
  assert again.hosts[0] == found.hosts[0] and again.hosts[1] != found.hosts[1]

  drive.target.stop(drive.job)
  stopped = drive.target.find(drive.job)
  assert stopped.state is State.ABSENT and stopped.says == "stopped"
  assert stopped.resources == ("jobset cheese",)
  assert not fake_cluster.running(drive.root)
  saved = drive.saved()
  assert saved >= drive.starts()[-1]  # SIGTERM reached the command, which saved

  drive.aim(saved + 5)
  drive.target.create(drive.job)
  done = drive.wait_until_ended()
  assert done.says.startswith("completed")
  assert drive.starts()[-1] == saved
  assert drive.board.attempt("study").phase == "finished"
  assert done.state is State.ABSENT and "jobset cheese" in done.resources
  for host in (0, 1):
    began = drive.starts(host)[-1]
    # What process 0 saved, or saves while the other one is about to start.
    assert saved <= began <= saved + 5 * host
    log = list(drive.target.logs(drive.job, host, True))
    assert any(f"counting from {began}" in line for line in log)
  with pytest.raises(UserError, match="--host=5 has no pod"):
    list(drive.target.logs(drive.job, 5, False))
  drive.target.create(drive.job)  # anew: what completed cannot be made to do more
  assert not drive.target.find(drive.job).says.startswith("completed")
  drive.target.delete(drive.job)
  assert drive.target.find(drive.job).state is State.ABSENT
  drive.target.delete(drive.job)  # again: nothing to do, no error


def test_a_job_is_looked_after_until_it_is_done_and_gone(on_gke):
  drive, said = on_gke(slice_="v5p:2x2x1", cluster=EMPTY), []
  drive.target.check(drive.job)
  look_after = supervisor.look_after
  look_after(drive.job, drive.target, drive.board, timing=drives.QUICK, say=said.append)
  assert drive.board.attempt("study").phase == "finished"
  assert "cheese: finished" in said
  assert drive.target.find(drive.job).state is State.ABSENT


@pytest.mark.slow
@pytest.mark.parametrize(("slice_", "number"), [("v5p:2x2x2", 2), ("h100:16", 1)])
def test_slices_and_hosts_with_gpus_find_each_other(on_gke, slice_, number):
  drive = on_gke(slice_=slice_, num_slices=number)
  drive.submit()
  assert drive.wait_until_ended().says.startswith("completed")
  hosts = drive.job.machines.num_hosts
  assert {line.split()[0] for line in drive.trace()} == set(map(str, range(hosts)))


def test_a_job_that_a_person_must_mend_is_not_tried_again(on_gke):
  drive = on_gke(slice_="v5p:2x2x1", goal=100)
  drive.order({"host": 0, "step": 3, "code": 2, "times": 9, "says": "error: no key"})
  drive.submit()
  found = drive.wait_until_ended()
  assert "ended with 2" in found.says
  assert drive.board.attempt("study").phase == "gave_up"
  assert drive.jobset()["status"]["restarts"] == 0
  again = Submission(job=drive.job, target="gke", timing=drives.QUICK)
  submitting.submit(again, drive.target, drive.board, print)
  assert drive.board.attempt("study").phase == "waiting"
  assert drive.target.find(drive.job) == Found(state=State.ABSENT)  # it failed for good


def test_an_image_that_does_not_run_is_tried_a_few_times(on_gke, monkeypatch):
  monkeypatch.setattr(jobset, "MAX_RESTARTS", 2)
  drive = on_gke(slice_="v5p:2x2x1")
  (drive.image / "tpu").unlink()
  drive.submit()
  found = drive.wait_until_ended()
  assert "ended with 1: " in found.says and "No module named" in found.says
  assert drive.jobset()["status"]["restarts"] == 2


def test_a_queue_says_what_a_job_waits_for_and_is_told_of_a_stop(on_gke):
  queued = {"gke": {"cluster": "my-cluster", "queue": "research"}}
  none = {"queues": ["research"], "nodes": 0}
  drive = on_gke(settings=queued, slice_="v5p:2x2x1", cluster=none)
  drive.submit()
  found = drive.target.find(drive.job)
  assert found.state is State.WAITING
  assert found.says.startswith("in queue research: couldn't assign flavors")
  with fake_cluster.opened(drive.root) as cluster:
    cluster["workloads"]["cheese"]["admitted"] = True
  assert len(drive.target.find(drive.job).resources) == 2
  drive.target.stop(drive.job)
  found = drive.target.find(drive.job)
  assert found.state is State.ABSENT and found.resources == ("jobset cheese",)
  drive.target.create(drive.job)
  assert len(drive.target.find(drive.job).resources) == 2
  with fake_cluster.opened(drive.root) as cluster:
    cluster["workloads"].clear()
  with pytest.raises(Failed, match="Kueue has not seen cheese yet"):
    drive.target.stop(drive.job)


def test_stockout_and_quota_are_told_in_the_words_of_the_cloud(on_gke):
  drive = on_gke(slice_="v5p:2x2x1", cluster={"nodes": 0})
  drive.submit()
  assert "nodes are available" in drive.target.find(drive.job).says
  with fake_cluster.opened(drive.root) as cluster:
    (pod,) = cluster["pods"]
    for why in ("GCE out of resources", "GCE quota exceeded"):
      about = {"involvedObject": {"name": pod}, "reason": "FailedScaleUp"}
      cluster["events"].append(about | {"message": f"Node scale up failed: {why}"})
  with pytest.raises(Failed, match="exit 1: see above"):
    list(drive.target.logs(drive.job, 0, True))
  found = drive.target.find(drive.job)
  assert found.state is State.WAITING
  assert "GCE quota exceeded (ask for more quota" in found.says


def test_a_name_that_is_taken_is_not_taken_over(on_gke):
  drive = on_gke(slice_="v5p:2x2x1", cluster={"nodes": 0})
  drive.submit()
  drive.target.create(drive.job)  # the same: kept
  other = dataclasses.replace(drive.job, code="other")
  with pytest.raises(UserError, match=r"cheese is taken.*tpu delete --name=ch"):
    drive.target.create(other)
  assert len(drive.target.find(drive.job).resources) == 2
  # Once it is stopped nothing of it runs: other code may take its place.
  drive.target.stop(drive.job)
  other = dataclasses.replace(drive.job, overrides=("--config.seeds=(5,)",))
  drive.target.create(other)
  assert drive.target.find(other).state is State.WAITING


def test_what_a_colleague_has_under_the_same_name_is_left_alone(on_gke):
  drive = on_gke(slice_="v5p:2x2x1", cluster={"nodes": 0})
  drive.submit()
  mine = dataclasses.replace(drive.job, workdir="gs://mine/studies/cheese")
  assert drive.target.find(mine) == Found(state=State.ABSENT)
  with pytest.raises(UserError, match=r"is somebody else's.*take another --name"):
    drive.target.create(mine)
  drive.target.stop(mine)
  drive.target.delete(mine)
  assert drive.target.find(drive.job).state is State.WAITING


def test_an_image_that_is_not_there_will_never_be(on_gke):
  image = {"image": f"{gke_drive.REPOSITORY}:1"}
  drive = on_gke(slice_="v5p:2x2x1", settings=image)
  drive.submit()
  found = drive.target.find(drive.job)
  assert found.state is State.FAILED
  assert "ErrImagePull" in found.says and "`image` in tpu.toml" in found.says


def test_the_image_is_built_once_and_in_the_cloud_where_there_is_no_docker(on_gke):
  drive = on_gke(slice_="h100:8", cluster=EMPTY | {"no_docker": True})
  drive.target.check(drive.job)
  drive.target.push(drive.job, ())
  drive.target.push(drive.job, ())
  with fake_cluster.opened(drive.root) as cluster:
    assert cluster["images"] == [f"{gke_drive.REPOSITORY}:0123456789ab-cuda"]


def test_other_code_is_never_built_under_the_name_of_what_was_submitted(on_gke):
  drive = on_gke()
  other = dataclasses.replace(drive.job, code="other")
  with pytest.raises(UserError, match=r"msm-jax:other-tpu is not in its registry"):
    drive.target.push(other, ())


@pytest.mark.parametrize(
  ("cluster", "settings", "words"),
  [
    ({}, {"gke": {"cluster": "other"}}, "no credentials for gke.cluster = 'other'"),
    ({}, {"gke": {"context": "mine"}}, "gke.context = 'mine' is not one of kubectl's"),
    ({}, {"gke": {}}, "needs gke.cluster"),
    ({"jobset": None}, {}, "has no JobSet: install it"),
    ({"jobset": "dependsOn"}, {}, "JobSet of .* is too old"),
    ({"secrets": {}}, {}, "secrets.GEMINI_API_KEY: .* create secret generic gemini-k"),
    ({}, {"gke": {"cluster": "my-cluster", "queue": "q"}}, "gke.queue .* = 'q' is not"),
    (
      {"queues": None},
      {"gke": {"cluster": "my-cluster", "queue": "q"}},
      "has no Kueue: install it .* or leave out gke.queue",
    ),
    (
      {},
      {"gke": {"cluster": "my-cluster", "service_account": "me"}},
      "gke.service_account = 'me' is not in namespace default",
    ),
    (
      {},
      {"gke": {"cluster": "my-cluster", "namespace": "lab"}},
      "no such namespace: kubectl create namespace lab",
    ),
  ],
)
def test_what_is_missing_is_named_with_the_way_out(on_gke, cluster, settings, words):
  drive = on_gke(cluster=cluster, settings=settings, steps=cloud_jobs.CPU_STEPS)
  with pytest.raises(UserError, match=words) as caught:
    drive.target.check(drive.job)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("said", "words"),
  [
    ("error: You must be logged in to the server (Unauthorized)", "gcloud auth login"),
    (
      'Error from server (Forbidden): jobsets is forbidden: User "me" cannot create',
      "roles/container.developer",
    ),
    (
      'exec: executable gke-gcloud-auth-plugin not found\nUnable to connect: "getting"',
      "gcloud components install gke-gcloud-auth-plugin",
    ),
    (
      'admission webhook "warden-validating" denied the request: GKE Warden rejected '
      "the request: autogke-disallow-hostnamespaces: enabling hostNetwork",
      "set gke.service_account",
    ),
  ],
)
def test_refusals_of_the_cluster_are_one_line_with_the_way_out(on_gke, said, words):
  drive = on_gke()
  drive.target.check(drive.job)
  drive.environment["FAKE_KUBECTL_SAYS"] = said
  with pytest.raises(UserError, match=words) as caught:
    drive.target.find(drive.job)
  assert "\n" not in str(caught.value)


def test_a_cluster_that_does_not_answer_is_asked_again_later(on_gke):
  drive = on_gke()
  drive.target.check(drive.job)
  drive.environment["FAKE_KUBECTL_SAYS"] = (
    "Unable to connect to the server: dial tcp 10.0.0.1:443: i/o timeout"
  )
  with pytest.raises(Failed):
    drive.target.find(drive.job)


def test_without_kubectl_it_says_how_to_get_it(on_gke, tmp_path):
  drive = on_gke()
  (tmp_path / "bin" / "kubectl").unlink()
  with pytest.raises(UserError, match="kubectl is not on PATH: gcloud components"):
    drive.target.check(drive.job)


def test_a_dry_run_prints_what_can_be_pasted_and_needs_nothing(tmp_path):
  said = []
  shell = Shell(dry_run=True, say=said.append, environment={"PATH": str(tmp_path)})
  target = Gke(cloud_jobs.some_settings(), shell, Archive(sha="CODE", data=b""))
  job = cloud_jobs.a_job(provisioning=Provisioning.SPOT, code="CODE")
  target.check(job)
  target.create(job)
  target.stop(job)
  target.delete(job)
  assert [line.split()[0] for line in said] == [
    *("gcloud", "docker", "docker", "kubectl", "kubectl", "kubectl")
  ]
  assert all(
    f"--context={gke_drive.CONTEXT}" in line for line in said if "kubectl" in line
  )
  assert target.find(job).state is State.ABSENT
