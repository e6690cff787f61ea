"""A trained network made smaller, step by step, each step measured.

subject.py      the network on its way, and what steps may use
recipe.py       a YAML list of steps;  registry.py  what each of them does
fine_tune.py    training goes on
values.py       tables in fp16, int8 or int4
sizes.py        bytes and multiply-adds of a network as it is served
pipeline.py     all steps in order, resumable, on a copy: the checkpoint it starts from is never written to
report.py       what it did
"""
