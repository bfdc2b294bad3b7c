"""Has gcloud's own parser read commands, without running them: needs no network.

Run by the Python of the Google Cloud CLI, with its folder; reads commands from stdin,
one JSON list a line, and prints a line for each: "" or what the parser says.
"""

import io
import json
import os
import sys
import tempfile

root, out = sys.argv[1], sys.stdout
sys.path[:0] = [f"{root}/lib", f"{root}/lib/third_party"]
os.environ["CLOUDSDK_CONFIG"] = tempfile.mkdtemp()
os.environ["CLOUDSDK_CORE_DISABLE_PROMPTS"] = "1"
sys.stderr = sys.stdout = said = io.StringIO()  # gcloud keeps what it finds there

from googlecloudsdk import gcloud_main  # noqa: E402

cli = gcloud_main.CreateCLI([])
parser = cli._CLI__parser
for line in sys.stdin:
  said.seek(0)
  said.truncate()
  try:
    parser.parse_args(json.loads(line))
    print("", file=out)
  except SystemExit as error:
    words = " ".join(said.getvalue().split())
    print("" if not error.code else words or "refused", file=out)
  except Exception as error:  # of the parser: the command is wrong
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=out)
