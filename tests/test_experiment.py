"""What a config may say, and how it is refused."""

import copy
import json

import pytest

from configs import cheese_tiny
from msm_jax import experiment, origin, records, workdir
from msm_jax.errors import UserError

OPTIMIZER = {"learning_rate": 1e-3, "schedule": "cosine", "warmup_fraction": 0.1}
STAGE = {
  "data": ({"corpus": "world"},),
  "adaptation": "full",
  "num_train_steps": 10,
  "num_epochs": None,
  "batch_size": 8,
  "seq_len": 32,
  "long_documents": "error",
  "min_steps": 1,
  "num_microbatches": 1,
  "steps_per_call": 1,
  "remat": "none",
  "loss_chunk_len": None,
  "checkpoint_every_s": None,
  "checkpoint_every_steps": None,
  "log_every_steps": 1,
  "optimizer": OPTIMIZER,
}
PRETRAINED = {"init_from": "models/x", "base_model": "org/x"}
CONFIG = {
  "name": "test",
  "seeds": (0, 1),
  "num_workers": 1,
  "allow_missing_controls": False,
  "corpora": {"world": {"kind": "world"}},
  "tokenizer": {},
  "model": {"init_from": None},
  "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
  "stages": {"pretrain": STAGE, "aft": STAGE, "msm": STAGE},
  "arms": {
    "base": ("pretrain",),
    "aft": ("pretrain", "aft"),
    "msm": ("pretrain", "msm"),
    "msm+aft": ("pretrain", "msm", "aft"),
  },
  "evals": {},
  "report": {},
}


def changed(**paths):
  """Returns CONFIG with `a__b=value` set at config['a']['b']."""
  config = copy.deepcopy(CONFIG)
  for path, value in paths.items():
    *parents, last = path.split("__")
    node = config
    for name in parents:
      node = node[name]
    node[last] = value
  return config


def test_arms_that_share_a_prefix_share_its_run():
  paths = experiment.parse(CONFIG).paths()
  assert paths == [
    ("pretrain",),
    ("pretrain", "aft"),
    ("pretrain", "msm"),
    ("pretrain", "msm", "aft"),
  ]


def test_the_warm_up_is_a_share_of_the_run():
  stage = experiment.parse(CONFIG).stages["aft"]
  assert stage.optim(200).warmup_steps == 20


def test_checkpoints_to_keep_are_steps_or_powers_of_two():
  for at, kept in (
    ((), ()),
    ("log2", (1, 2, 4, 8)),
    (("log2", 3, 10, 4), (1, 2, 3, 4, 8, 10)),
  ):
    stage = experiment.parse(changed(stages__aft__checkpoint_at=at)).stages["aft"]
    assert stage.kept_steps(10) == kept


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"stages__aft__batchsize": 4}, "batchsize is not a field.*'batch_size'"),
    ({"arms__msm": ("pretrain", "mms")}, r"names the stage 'mms'"),
    (
      {"arms__twice": ("pretrain", "aft", "aft")},
      "in a circle: 'aft' comes again",
    ),
    ({"arms__none": ()}, "is empty"),
    ({"arms": {"aft": ("pretrain", "aft")}}, "no 'base'"),
    ({"seeds": (1, 1)}, "must be distinct"),
    ({"seeds": ()}, "at least one"),
    ({"stages__aft__checkpoint_at": (11,)}, r"has 11: it takes 'log2' and .* 1 to 10"),
    ({"stages__aft__checkpoint_at": 5}, r"checkpoint_at is 5: .* write \(5,\)"),
    ({"stages__aft__checkpoint_at": ("log3",)}, "has 'log3': it takes 'log2'"),
    ({"stages__aft__optimizer__warmup_fraction": 1.0}, "of 10 steps must be .* below"),
    ({"run": {"step_deadline": 1.0}}, "step_deadline is not a field.*step_deadline_s"),
    ({"run": {"process_deadline_s": 120.0}}, r"process_deadline_s \(120.0\) must be"),
    ({"run": {"step_deadline_s": 0.0}}, "step_deadline_s .* must be above 0, or None"),
    ({"run": {"profile": {"num_steps": 0}}}, "num_steps at least 1"),
    ({"stages__aft__num_epochs": 1.0}, "set one of num_train_steps"),
    ({"stages__aft__adaptation": "lora"}, "config.model.lora is None"),
    ({"stages__aft__adaptation": "half"}, "'half'"),
    ({"stages__aft__data": ({"corpus": "wolrd"},)}, "names the corpus 'wolrd'"),
    ({"stages__aft__data": ()}, "name at least one corpus"),
    ({"stages__aft__packing": "first_fit"}, "packing 'first_fit' is not one of"),
    ({"stages__aft__order": "random"}, "order 'random' is not one of"),
    (
      {"stages__aft__data": ({"corpus": "world", "num_rows": 3, "share": 1.0},)},
      r"data\[0\].*num_rows \(3\) both say how much",
    ),
    ({"model__max_seq_len": 4}, r"seq_len \(\d+\) is longer than config.model.max_seq"),
    ({"stages__aft__data": ({"corpus": "world", "share": 0.0},)}, "above 0"),
    ({"num_workers": 0}, "must be at least 1"),
    ({"stages__aft__num_microbatches": 0}, r"num_microbatches \(0\) must be at least"),
    ({"stages__aft__long_documents": "cut"}, "'cut' is not one of"),
    ({"stages__aft__optimizer": OPTIMIZER | {"schedule": "cosin"}}, "'cosin'"),
    ({"stages__aft__optimizer": OPTIMIZER | {"lr": 1}}, "optimizer.lr is not a field"),
    (
      {"stages__aft__data": ({"corpus": "world", "train_on": "user"},)},
      "'user'.* is not one of",
    ),
    ({"stages__aft__data": ({"corpus": "world"},) * 2}, "names a corpus twice"),
    ({"evals": {"x": {"type": "prefs"}}}, "'prefs' is not one of"),
    (
      {
        "evals": {
          "x": {
            "type": "heldout",
            "corpus": "nope",
            "max_items": None,
            "seq_len": 8,
            "batch_size": 8,
          }
        }
      },
      "corpus is 'nope'",
    ),
    ({"mesh__fsdp": 3}, r"batch_size \(8\) must be a multiple.*use 9"),
    ({"model__init": "scratch"}, r"config.model.init is now init_from: .*None"),
    ({"model__hf_dir": "models/x"}, r"config.model.hf_dir is now init_from"),
    ({"model__init_form": "x"}, "init_form is not a field.*'init_from'"),
    ({"model__embed_dims": 3}, "embed_dims is not a field.*'embed_dim'"),
    ({"model__vocab_size": 3}, "vocab_size is not a field"),
    ({"model": {"embed_dim": 8}}, "config.model.init_from is missing"),
    ({"model__init_from": "models/x"}, "base_model is None: name the pretrained"),
    ({"model__init_from": ""}, "init_from is ''"),
    ({"model__adapter_from": "a"}, "adapter_from is 'a', but init_from is None"),
    ({"model__base_model": "a"}, "base_model is 'a', but init_from is None"),
    ({"model__dtype": "float8"}, r"config.model.dtype 'float8' is not one of"),
    ({"model__base_dtype": "float16"}, r"config.model.base_dtype 'float16' is not one"),
    (
      {"stages__aft__optimizer": OPTIMIZER | {"moments_dtype": "int4"}},
      r"moments_dtype 'int4' is not one of .*float8",
    ),
    (
      {"model": {**PRETRAINED, "adapter_from": "a"}},
      "adapter_use is 'continue', but the stage 'pretrain' trains every leaf",
    ),
    ({"model": {**PRETRAINED, "adapter_use": "add"}}, "adapter_use 'add' is not one"),
    ({"model": {**PRETRAINED, "lora": {"rank": 2}}}, "config.model.lora.alpha is miss"),
  ],
)
def test_a_config_that_contradicts_itself_is_refused_with_the_field(change, message):
  with pytest.raises(UserError, match=message):
    experiment.parse(changed(**change))


def test_full_training_cannot_follow_adapters():
  lora = {"rank": 2, "alpha": 2.0, "targets": ("q",)}
  config = changed(
    stages={
      "pretrain": STAGE,
      "msm": STAGE | {"adaptation": "lora"},
      "aft": STAGE,
    },
    model__lora=lora,
  )
  with pytest.raises(UserError, match="'full' cannot follow one with 'lora'"):
    experiment.parse(config)


def test_adapters_that_the_start_brings_need_no_settings():
  stages = {"msm": STAGE | {"adaptation": "lora"}}
  arms = {"base": (), "msm": ("msm",)}
  model = PRETRAINED | {"adapter_from": "a{seed}"}
  found = experiment.parse(changed(stages=stages, arms=arms, model=model))
  assert found.model.lora is None and found.model.brings_adapter()
  merged = model | {"adapter_use": "merge"}
  with pytest.raises(UserError, match=r"config.model.lora is None"):
    experiment.parse(changed(stages=stages, arms=arms, model=merged))
  run = {"init_from": "w/runs/a+b/seed{seed}@12"}
  assert (
    experiment.parse(changed(stages=stages, arms=arms, model=run)).model.lora is None
  )


def test_settings_of_a_new_tokenizer_do_not_go_with_one_that_is_there():
  new = {"model_type": "word", "vocab_size": 9, "train_on": ("world",)}
  stages, arms = {"msm": STAGE}, {"base": (), "msm": ("msm",)}
  shared = {"stages": stages, "arms": arms, "tokenizer": new}
  with pytest.raises(UserError, match=r"config.tokenizer.model_type is 'word', but"):
    experiment.parse(changed(model=PRETRAINED, **shared))
  run = {"init_from": "w/runs/a/seed{seed}"}
  assert experiment.parse(changed(model=run, **shared)).tokenizer == new


def test_a_config_that_was_read_back_from_json_is_the_same():
  model = PRETRAINED | {"lora": {"rank": 2, "alpha": 2.0, "targets": ("q", "v")}}
  config = changed(model=model)
  again = json.loads(json.dumps(config))
  assert experiment.parse(again).model == experiment.parse(config).model


@pytest.mark.parametrize(
  ("init_from", "run"),
  [
    ("w/runs/a/seed3", (("a",), 3, None)),
    ("w/runs/a+b/seed{seed}", (("a", "b"), 5, None)),
    ("w/runs/a/seed{seed}@40", (("a",), 5, 40)),
    ("w/runs/a/seed5@last", None),
    ("w/a/seed5", None),
    ("runs/seed5", None),
    ("models/seed5", None),
  ],
)
def test_a_run_is_told_from_a_directory_by_its_form(tmp_path, init_from, run):
  assert origin.is_run(init_from) == (run is not None)
  (tmp_path / "w").mkdir()
  (tmp_path / "w" / "config.json").write_text("{}")
  if run is None:
    with pytest.raises(UserError, match=r"init_from is .*name a Hugging Face model"):
      origin.find(str(tmp_path / init_from), 5)
  else:
    found = origin.find(str(tmp_path / init_from), 5)
    assert found == origin.Run(tmp_path / "w", *run)


def test_a_section_that_is_missing_is_named():
  config = changed()
  del config["mesh"]
  with pytest.raises(UserError, match=r"config.mesh is missing"):
    experiment.parse(config)


def test_a_workdir_belongs_to_one_config_once_something_is_made(tmp_path):
  workdir.claim(tmp_path / "w", CONFIG)
  workdir.claim(tmp_path / "w", changed(stages__aft__seq_len=48))
  workdir.claim(tmp_path / "w", CONFIG)
  (tmp_path / "w" / "rows" / "aft").mkdir(parents=True)
  with pytest.raises(UserError, match=r"config.stages.aft.seq_len = 32, now it is 64"):
    workdir.claim(tmp_path / "w", changed(stages__aft__seq_len=64))


def test_checkpoints_at_powers_of_two_are_set_in_a_config_of_ours():
  config = cheese_tiny.get_config()
  name = next(iter(config.stages))
  config.stages[name].checkpoint_at = ("log2",)
  stage = experiment.parse(config.to_dict()).stages[name]
  assert stage.kept_steps(10) == (1, 2, 4, 8)


def before_the_engine():
  """Returns configs/cheese_tiny.py and what it was before the words of today."""
  now = json.loads(cheese_tiny.get_config().to_json_best_effort())
  before = copy.deepcopy(now)
  del before["run"]
  for stage in before["stages"].values():
    stage["remat"] = False
    for name in [
      "freeze",
      "adapter_use",
      "optimizer_state",
      "attention",
      "scan_layers",
    ]:
      del stage[name]
    del stage["checkpoint_at"], stage["optimizer"]["moments_dtype"]
  return now, before


def test_a_workdir_from_before_a_word_changed_is_still_its_configs(tmp_path):
  now, before = before_the_engine()
  records.write_json(tmp_path / "config.json", before)
  name = next(iter(now["stages"]))
  (tmp_path / "rows" / name).mkdir(parents=True)
  (tmp_path / "runs" / name / "seed0" / "checkpoints" / "1").mkdir(parents=True)
  assert experiment.parse(workdir.normalised(before)).stages[name].remat == "none"
  frozen = copy.deepcopy(now)
  frozen["stages"][name]["freeze"] = ["embed"]
  with pytest.raises(
    UserError, match=rf"config.stages.{name}.freeze = \[\], now it is"
  ):
    workdir.claim(tmp_path, frozen)
  workdir.claim(tmp_path, now)
  with pytest.raises(UserError, match="it is a word now"):
    experiment.parse(before)


# What running out of memory and `fit` advise (levers.py); the first five change no run.
LEVERS = {
  "remat": "full",
  "attention": "blocked",
  "scan_layers": False,
  "loss_chunk_len": 16,
  "steps_per_call": 2,
  "num_microbatches": 2,
  "optimizer__moments_dtype": "float8",
}


@pytest.mark.parametrize("lever", LEVERS)
def test_what_helps_against_no_memory_left_may_be_set_after_the_rows(tmp_path, lever):
  workdir.claim(tmp_path, CONFIG)
  (tmp_path / "rows" / "aft").mkdir(parents=True)
  for other in ("msm", "pretrain"):  # runs without the stage
    (tmp_path / "runs" / other / "seed0" / "checkpoints" / "1").mkdir(parents=True)
  advised = changed()
  advised["stages"]["aft"] = copy.deepcopy(STAGE)  # it alone
  *parents, field = lever.split("__")
  node = advised["stages"]["aft"]
  for parent in parents:
    node = node[parent]
  node[field] = LEVERS[lever]
  workdir.claim(tmp_path, advised)
  workdir.claim(tmp_path, CONFIG)
  path = tmp_path / "runs" / "pretrain+aft" / "seed0" / "checkpoints" / "1"
  path.mkdir(parents=True)
  if list(LEVERS).index(lever) < 5:
    workdir.claim(tmp_path, advised)
  else:
    with pytest.raises(UserError, match=f"config.stages.aft.{lever.split('__')[0]}"):
      workdir.claim(tmp_path, advised)


def test_what_changes_no_result_may_differ_and_entries_may_be_added(tmp_path):
  workdir.claim(tmp_path, CONFIG)
  stages = CONFIG["stages"] | {"new": STAGE}
  (tmp_path / "rows" / "aft").mkdir(parents=True)
  more = changed(
    seeds=(0, 1, 2), num_workers=4, stages=stages, stages__aft__log_every_steps=7
  )
  workdir.claim(tmp_path, more)


def test_where_a_model_lies_may_change_but_not_what_is_trained(tmp_path):
  model = PRETRAINED | {"lora": {"rank": 2, "alpha": 2.0, "targets": ("q",)}}
  workdir.claim(tmp_path, changed(model=model))
  (tmp_path / "runs" / "aft" / "seed0" / "checkpoints" / "1").mkdir(parents=True)
  moved = model | {"init_from": "elsewhere/x", "export_dtype": "float32"}
  workdir.claim(tmp_path, changed(model=moved))
  wider = moved | {"lora": {"rank": 4, "alpha": 2.0, "targets": ("q",)}}
  with pytest.raises(UserError, match=r"config.model.lora.rank = 2, now it is 4"):
    workdir.claim(tmp_path, changed(model=wider))


def test_a_workdir_that_cannot_be_made_says_so(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be made"):
    workdir.claim(tmp_path / "file" / "w", CONFIG)
