"""gcloud's errors: one line with the way out, or to be tried again."""

import pathlib
import tomllib

import pytest
import scripted_gcloud

from msm_jax.errors import UserError
from tpu import gcloud, settings
from tpu.shell import Failed

WORDS = tomllib.loads(pathlib.Path(__file__).with_name("gcloud_words.toml").read_text())
FOR_PEOPLE = {
  "NO_ACCOUNT": "no credentials: gcloud auth login",
  "QUOTA_TPU": "ask for more at console.cloud.google.com/iam-admin/quotas",
  "QUOTA_GCE": "quota refused",
  "NO_MACHINE": "this zone does not have that chip",
  "IAP": "roles/iap.tunnelResourceAccessor",
  "DISABLED": "gcloud services enable",
  "FORBIDDEN": "roles/compute.instanceAdmin.v1",
  "OLD": "gcloud components update",
  "ORGANISATION": "external_ip = false",
  "ZONE": "gcloud compute zones list",
  "STRANGE": "The moon is in the wrong house.",
}
PASSING = ["STOCKOUT_TPU", "STOCKOUT_GCE", "UNAVAILABLE", "BOOTING", "RATE"]


@pytest.fixture
def fake(tmp_path):
  return scripted_gcloud.ScriptedGcloud(tmp_path)


@pytest.fixture
def cloud(fake):
  own = settings.parse({"project": "my-lab-1", "zone": "us-east5-b"})
  return gcloud.Gcloud(fake.shell(), own)


@pytest.mark.parametrize("said", FOR_PEOPLE)
def test_what_a_person_can_fix_is_one_line_with_the_way_out(fake, cloud, said):
  for deed in (cloud.do, cloud.ask):
    fake.answer(("create", {"err": WORDS[said]}))
    with pytest.raises(UserError) as caught:
      deed("machine x", "compute", "create", "x")
    line = str(caught.value)
    assert line.startswith("machine x: ") and FOR_PEOPLE[said] in line
    assert "\n" not in line and "ERROR" not in line and len(line) < 700


@pytest.mark.parametrize("said", PASSING)
def test_what_passes_by_itself_is_left_to_whoever_waits(fake, cloud, said):
  fake.answer(("create", {"err": WORDS[said]}))
  with pytest.raises(Failed):
    cloud.do("machine x", "compute", "create", "x")


def test_capacity_is_told_from_quota():
  assert gcloud.is_capacity(WORDS["STOCKOUT_GCE"]) and gcloud.is_capacity(
    WORDS["STOCKOUT_TPU"]
  )
  assert not gcloud.is_capacity(WORDS["QUOTA_GCE"]) and not gcloud.is_capacity(
    WORDS["QUOTA_TPU"]
  )


def test_what_is_not_there_is_told_from_a_place_that_is_not_there(fake, cloud):
  absent = "ERROR: (x) - The resource 'projects/p/zones/z/instances/x' was not found"
  fake.answer(("describe", {"err": absent}), ("delete", {"err": absent}))
  assert cloud.ask("machine x", "compute", "describe", "x") is None
  assert cloud.do("machine x", "compute", "delete", "x", absent_ok=True) == ""
  fake.answer(("describe", {"err": WORDS["ZONE"]}))
  with pytest.raises(UserError, match="there is no such zone"):
    cloud.ask("machine x", "compute", "describe", "x")


def test_the_words_of_the_api_are_found_in_its_json():
  assert gcloud.words(WORDS["QUOTA_TPU"]).startswith(
    "Quota limit 'TPUV6EPreemptiblePerProject"
  )
  assert gcloud.words(WORDS["STOCKOUT_TPU"]).startswith(
    "There is no more capacity in the zone"
  )


def test_nobody_logged_in_is_noticed_before_anything_is_made(fake, cloud):
  fake.answer(("config get-value account", {"out": "(unset)"}))
  with pytest.raises(UserError, match="gcloud auth login"):
    gcloud.check_ready(cloud)
  fake.answer(("config get-value account", {"out": "me@lab.org"}))
  gcloud.check_ready(cloud)
