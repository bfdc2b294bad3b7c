"""Pieces that several configs share; a config is whole once they are put together.

`skeleton` has the sections and every field of a stage, `tiny` the embedded world,
`llm` the recipe of Li et al. 2026 for pretrained models, `evals` the evaluations.
What a study resolved to is in WORKDIR/config.json, all defaults included.
"""
