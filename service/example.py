"""A request that works on a given bundle: a demo user of its own, and context values that it knows."""

import json
import shlex
from typing import Any

from bundle.folder import Bundle
from bundle.schema import FIRST_KNOWN, FieldSpec, Kind


def example_request(bundle: Bundle, k: int = 5) -> dict[str, Any]:
    """The body of a rank request. Without demo users it is for an unknown one."""
    user_id = next(iter(bundle.users.ids()), "nobody") if bundle.users is not None else "nobody"
    context: dict[str, object] = {
        name: sets.values.value_of(FIRST_KNOWN + len(sets.values) // 2)
        for name, sets in bundle.targeting.items()
        if len(sets.values)
    }
    context |= {field.name: _value(bundle, field) for field in bundle.manifest.features.context.fields}
    return {
        "user_id": user_id,
        "context": {name: value for name, value in context.items() if value is not None},
        "k": k,
    }


def curl_line(bundle: Bundle, address: str, with_key: bool = False) -> str:
    """A shell line that asks the service at `address` for ads. `with_key`: with the key that the variable
    ADRANK_API_KEY of the shell has."""
    body = json.dumps(example_request(bundle), ensure_ascii=False)
    key = ' -H "authorization: Bearer $ADRANK_API_KEY"' if with_key else ""
    return f"curl -s {address}/v1/rank -H 'content-type: application/json'{key} -d {shlex.quote(body)}"


def _value(bundle: Bundle, field: FieldSpec) -> object:
    """A known value: the one in the middle of the vocabulary, of the buckets, or the mean. None when there is none."""
    if field.kind is Kind.NUMBER:
        return round(field.mean, 3)
    if field.kind is Kind.BUCKETED:
        return field.edges[len(field.edges) // 2] if field.edges else 0
    vocabulary = bundle.encoder.vocabulary_of(field)
    if not len(vocabulary):
        return None
    value = vocabulary.value_of(FIRST_KNOWN + len(vocabulary) // 2)
    return [value] if field.kind is Kind.MULTIVALUED else value
