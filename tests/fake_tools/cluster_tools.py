"""kubectl, docker and the two commands of gcloud that go with them, for a fake cluster.

FAKE_CLUSTER names its folder. What a command does not know it refuses, as the real one.
Runs without packages (python -S), which takes a fraction of the time.
"""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import fake_cluster

ROOT = pathlib.Path(os.environ["FAKE_CLUSTER"])


def die(said: str) -> None:
  sys.exit(said)  # stderr, exit code 1


def kubectl(arguments: list[str]) -> None:
  asked = {"--context": "", "--namespace": ""}
  rest = [word for word in arguments if word.partition("=")[0] not in asked]
  asked |= dict(word.split("=") for word in arguments if word not in rest)
  with fake_cluster.opened(ROOT) as cluster:
    if rest == ["config", "get-contexts", "--output=name"]:
      print("\n".join(cluster["contexts"]))
      return
    if asked["--context"] not in cluster["contexts"]:
      context = asked["--context"]
      die(f'error: context "{context}" does not exist')
    if asked["--namespace"] != "default":
      namespace = asked["--namespace"]
      die(f'Error from server (NotFound): namespaces "{namespace}" not found')
    if said := os.environ.get("FAKE_KUBECTL_SAYS"):
      die(said)
    verbs = {"explain": explain, "get": get, "create": create, "patch": patch}
    if rest[0] in verbs:
      verbs[rest[0]](cluster, rest[1:])
    elif rest[0] == "delete":
      delete(cluster, rest[1:])
    elif rest[0] != "logs":
      die(f'error: unknown command "{rest[0]}" for "kubectl"')
  if rest[0] == "logs":
    logs(rest[1:])


def explain(cluster: dict, rest: list[str]) -> None:
  if cluster["jobset"] is None:
    die('error: couldn\'t find resource for "jobset.x-k8s.io/v1alpha2, Kind=jobset"')
  field = rest[0].rsplit(".", 1)[-1]
  if field == cluster["jobset"]:
    die(f'error: field "{field}" does not exist')


def get(cluster: dict, rest: list[str]) -> None:
  kind, options = rest[0], rest[1:]
  if kind == "jobsets.jobset.x-k8s.io,pods":
    label, _, value = options[0].removeprefix("--selector=").partition("=")
    both = [*cluster["jobsets"].values(), *cluster["pods"].values()]
    print_all([one for one in both if one["metadata"]["labels"].get(label) == value])
  elif kind == "events":
    print_all(cluster["events"])
  elif kind == "workloads.kueue.x-k8s.io":
    print_all(list(cluster["workloads"].values()))
  elif kind == "secret":
    print(" ".join(cluster["secrets"].get(options[0], {})))
  elif kind in ("localqueues.kueue.x-k8s.io", "serviceaccounts"):
    known = cluster["queues" if kind[0] == "l" else "serviceaccounts"]
    if known is None:
      die(f'error: the server doesn\'t have a resource type "{kind.split(".")[0]}"')
    if options[0] in known:
      print(f"{kind}/{options[0]}")
  else:
    die(f'error: the server doesn\'t have a resource type "{kind}"')


def print_all(items: list) -> None:
  print(json.dumps({"items": items}))


def create(cluster: dict, rest: list[str]) -> None:
  assert rest == ["--filename=-"], rest
  import site

  site.main()
  import manifests
  import yaml

  manifest = yaml.safe_load(sys.stdin.read())
  name = manifest["metadata"]["name"]
  if faults := manifests.faults(manifest):
    die(f"Error from server (BadRequest): strict decoding error: {', '.join(faults)}")
  if name in cluster["jobsets"]:
    die(f'Error from server (AlreadyExists): jobsets "{name}" already exists')
  fake_cluster.add(cluster, manifest)
  print(f"jobset.jobset.x-k8s.io/{name} created")


def patch(cluster: dict, rest: list[str]) -> None:
  assert rest[1] == "--type=merge", rest
  kind, _, name = rest[0].partition("/")
  change = json.loads(rest[2].removeprefix("--patch="))
  kinds = {
    "jobsets.jobset.x-k8s.io": "jobsets",
    "workloads.kueue.x-k8s.io": "workloads",
  }
  for found in cluster[kinds[kind]].values():
    if found["metadata"]["name"] == name:
      found["spec"].update(change["spec"])
      print(f"{rest[0]} patched")
      return
  die(f'Error from server (NotFound): {kind} "{name}" not found')


def delete(cluster: dict, rest: list[str]) -> None:
  name = rest[0].partition("/")[2]
  if not fake_cluster.remove(cluster, name) and "--ignore-not-found" not in rest:
    die(f'Error from server (NotFound): jobsets "{name}" not found')


def logs(rest: list[str]) -> None:
  folder = ROOT / "pods" / rest[0]
  if not (folder / "log").exists():
    die(f'container "agent" in pod "{rest[0]}" is waiting to start: ContainerCreating')
  if "--tail=1" in rest:
    print(*(folder / "log").read_text().splitlines()[-1:], sep="\n")
    return
  with (folder / "log").open() as log:
    while True:
      is_over = "--follow" not in rest or (folder / "exit").exists()
      sys.stdout.write(log.read())
      sys.stdout.flush()
      if is_over:
        return
      time.sleep(0.05)


def docker(arguments: list[str]) -> None:
  with fake_cluster.opened(ROOT) as cluster:
    if arguments[0] == "version" and cluster.get("no_docker"):
      die("Cannot connect to the Docker daemon. Is the docker daemon running?")
    if arguments[0] == "build":
      cluster["built"] = [a[6:] for a in arguments if a.startswith("--tag=")]
    if arguments[0] == "push":
      if arguments[1] not in cluster.get("built", []):
        die(f"An image does not exist locally with the tag: {arguments[1]}")
      cluster["images"].append(arguments[1])


def gcloud(arguments: list[str]) -> None:
  with fake_cluster.opened(ROOT) as cluster:
    if arguments[:3] == ["container", "clusters", "get-credentials"]:
      options = dict(a.removeprefix("--").split("=") for a in arguments[4:])
      where = f"{options['project']}_{options['location']}"
      if arguments[3] != "my-cluster":
        die(f"ERROR: (gcloud) ResponseError: code=404, message=Not found: {where}.")
      cluster["contexts"].append(f"gke_{where}_{arguments[3]}")
    elif arguments[:4] == ["artifacts", "docker", "images", "describe"]:
      if arguments[4] not in cluster["images"]:
        die("ERROR: (gcloud.artifacts.docker.images.describe) Image not found.")
    elif arguments[:2] == ["builds", "submit"]:
      given = next(a for a in arguments if a.startswith("--substitutions="))
      values = dict(each.split("=") for each in given.partition("^;^")[2].split(";"))
      cluster["images"].append(values["_IMAGE"])
    else:
      die(f"ERROR: (gcloud) Invalid choice: '{arguments[0]}'")


{"kubectl": kubectl, "docker": docker, "gcloud": gcloud}[sys.argv[1]](sys.argv[2:])
