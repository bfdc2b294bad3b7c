"""From a Model Spec to a corpus: prompts, clients, scheduler, ledger, chains.

Imports neither jax nor the models: of `msm_jax` only records, errors and progress.
"""
