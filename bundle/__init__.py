"""The contract between offline training and online serving.

A *bundle* is an immutable folder that holds everything one model version needs: feature schema, vocabularies, the ad
catalogue, ONNX graphs, the retrieval index and golden rows. `export/` writes it, `service/` reads it, and both encode
raw feature values through `bundle/encoding.py`, the only encoder there is.

    schema.py      which features exist and how each is encoded
    vocabulary.py  value -> id, by binary search in a sorted, memory-mapped array
    encoding.py    raw values -> id and number arrays
    record.py      one user's stored features: profile and behaviour history, packed in bytes
    manifest.py    manifest.json: stages, graphs, files and their checksums
    folder.py      write, open and verify a bundle folder
    precision.py   what a graph is stored and computed in, and how far that is from fp32
    golden.py      recorded inputs and outputs, replayed when a bundle is loaded
    command.py     adrank bundle show, adrank bundle verify

This package depends on numpy and pydantic only, and imports nothing else of ours.
"""
