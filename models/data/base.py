"""Features that were fitted before, on which new data are prepared so that ids keep their meaning.

Bucket edges, means and deviations stay as they were; a vocabulary is the old values united with the new ones. Ids are
places in a sorted vocabulary, so the id of an old value may change: what belongs to it is moved by value
(models/continuing.py).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bundle.encoding import Encoder
from bundle.schema import FeatureSchema, FieldSpec, Kind, Side
from bundle.vocabulary import Vocabulary
from models.data.fit import Fitted
from models.data.spec import DataError, DatasetSpec, FeatureColumn


@dataclass(frozen=True, slots=True)
class Base:
    """A feature schema with its vocabularies."""

    origin: str
    """Where it comes from, for messages."""
    schema: FeatureSchema
    vocabularies: Mapping[str, Vocabulary]

    def digest(self) -> str:
        """Hash of the features and all values; networks that were trained on the same data have the same."""
        found = hashlib.sha256(self.schema.model_dump_json().encode())
        for name in sorted(self.vocabularies):
            values = self.vocabularies[name].values
            found.update(f"{name} {values.dtype} {len(values)}".encode())
            found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    def check(self, spec: DatasetSpec) -> None:
        """DataError unless the description has the same features and histories. It names the first that differs."""
        self._check_side(spec, "user", spec.user_features, self.schema.user)
        self._check_side(spec, "context", spec.context_features, self.schema.context)
        self._check_side(spec, "ad", spec.ad_features, self.schema.ad)
        self._check_names(spec, "histories", [h.name for h in spec.histories], [h.name for h in self.schema.histories])
        for new, old in zip(spec.histories, self.schema.histories, strict=True):
            for name in ("fields", "of_ads"):
                self._same(spec, f"history {new.name!r}: {name}", getattr(new, name), getattr(old, name))

    def extended(self, fitted: Fitted) -> Fitted:
        """What was fitted to new data, on this base. DataError when values changed their type."""
        vocabularies = {
            name: self._united(name, vocabulary) for name, vocabulary in fitted.encoder.vocabularies.items()
        }

        def side(new: Side, old: Side) -> Side:
            return Side(fields=tuple(map(field, new.fields, old.fields)))

        def field(new: FieldSpec, old: FieldSpec) -> FieldSpec:
            return old if new.vocabulary is None else new.model_copy(update={"size": vocabularies[new.vocabulary].size})

        new = fitted.encoder.schema
        schema = new.model_copy(
            update={
                "user": side(new.user, self.schema.user),
                "context": side(new.context, self.schema.context),
                "ad": side(new.ad, self.schema.ad),
            }
        )
        return replace(fitted, encoder=Encoder(schema, vocabularies))

    def _united(self, name: str, new: Vocabulary) -> Vocabulary:
        old = self.vocabularies[name]
        if not len(old) or not len(new):
            return new if len(new) else old
        if old.is_integer != new.is_integer:
            kinds = ["integers" if each.is_integer else "text" for each in (new, old)]
            raise DataError(
                f"{name!r} holds {kinds[0]}, in {self.origin} {kinds[1]}: none of its values would be known"
            )
        return Vocabulary(np.union1d(old.values, new.values))

    def _check_side(self, spec: DatasetSpec, where: str, features: Sequence[FeatureColumn], side: Side) -> None:
        self._check_names(spec, f"{where} fields", [f.column for f in features], [f.name for f in side.fields])
        for new, old in zip(features, side.fields, strict=True):
            what = f"{where} field {new.column!r}"
            self._same(spec, f"{what}: kind", new.kind.value, old.kind.value)
            self._same(spec, f"{what}: log", new.log, old.log)
            if new.kind is Kind.MULTIVALUED:
                self._same(spec, f"{what}: max_values", new.max_values, old.width)
            if new.kind is Kind.BUCKETED and new.buckets < len(old.edges) + 1:
                raise DataError(
                    f"{spec.name}: {what}: buckets is {new.buckets}, at least {len(old.edges) + 1} are needed for the "
                    f"edges of {self.origin}, which stay"
                )

    def _check_names(self, spec: DatasetSpec, what: str, new: Sequence[str], old: Sequence[str]) -> None:
        for here, there, names in ((spec.name, self.origin, old), (self.origin, spec.name, new)):
            if missing := [name for name in names if name not in (new if names is old else old)]:
                raise DataError(f"{here}: {what} lack {missing[0]!r}, which {there} has")
        self._same(spec, f"the order of {what}", list(new), list(old))

    def _same(self, spec: DatasetSpec, what: str, new: object, old: object) -> None:
        if new != old:
            raise DataError(f"{spec.name}: {what} is {new!r}, in {self.origin} {old!r}")
