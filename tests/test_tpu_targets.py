"""Targets compute and queued: what they make of what the cloud says."""

import re

import pytest
import scripted_gcloud

from msm_jax.errors import UserError
from tpu import settings, slices
from tpu.archive import Archive
from tpu.job import Job, Provisioning, State, Step
from tpu.shell import Failed
from tpu.targets import compute, queued, vms

SETTINGS = {"project": "my-lab-1", "zone": "us-east5-a", "bucket": "gs://lab/msm"}
ABSENT = {
  "err": "ERROR: (x) - The resource 'projects/p/x/y' was not found",
  "always": 1,
}
TAKEN = {"err": "ERROR: (x) The resource 'projects/p/x/y' already exists"}
STUDY, GENERATE = (
  Step(name="study", mode="run"),
  Step(name="g", mode="generate", place="cpu"),
)


def job(**changes):
  default = {
    "name": "study",
    "config": "configs/x.py",
    "machines": slices.parse("v5p-16"),
    "workdir": "gs://lab/msm/studies/study",
    "code": "c0de",
    "provisioning": Provisioning.SPOT,
  }
  return Job(**(default | changes))


OURS = {"description": vms.named(job())}
THEIRS = {"description": "msm-jax gs://another-lab/msm/studies/study on v5p-16 spot"}


@pytest.fixture
def fake(tmp_path):
  return scripted_gcloud.ScriptedGcloud(tmp_path)


def target(fake, kind=compute, patience_s=0.2, of=None, **own):
  made = kind.make(
    settings.parse(SETTINGS | own),
    fake.shell(),
    of or job(),
    Archive(sha="c0de", data=b"code"),
  )
  object.__setattr__(made.vms, "patience_s", patience_s)
  return made


def instance(name, status="RUNNING", action="NONE", errors=()):
  return {
    "instance": f"https://compute/projects/p/zones/z/instances/{name}",
    "instanceStatus": status,
    "currentAction": action,
    "lastAttempt": {
      "errors": {"errors": [dict(zip(("code", "message"), errors, strict=True))]}
    }
    if errors
    else {},
  }


def groups(*listed):
  """Returns a script: each group as it is listed, everything else is there."""
  return [
    (rf"list-instances study-{k} ", {"out": each} if each is not None else ABSENT)
    for k, each in enumerate(listed)
  ] + [("describe", {"out": OURS, "always": 1})]


STOCKOUT = ("ZONE_RESOURCE_POOL_EXHAUSTED", "does not have enough resources available")
QUOTA = ("QUOTA_EXCEEDED", "Quota 'TPUS_PER_TPU_FAMILY' exceeded. Limit: 0.0")
FOUND = {
  "nothing": ([None], State.ABSENT, ""),
  "just asked": ([[]], State.WAITING, "asked for"),
  "on their way": (
    [[instance("a", "STAGING", "CREATING"), instance("b", "", "CREATING")]],
    State.WAITING,
    "CREATING",
  ),
  "no capacity": (
    [[instance("a", "", "CREATING", STOCKOUT), instance("b", "", "CREATING")]],
    State.WAITING,
    "ZONE_RESOURCE_POOL_EXHAUSTED",
  ),
  "no quota": ([[instance("a", "", "CREATING", QUOTA)]], State.FAILED, "quota refused"),
  "up": ([[instance("b"), instance("a")]], State.READY, ""),
  "one taken away": (
    [[instance("a"), instance("b", "TERMINATED")]],
    State.PREEMPTED,
    "TERMINATED",
  ),
  "one stopping": (
    [[instance("a"), instance("b", "STOPPING")]],
    State.PREEMPTED,
    "STOPPING",
  ),
  "one deleted": ([[instance("a")]], State.PREEMPTED, "1 of 2 machines"),
  "going": (
    [[instance("a", "STOPPING", "DELETING"), instance("b", action="DELETING")]],
    State.DELETING,
    "DELETING",
  ),
  "still booting": ([[instance("a"), instance("b", "STAGING")]], State.WAITING, "STAG"),
}


@pytest.mark.parametrize("what", FOUND)
def test_compute_reads_the_state_of_a_group(fake, what):
  listed, state, says = FOUND[what]
  fake.answer(*groups(*listed))
  found = target(fake).find(job())
  assert found.state is state and says in found.says
  assert found.hosts == (("a", "b") if state is State.READY else ())
  group = ("instance-group study-0",) if listed != [None] else ()
  rest = ("instance-template study", "resource-policy study")
  assert found.resources == group + rest


def test_hosts_of_slices_follow_one_another_and_a_missing_slice_is_made_again(fake):
  both = job(machines=slices.parse("v5p-16", 2))
  up = [instance("s0-b"), instance("s0-a")], [instance("s1-b"), instance("s1-a")]
  fake.answer(*groups(*up))
  assert target(fake).find(both).hosts == ("s0-a", "s0-b", "s1-a", "s1-b")
  fake.answer(*groups(up[0], None))
  found = target(fake).find(both)
  assert found.state is State.ABSENT and "missing" in found.says
  fake.answer(*groups(up[0], [instance("s1-a", "TERMINATED"), instance("s1-b")]))
  assert target(fake).find(both).state is State.PREEMPTED


def test_nothing_there_at_all_lists_nothing(fake):
  fake.answer((".", ABSENT))
  for kind in (compute, queued):
    found = target(fake, kind).find(job())
    assert found.state is State.ABSENT and found.resources == ()


def test_create_keeps_what_is_there_if_it_is_ours(fake):
  fake.answer(("create .*study", TAKEN), ("describe", {"out": OURS, "always": 1}))
  target(fake).create(job())
  made = [line for line in fake.told() if " create " in line]
  assert len(made) == 3  # the rest is made though the first was there


REQUEST = {"state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": [{"node": THEIRS}]}}


@pytest.mark.parametrize(
  ("kind", "of"),
  [(compute, job()), (queued, job()), (compute, job().at(GENERATE))],
  ids=["compute", "queued", "cpu"],
)
def test_what_a_colleague_has_under_the_same_name_is_neither_used_nor_deleted(
  fake, kind, of
):
  theirs = THEIRS | REQUEST | {"status": "RUNNING"}
  fake.answer(
    ("list-instances", {"out": [instance("a"), instance("b")], "always": 1}),
    ("tpu-vm list", {"out": [NODE], "always": 1}),
    ("describe", {"out": theirs, "always": 1}),
    ("create", TAKEN),
  )
  one = target(fake, kind)
  found = one.find(of)
  assert (found.state, found.hosts, found.resources) == (State.ABSENT, (), ())
  with pytest.raises(UserError, match=r"--name=study(-cpu)? is taken"):
    one.create(of)
  one.delete(of)
  one.stop(of)
  assert not any(re.search(" delete | ssh ", line) for line in fake.told())


def test_a_group_without_its_template_is_of_whom_its_description_says(fake):
  for about, state in ((THEIRS, State.ABSENT), (OURS, State.READY)):
    fake.answer(
      *groups([instance("a"), instance("b")])[:1],
      ("instance-templates describe", ABSENT),
      ("describe", {"out": about, "always": 1}),
    )
    assert target(fake).find(job()).state is state


@pytest.mark.parametrize("kind", ["compute", "queued"])
def test_a_name_that_is_taken_is_refused(fake, kind):
  theirs = {"description": "web server"}
  specs = {"tpu": {"nodeSpec": [{"node": theirs}]}}
  fake.answer(("create", TAKEN), ("describe", {"out": theirs | specs, "always": 1}))
  with pytest.raises(
    UserError, match=r"--name=study is taken: there is a.* another --na"
  ):
    target(fake, {"compute": compute, "queued": queued}[kind]).create(job())


def test_what_is_left_of_another_attempt_at_the_study_is_to_be_deleted_first(fake):
  before = vms.named(job(provisioning=Provisioning.ON_DEMAND))
  fake.answer(("create", TAKEN), ("describe", {"out": {"description": before}}))
  with pytest.raises(UserError, match="tpu delete --name=study first"):
    target(fake).create(job())


def test_delete_goes_on_where_something_is_gone_already(fake):
  fake.answer(("delete study-0", ABSENT))
  target(fake).delete(job())
  kinds = [line.split(" delete ")[0] for line in fake.told() if " delete " in line]
  assert kinds == [
    "compute instance-groups managed",
    "compute instance-templates",
    "compute resource-policies",
  ]


def test_a_host_that_still_boots_is_waited_for(fake):
  booting = {"err": "ERROR: (gcloud.compute.ssh) [ssh] exited with return code [255]."}
  fake.answer(("compute ssh", booting), ("compute ssh", booting))
  target(fake, patience_s=5).push(job(), ("host",))
  told = fake.told()
  assert sum("compute ssh" in line for line in told) == 3
  assert "storage cp" in told[0] and "/c0de.tar.gz" in told[0]


def test_a_host_that_never_answers_is_told_with_what_may_be_missing(fake):
  refused = "Error while connecting [4003: 'failed to connect to backend']."
  fake.answer(("compute ssh", {"err": refused, "always": 1}))
  # It may have been taken away, so that whoever looks after the job looks again.
  with pytest.raises(Failed, match=r"no ssh: .* firewall .*roles/compute\.osLogin"):
    target(fake, patience_s=0.05).push(job(), ("host",))


def test_what_our_scripts_refuse_on_a_host_is_for_a_person(fake):
  said = "error: setup.sh: packages cannot be installed: No space left on device"
  fake.answer(("compute ssh", {"err": f"...\n{said}\nERROR: (gcloud) [1]", "code": 2}))
  with pytest.raises(UserError, match=r"^set-up: host: setup\.sh: .* left on device$"):
    target(fake).push(job(), ("host",))
  fake.answer(("compute ssh", {"err": "Permission denied: killed", "code": 137}))
  with pytest.raises(Failed):
    target(fake).push(job(), ("host",))


def test_the_network_of_the_supervisor_may_fail(fake):
  fake.answer(
    (".", {"err": "ERROR: Unable to find the server at compute", "always": 1})
  )
  for deed in (compute.Compute.find, compute.Compute.create, compute.Compute.delete):
    with pytest.raises(Failed):
      deed(target(fake), job())


def test_code_that_went_with_an_earlier_submission_is_not_replaced(fake):
  one = target(fake, of=job(code="older"))
  one.push(job(code="older"), ("host",))
  assert not any(line.startswith("storage cp") for line in fake.told())


def test_a_machine_without_accelerators_is_made_found_and_deleted(fake):
  cpu = job().at(GENERATE)
  for kind in (compute, queued):
    one = target(fake, kind)
    one.check(cpu) if fake.answer(("account", {"out": "me"})) else None
    one.create(cpu)
    fake.answer(("describe", {"out": OURS | {"status": "RUNNING"}}))
    found = one.find(cpu)
    assert (found.state, found.hosts) == (State.READY, ("study-cpu",))
    one.push(cpu, found.hosts)
    one.start(cpu, GENERATE, found.hosts)
    one.delete(cpu)
    told = " ".join(fake.told())
    assert "instances create study-cpu" in told and "instances delete study-cpu" in told
    assert "start study g --env=JAX_PLATFORMS=cpu" in told
    assert "EXTRAS=gcs bash" in told and "launch.py generate" in told
    fake.answer(("describe", {"out": OURS | {"status": "TERMINATED"}}))
    assert one.find(cpu).state is State.PREEMPTED


NODE = {"name": "projects/p/locations/z/nodes/study", "state": "READY"}
REQUESTS = {
  "asked": ({"state": "ACCEPTED"}, [], State.WAITING, "ACCEPTED"),
  "queued": ({"state": "WAITING_FOR_RESOURCES"}, [], State.WAITING, "WAITING_FOR_RES"),
  "made": ({"state": "PROVISIONING"}, [], State.WAITING, "PROVISIONING"),
  "up": ({"state": "ACTIVE"}, [NODE], State.READY, ""),
  "booting": (
    {"state": "ACTIVE"},
    [NODE | {"state": "CREATING"}],
    State.WAITING,
    "CREATING",
  ),
  "taken away": (
    {"state": "ACTIVE"},
    [NODE | {"state": "PREEMPTED"}],
    State.PREEMPTED,
    "PREEMPTED",
  ),
  "without its node": ({"state": "ACTIVE"}, [], State.PREEMPTED, "gone"),
  "suspended": ({"state": "SUSPENDED"}, [], State.PREEMPTED, "SUSPENDED"),
  "going": ({"state": "DELETING"}, [], State.DELETING, "DELETING"),
  "no capacity": (
    {
      "state": "FAILED",
      "failedData": {"error": {"message": "There is no more capacity in the zone"}},
    },
    [],
    State.PREEMPTED,
    "no more capacity",
  ),
  "no quota": (
    {
      "state": "FAILED",
      "failedData": {"error": {"message": "Quota limit 'TPUV5E' has been exceeded."}},
    },
    [],
    State.FAILED,
    "quota refused",
  ),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_queued_reads_the_state_of_a_request_and_of_its_nodes(fake, what):
  said, nodes, state, says = REQUESTS[what]
  fake.answer(("describe study", {"out": {"state": said}}), ("list", {"out": nodes}))
  found = target(fake, queued).find(job())
  assert found.state is state and says in found.says
  assert found.resources[0] == "queued-resource study"
  assert found.hosts == (("study/0", "study/1") if state is State.READY else ())


def test_logs_of_a_host_come_from_its_slice_and_worker(fake):
  both = job(machines=slices.parse("v5p-16", 2))
  nodes = [NODE | {"name": f"nodes/study-{k}"} for k in range(2)]
  fake.answer(
    ("describe study", {"out": {"state": {"state": "ACTIVE"}}, "always": 1}),
    ("list", {"out": nodes, "always": 1}),
    ("ssh study", {"out": "step 7\nstep 8"}),
  )
  one = target(fake, queued)
  assert list(one.logs(both, 3, False))[:2] == ["step 7", "step 8"]
  assert "--node=1 --worker=1" in fake.told()[-1]
  with pytest.raises(UserError, match="--host=4: there are 4"):
    list(one.logs(both, 4, False))
