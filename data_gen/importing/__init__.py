"""Somebody's own data to a corpus: files, their rows, records.

folders     path -> files, also in the layouts of Hugging Face
readers     a file -> its rows, one at a time, whatever is wrong with them
shapes      a row -> a record, or the reason why it is none
corpus      all of it, streamed into shards with a manifest
"""
