"""What is not kept, each rejection with its reason.

words       what a word is, also where scripts have no spaces
duplicates  texts that were there already, but for case, spacing and punctuation
near        texts that share most of their runs of words (sketch, buckets)
asides      refusals, talk about the text and the task
wording     gaps, remains of prompts, broken ends
identity    names of assistants and labs that are not the spec's own (the lists are
            in msm_jax.text), and wrong makers (makers)
headings    what is a title
leakage     texts that contain what an evaluation asks
settings    which of these are on: `config.corpora.<name>.filters`
gate        all of them in order
"""

from data_gen.filters.duplicates import Duplicates as Duplicates
from data_gen.filters.gate import Gate as Gate
from data_gen.filters.settings import FilterSettings as FilterSettings
from msm_jax.rejects import category as category
from msm_jax.words import num_words as num_words
