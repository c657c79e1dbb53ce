"""A program: makes a cluster's head say that it runs on this version of Python, as one of that version would."""

from __future__ import annotations

import json
import sys

from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient

if __name__ == "__main__":
    address, version = sys.argv[1:]
    head = GcsClient(address=address)
    metadata = json.loads(head.internal_kv_get(CLUSTER_METADATA_KEY, KV_NAMESPACE_CLUSTER))
    changed = json.dumps(metadata | {"python_version": version}).encode()
    head.internal_kv_put(CLUSTER_METADATA_KEY, changed, True, KV_NAMESPACE_CLUSTER)
