"""Workers on other machines: a share of them on each host, and the bridge between it and the updater.

`share` runs on a host, `bridge` in a process beside the orchestrator, and `remote` is the orchestrator's
end of it. How a share is started and talked to is a `Cluster`'s: see `ray`, the only file that knows it.
"""
