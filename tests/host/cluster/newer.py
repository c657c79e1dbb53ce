"""A Ray cluster as it is seen by another version of aa2c; and as a program, by another version of Ray."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from aa2c import Config
from aa2c.errors import StartError
from aa2c.host.cluster import ray as ours

WANTED = "99.0"


class Newer(ours.RayCluster):
    """Wants this version of aa2c, which no host has."""

    async def start(self, share):
        wanted = ours.versions() | {"aa2c": WANTED}
        with patch.object(ours, "versions", lambda: wanted):
            return await super().start(share)


if __name__ == "__main__":
    import ray

    cluster = ours.RayCluster(Config(engine="ray", address=sys.argv[1]), Path(sys.argv[2]))
    with patch.object(ray, "__version__", WANTED):
        try:
            cluster.open()
        except StartError as error:
            print(error)
