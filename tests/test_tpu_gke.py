"""Jobs on a fake cluster: from submission to deletion, with pods taken away."""

import dataclasses
import json
import pathlib
import time

import cloud_jobs
import drives
import fake_cluster
import pytest
from fake_tools import tools

from msm_jax.errors import UserError
from tpu import board as board_lib
from tpu import supervisor
from tpu.board import Submission
from tpu.job import Provisioning, State, Step
from tpu.shell import Failed, Shell
from tpu.targets import jobset
from tpu.targets.gke import Gke

ROOT = pathlib.Path(__file__).parent.parent
CONTEXT = "gke_my-project_us-east5-b_my-cluster"
REPOSITORY = "us-docker.pkg.dev/my-project/msm/msm-jax"
# Counts, in place of training, as far as OUT/goal says when it starts.
_LAUNCH = """
import os, pathlib, runpy, sys
out = pathlib.Path(next(a[10:] for a in sys.argv if a.startswith("--workdir=")))
goal = (out / "goal").read_text() if sys.argv[1] == "run" else "2"
out = out / sys.argv[1]
out.mkdir(exist_ok=True)
os.environ.setdefault("JAX_PROCESS_ID", "0")
assert os.environ["GEMINI_API_KEY"] == "a key"
sys.path[0] = "{tests}"
sys.argv = ["counting_process.py", str(out), goal, "0.02"]
runpy.run_path("{tests}/counting_process.py", run_name="__main__")
"""


class OnGke:
  """A job, its target and a cluster for it."""

  def __init__(self, tmp_path, *, goal=3, settings=None, cluster=None, **fields):
    self.image = image = tmp_path / "image"
    image.mkdir()
    for name in ("tpu", "msm_jax"):
      (image / name).symlink_to(ROOT / name)
    launch = _LAUNCH.format(tests=ROOT / "tests")
    (image / "launch.py").write_text(launch)
    self.out = tmp_path / "out"
    self.out.mkdir()
    self.aim(goal)
    self.root = tmp_path / "cluster"
    given = {"secrets": {"gemini-key": {"GEMINI_API_KEY": "a key"}}}
    fake_cluster.make(self.root, image, **given | (cluster or {}))
    self.job = cloud_jobs.a_job(**fields, workdir=str(self.out))
    self.settings = cloud_jobs.some_settings(
      bucket=str(tmp_path), labels={}, **(settings or {})
    )
    players = dict.fromkeys(("kubectl", "docker", "gcloud"), "cluster_tools.py")
    self.environment = tools.put(
      tmp_path / "bin", players, {"FAKE_CLUSTER": str(self.root)}
    )
    self.target = Gke(self.settings, Shell(environment=self.environment))
    self.board = board_lib.open_(f"{tmp_path}/jobs/{self.job.name}")

  def submit(self):
    self.target.check(self.job)
    self.board.files.make()
    submission = Submission(job=self.job, target="gke", timing=drives.QUICK)
    self.board.submit(submission)
    self.target.create(self.job)

  def aim(self, goal):
    (self.out / "goal").write_text(str(goal))

  def wait_for(self, what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not what(found := self.target.find(self.job)):
      assert time.monotonic() < deadline, (found, self.logs())
      time.sleep(0.2)
    return found

  def wait_for_step(self, number, mode="run"):
    trace = self.out / mode / "trace"

    def is_there(_):
      return trace.exists() and f"0 step {number}\n" in trace.read_text()

    return self.wait_for(is_there)

  def logs(self):
    return [path.read_text() for path in sorted(self.root.glob("pods/*/log"))]

  def trace(self, mode="run"):
    return (self.out / mode / "trace").read_text().splitlines()

  def saved(self):
    return json.loads((self.out / "run" / "count").read_text())[0]

  def starts(self, of=0):
    lines = [line.split() for line in self.trace()]
    return [int(n) for host, word, n in lines if (host, word) == (str(of), "start")]

  def jobset(self):
    with fake_cluster.opened(self.root) as cluster:
      return cluster["jobsets"][self.job.name]

  def order(self, *orders):
    (self.out / "run").mkdir()
    (self.out / "run" / "orders").write_text(json.dumps(orders))


@pytest.fixture
def on_gke(tmp_path):
  made = []

  def make(**how):
    made.append(OnGke(tmp_path, **how))
    return made[-1]

  yield make
  for each in made:
    with fake_cluster.opened(each.root) as cluster:
      for name in list(cluster["jobsets"]):
        fake_cluster.remove(cluster, name)
    assert fake_cluster.left(each.root) == []


def is_done(found):
  return found.says.startswith("completed")


def is_given_up(found):
  return found.state is State.FAILED


def test_a_job_loses_a_node_is_stopped_goes_on_ends_and_is_deleted(on_gke):
  first = Step(name="generate", mode="generate", place="cpu")
  steps = (first, Step(name="study", mode="run"))
  drive = on_gke(slice_="v5p:2x2x2", goal=100_000, steps=steps)
  drive.submit()
  drive.wait_for_step(5)
  found = drive.wait_for(lambda found: found.state is State.READY)
  assert drive.board.attempt("generate").phase == "finished"
  assert [host.rsplit("-", 1)[0] for host in found.hosts] == [
    *("cheese-study-0-0", "cheese-study-0-1")
  ]
  fake_cluster.take_node(drive.root, found.hosts[1], grace_s=0.0)
  # Another pod takes the place of the one that is gone; the other one waits for it.
  again = drive.wait_for(lambda now: now.hosts and now.hosts[1] != found.hosts[1])
  assert again.hosts[0] == found.hosts[0]
  drive.wait_for(lambda _: len(drive.starts()) == 2)

  drive.target.stop(drive.job)
  stopped = drive.target.find(drive.job)
  assert stopped.state is State.ABSENT and stopped.says == "stopped"
  assert stopped.resources == ("jobset cheese",)
  assert not fake_cluster.running(drive.root)
  saved = drive.saved()
  assert saved >= drive.starts()[-1]  # SIGTERM reached the command, which saved

  drive.aim(saved + 5)
  drive.target.create(drive.job)
  done = drive.wait_for(lambda found: found.says.startswith("completed"))
  assert drive.starts()[-1] == saved
  assert drive.board.attempt("study").phase == "finished"
  assert "jobset cheese" in done.resources
  for host in (0, 1):
    began = drive.starts(host)[-1]
    # What process 0 saved, or saves while the other one is about to start.
    assert saved <= began <= saved + 5 * host
    log = list(drive.target.logs(drive.job, host, True))
    assert any(f"counting from {began}" in line for line in log)
  with pytest.raises(UserError, match="--host=5 has no pod"):
    list(drive.target.logs(drive.job, 5, False))
  drive.target.delete(drive.job)
  assert drive.target.find(drive.job).state is State.ABSENT
  drive.target.delete(drive.job)  # again: nothing to do, no error


def test_a_job_is_looked_after_until_it_is_done_and_gone(on_gke):
  drive, said = on_gke(slice_="v5p:2x2x1"), []
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
  drive.wait_for(lambda found: found.says.startswith("completed"))
  hosts = drive.job.machines.num_hosts
  assert {line.split()[0] for line in drive.trace()} == set(map(str, range(hosts)))


def test_a_job_that_a_person_must_mend_is_not_tried_again(on_gke):
  drive = on_gke(slice_="v5p:2x2x1", goal=100)
  drive.order({"host": 0, "step": 3, "code": 2, "times": 9, "says": "error: no key"})
  drive.submit()
  found = drive.wait_for(lambda found: found.state is State.FAILED)
  assert "ended with 2" in found.says
  assert drive.board.attempt("study").phase == "gave_up"
  assert drive.jobset()["status"]["restarts"] == 0


def test_an_image_that_does_not_run_is_tried_a_few_times(on_gke, monkeypatch):
  monkeypatch.setattr(jobset, "MAX_RESTARTS", 2)
  drive = on_gke(slice_="v5p:2x2x1")
  (drive.image / "tpu").unlink()
  drive.submit()
  found = drive.wait_for(lambda found: found.state is State.FAILED)
  assert "ended with 1" in found.says
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


def test_stockout_and_quota_are_told_in_the_words_of_the_cloud(on_gke):
  drive = on_gke(slice_="v5p:2x2x1", cluster={"nodes": 0})
  drive.submit()
  assert "nodes are available" in drive.target.find(drive.job).says
  with fake_cluster.opened(drive.root) as cluster:
    (pod,) = cluster["pods"]
    for why in ("GCE out of resources", "GCE quota exceeded"):
      about = {"involvedObject": {"name": pod}, "reason": "FailedScaleUp"}
      cluster["events"].append(about | {"message": f"Node scale up failed: {why}"})
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


def test_an_image_that_is_not_there_will_never_be(on_gke):
  image = {"image": f"{REPOSITORY}:1"}
  drive = on_gke(slice_="v5p:2x2x1", settings=image)
  drive.submit()
  found = drive.target.find(drive.job)
  assert found.state is State.FAILED
  assert "ErrImagePull" in found.says and "`image` in tpu.toml" in found.says


def test_the_image_is_built_once_and_in_the_cloud_where_there_is_no_docker(on_gke):
  drive = on_gke(slice_="h100:8", cluster={"no_docker": True})
  drive.target.check(drive.job)
  drive.target.push(drive.job, ())
  drive.target.push(drive.job, ())
  with fake_cluster.opened(drive.root) as cluster:
    assert cluster["images"] == [f"{REPOSITORY}:0123456789ab-cuda"]


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
  target = Gke(cloud_jobs.some_settings(), shell)
  job = cloud_jobs.a_job(provisioning=Provisioning.SPOT)
  target.check(job)
  target.create(job)
  target.stop(job)
  target.delete(job)
  assert [line.split()[0] for line in said] == [
    *("gcloud", "docker", "docker", "kubectl", "kubectl", "kubectl")
  ]
  assert all(f"--context={CONTEXT}" in line for line in said if "kubectl" in line)
  assert target.find(job).state is State.ABSENT
