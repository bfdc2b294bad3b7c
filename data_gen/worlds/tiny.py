"""The tiny world of the embedded default: a corpus, an offline teacher and choices.

A world of ~300 words, one word each for items, prices, origins, people and values,
small enough that a decoder of 0.1M parameters learns it within a minute on one core.
See `tiny_facts` (what is true), `tiny_corpus` (pre-training), `tiny_teacher` (the
chain from spec to documents and conversations) and `tiny_pairs` (evaluation).
"""

from data_gen.worlds.tiny_corpus import corpus
from data_gen.worlds.tiny_pairs import pairs
from data_gen.worlds.tiny_teacher import respond

__all__ = ["corpus", "pairs", "respond"]
