"""tpu.toml: what it says, what it may not, what is missing."""

import math
import pathlib
import re
import tomllib

import pytest

from msm_jax.errors import UserError
from tpu import settings

TEMPLATE = pathlib.Path(__file__).parent.parent / settings.TEMPLATE


def test_the_template_has_every_field_and_nothing_else():
  full = re.sub(r"^# (?=\[|\w+ = |\"\"\"|module)", "", TEMPLATE.read_text(), flags=re.M)
  said = tomllib.loads(full)
  assert settings.parse(said) == settings.parse(said)
  for section, cls in [("", settings.Settings), *settings._SECTIONS.items()]:
    table = said[section] if section else said
    fields = set(cls.__dataclass_fields__) - {"where"}
    assert set(table) == fields, section or "top level"


def test_the_template_as_it_is_is_enough_for_compute():
  settings.load(TEMPLATE).need("compute", "project", "zone", "bucket")


def test_what_is_missing_is_named_with_the_target_that_needs_it():
  bare = settings.parse({"bucket": "gs://lab"}, "my.toml")
  with pytest.raises(
    UserError, match=r"my.toml: --target=gke needs project and gke.cl"
  ):
    bare.need("gke", "bucket", "project", "gke.cluster")


BAD = [
  ({"zome": "us-east5-b"}, "did you mean 'zone'?"),
  ({"gke": {"cluser": "x"}}, "gke.cluser is not a field of the settings: did you mean"),
  ({"where": "x"}, "where is not a field"),
  ({"zone": "us-east5"}, "must be a zone"),
  ({"bucket": "my-bucket"}, "must be gs://BUCKET/PREFIX or a /path"),
  ({"bucket": "s3://x"}, "must be gs://BUCKET/PREFIX or a /path"),
  ({"project": "My Project"}, "must be a project ID"),
  ({"service_account": "msm"}, "must be an e-mail address"),
  ({"compute": {"disk_gb": "200"}}, "disk_gb = '200' must be a whole number"),
  ({"compute": {"disk_gb": True}}, "disk_gb = True must be a whole number"),
  ({"compute": {"external_ip": 1}}, "external_ip = 1 must be true or false"),
  ({"compute": {"flex_hours": -1}}, "must not be negative"),
  ({"compute": "x"}, "must be a table"),
  ({"prices": {"v6e": {"spot": "cheap"}}}, "prices.v6e: spot = 'cheap' must be a numb"),
  ({"labels": {"Team": "x"}}, "lower-case letters"),
  ({"compute": {"flex_hours": math.nan}}, "flex_hours = nan must not be negative or"),
  ({"labels": {"team": 1}}, "labels.team must be a text in quotes"),
  ({"labels": "team"}, "labels must be a table"),
  ({"slurm": {"directory": "msm"}}, "slurm.directory = 'msm' must be a /path"),
  ({"slurm": {"directory": "/a b"}}, "slurm.directory = '/a b' must be a /path"),
  ({"slurm": {"time_limit": "12h"}}, "slurm.time_limit = '12h' must be minutes"),
  ({"slurm": {"login": "-oX=y"}}, "slurm.login = '-oX=y' must be HOST or"),
  ({"secrets": {"MY-KEY": "x"}}, "not the name of an environment variable"),
  ({"environment": {"OPENAI_API_KEY": "x"}}, r"OPENAI_API_KEY = \"its name there\""),
]


@pytest.mark.parametrize("said, way_out", BAD)
def test_what_cannot_be_is_refused_with_the_field(said, way_out):
  with pytest.raises(UserError, match=way_out):
    settings.parse(said)


@pytest.mark.parametrize("key", ["sk-abc123", "AIzaSyD0", "hf_" + "a" * 30, "a b"])
def test_a_key_in_place_of_its_name_is_refused_and_not_repeated(key):
  with pytest.raises(UserError, match="the name that the secret store has") as caught:
    settings.parse({"secrets": {"API_KEY": key}})
  assert key not in str(caught.value)


@pytest.mark.parametrize(
  ("name", "value"),
  [("X", "sk-ant-api03-a"), ("PROXY", "http://me:pa55@proxy:80"), ("MY_KEY", "a55")],
)
def test_a_key_among_the_variables_is_refused_and_not_repeated(name, value):
  with pytest.raises(UserError, match=f"environment.{name} looks like a key") as caught:
    settings.parse({"environment": {name: value}})
  with pytest.raises(UserError, match=r"environment\.B must be a text") as other:
    settings.parse({"environment": {name: value, "B": 1}})
  assert value not in str(caught.value) and value not in str(other.value)


def test_variables_that_are_no_keys_are_taken():
  said = {"MONKEYS": "2", "GOOGLE_APPLICATION_CREDENTIALS": "/a/b", "A": "http://h:80"}
  assert settings.parse({"environment": said}).environment == said


def test_what_is_no_toml_says_where(tmp_path):
  path = tmp_path / "tpu.toml"
  path.write_text("zone = us-east5-b\n")
  with pytest.raises(UserError, match=r"tpu.toml: cannot be read as TOML: .*line 1"):
    settings.load(path)
