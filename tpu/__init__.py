"""From a laptop to many chips and back: `python -m tpu VERB --config=... --slice=...`

given.py       what the command line says; asked.py: the job that it comes to
study.py       the config of a study; fitting.py: whether it fits the slice
inputs.py      whether machines get the files that it names
job.py         what is asked: config, machines, steps
settings.py    tpu.toml: project, zone, bucket, service account
slices.py      what a slice is called, where there are any, what it costs
shell.py       the one door to gcloud, kubectl, ssh, docker, sbatch
archive.py     the code of a job: what git would commit
gcloud.py      flags and errors of gcloud; remote.py, on_host.sh: what hosts are told
targets/       how machines are got and given back, one file per kind of cloud
templates/     texts that targets fill in
supervisor.py  looks after a job: creates, starts, recreates, gives up
submitting.py  whether a job is new, goes on, or contradicts one under way; ending.py:
               waiting for what ends by itself
presence.py    when machines came and went
status.py      how far a job is, what it cost, what went wrong, what is there
host.py        runs on every machine: waits for the others, runs the command again
attempts.py    what host 0 decides; pulse.py: which hosts live
command.py     the command of a host; gathering.py: its log, and how far it is
board.py       where hosts and supervisor leave word for each other: the bucket
timing.py      how long who waits for what
"""
