"""Hashes of a data set: whether a model's rows fit it, and whether a run can go on with it."""

from __future__ import annotations

import hashlib
import json

from adi_lite.data.chunks import chunks
from adi_lite.data.schema import MultiDomainDataset, Ragged


def fingerprint(data: MultiDomainDataset) -> str:
    """A hash of the domains and of what each row of users and items stands for: equal where a model's rows fit."""
    if data.stamp is not None:
        return data.stamp.ids
    digest = hashlib.sha256(json.dumps(data.schema.to_dict(), sort_keys=True).encode())
    for ids in (data.user_ids, data.item_ids):
        for part in chunks(len(ids)):
            digest.update(b"\0" * (part.start > 0) + "\0".join(map(str, ids[part].tolist())).encode())
    return digest.hexdigest()[:16]


def records_fingerprint(data: MultiDomainDataset) -> str:
    """A hash of all that training reads beside the ids: a run goes on as it began only where this is equal."""
    if data.stamp is not None:
        return data.stamp.records
    digest = hashlib.sha256()
    records = [c for part in (data.train, data.valid) for c in (part.user, part.item, part.domain)]
    columns = [*data.users.values(), *data.items.values(), data.history]
    for then in [*data.snapshots.values(), *(p.known for p in data.periods)]:
        columns += [*then.users.values(), *then.items.values(), then.history, *then.catalogues]
    if data.periods:
        digest.update(str([p.begins for p in data.periods]).encode())
    for column in [*records, *data.catalogues, *columns]:
        parts = () if column is None else (column.values, column.offsets) if isinstance(column, Ragged) else (column,)
        for tensor in parts:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()[:16]
