"""A trained network made smaller, step by step, each step measured.

subject.py      the network on its way, and what steps may use
recipe.py       a YAML list of steps;  registry.py  what each of them does
fine_tune.py    training goes on
values.py       tables in fp16, int8 or int4
share_rows.py   fewer rows of tables;  row_fitting.py  where shared rows start
narrow_tables.py  fewer columns of tables
select_fields.py  fields that are worth little leave;  gates.py  what each is worth
carrying.py     weights handed from one network to the next
sizes.py        bytes and multiply-adds of a network as it is served
pipeline.py     all steps in order, resumable, on a copy: the checkpoint it starts from is never written to
report.py       what it did
"""
