"""Offline: checkpoints in, a proved bundle out.

din_graph.py     DIN for one request: user side once, candidates innermost
column_attention.py  its activation unit;   columns.py  its activations
query_graph.py   the query vector of one request
request_graph.py any other network for one request
to_onnx.py       a serving module -> ONNX file and its interface
weights.py       a graph on disk, large weights beside it
precision.py     fp32, fp16 or int8: tries (workbench.py, work.py, pairs.py, deviation.py) and takes what pays
tables.py  dense.py  half.py   the forms it tries;   recording.py  their golden rows
matching.py      posting lists
parity.py        ONNX against torch on real requests; an export proves itself or fails
assemble.py      all of it -> one bundle folder
command.py       adrank export;   demo.py  adrank demo
"""
