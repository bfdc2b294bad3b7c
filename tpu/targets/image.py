"""The container image of a job: built from Dockerfile, or one that exists.

`image` in tpu.toml with a tag or digest (REPOSITORY:1, REPOSITORY@sha256:...) exists
and is used as it is, code included. Without one it is a repository: the working tree is
built into REPOSITORY:CODE-EXTRA and pushed, unless that is there.
"""

import dataclasses

from msm_jax.errors import UserError
from tpu.job import Cpu, Gpus, Job
from tpu.settings import Settings
from tpu.shell import Failed, Shell

CLOUD_BUILD = "tpu/templates/cloudbuild.yaml"
_TIMEOUT_S = 3600.0  # of a build, or of gigabytes on their way


@dataclasses.dataclass(frozen=True)
class Image:
  """The image of one job, wherever it comes from."""

  job: Job
  settings: Settings
  shell: Shell
  tree: str  # hash of the working tree, which is what can be built

  @property
  def exists_already(self) -> bool:
    """Returns whether tpu.toml names an image rather than a repository."""
    last = self.settings.image.rpartition("/")[2]
    return ":" in last or "@" in last

  @property
  def name(self) -> str:
    """Returns the name with its tag."""
    if self.exists_already:
      return self.settings.image
    # CPU steps of a job run in the image of its accelerators.
    return f"{self.settings.image}:{self.job.code}-{self._extra}"

  def make(self) -> None:
    """Builds and pushes the image where that is to be done.

    Raises:
      UserError: it cannot be built or pushed, or is of code that is not here.
    """
    if self.exists_already or self._is_pushed():
      return
    if self.job.code != self.tree:
      raise UserError(
        f"--name={self.job.name}: {self.name} is not in its registry (or gcloud cannot "
        "see it), and the code here is another: go on from where it was submitted, or "
        f"python -m tpu delete --name={self.job.name} and run it again"
      )
    if self.shell.dry_run or self._has_docker():
      self._build_here()
    else:
      self._build_in_cloud()

  @property
  def _extra(self) -> str:
    kinds = {Gpus: "cuda", Cpu: "cpu"}
    return kinds.get(type(self.job.machines), "tpu")

  @property
  def _extras(self) -> str:
    return "gcs" if self._extra == "cpu" else f"{self._extra},gcs"

  @property
  def _run_as(self) -> str:
    return "root" if self._extra == "tpu" else "msm"  # see Dockerfile

  def _is_pushed(self) -> bool:
    if self.shell.dry_run:
      return False
    question = ["gcloud", "artifacts", "docker", "images", "describe", self.name]
    try:
      self.shell.ask(question)
    except (Failed, UserError):  # not there, or in a registry that is not Google's
      return False
    return True

  def _has_docker(self) -> bool:
    try:
      self.shell.ask(["docker", "version"])  # fails without its daemon
    except (Failed, UserError):
      return False
    return True

  def _build_here(self) -> None:
    build = ["docker", "build", f"--tag={self.name}", "--platform=linux/amd64"]
    build += [
      f"--build-arg=EXTRAS={self._extras}",
      f"--build-arg=RUN_AS={self._run_as}",
    ]
    self._do([*build, "."], "see what docker says above the error")
    host = self.name.partition("/")[0]
    self._do(
      ["docker", "push", self.name],
      f"log in to the registry (gcloud auth configure-docker {host}), or make it "
      "(gcloud artifacts repositories create)",
    )

  def _build_in_cloud(self) -> None:
    values = {"_IMAGE": self.name, "_EXTRAS": self._extras, "_RUN_AS": self._run_as}
    # Values have commas: gcloud is told to separate by semicolons (gcloud topic
    # escaping).
    given = ";".join(f"{name}={value}" for name, value in values.items())
    build = ["gcloud", "builds", "submit", f"--project={self.settings.project}"]
    build += [f"--config={CLOUD_BUILD}", f"--substitutions=^;^{given}", "."]
    self._do(
      build,
      "enable Cloud Build (gcloud services enable cloudbuild.googleapis.com), or start "
      "Docker here",
    )

  def _do(self, argv: list[str], way_out: str) -> None:
    patient = dataclasses.replace(self.shell, timeout_s=_TIMEOUT_S)
    try:
      patient.do(argv)
    except Failed as error:
      words = error.said.strip().splitlines() or ["no reason given"]
      raise UserError(f"{' '.join(argv[:2])}: {words[-1]}: {way_out}") from None
