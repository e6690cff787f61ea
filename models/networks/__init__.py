"""The networks, one file each.

network.py      what all share: embedded sides, the work that is done once a request, the bias of the position
layers.py       embeddings of all fields, multi-layer perceptron;  encoder.py  the fields of a side as one vector
attention.py    the activation unit of DIN
tables.py       embedding tables of fewer rows or columns;  merging.py  their expansions in the next layer
dqm.py          retrieves and pre-ranks: two towers
gwen.py din.py  fine-rankers
lr.py mlr.py    linear ones, made of linear.py, sparse by sparsity.py;  cascade.py  a first model for them
fields.py       each field as one vector;  first_order.py  one weight an id;  crosses.py  one a pair of ids
fm.py           factorisation machine: fine-ranks, pre-ranks, retrieves
wide_deep.py fnn.py pnn.py deepfm.py  fine-rankers over products of fields
dssm.py         two towers compared by their cosine
cold.py         a small network to pre-rank by
mtl.py          a network a scene;  related.py  a second label beside the asked one
dicm.py         fixed vectors of images, reduced and attended to
config.py       what can be set of each;  registry.py  configuration -> network;  cost.py  multiply-adds a candidate
"""
