"""The networks, one file each.

network.py      what all share: embedded sides, the work that is done once a request, the bias of the position
layers.py       embeddings of all fields, Dice, multi-layer perceptron;  attention.py  the activation unit of DIN
dqm.py          retrieves and pre-ranks: two towers
gwen.py din.py  fine-rankers
lr.py mlr.py    linear ones, made of linear.py, sparse by sparsity.py;  cascade.py  a first model for them
config.py       what can be set of each;  registry.py  configuration -> network
"""
