"""Watch a run from another program: wait until its return is good enough, then stop it.

python read_status.py http://127.0.0.1:8420/#token=... 450
"""

import json
import subprocess
import sys
import time
import urllib.request

# Ignore http_proxy, which does not lead to a run on this machine.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, path: str, token: str | None = None) -> dict:
    """GET (with a token: POST) a JSON document of a run."""
    request = urllib.request.Request(url + path, method="POST" if token else "GET")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json")
        request.data = b"{}"
    with DIRECTLY.open(request, timeout=30) as answer:
        return json.load(answer)


def stop_when_good(page: str, good: float) -> None:
    """Poll once a second; stopping writes a final checkpoint."""
    url, _, token = page.partition("#token=")
    while True:
        try:
            status = ask(url, "status")
        except OSError as error:
            print(f"the run no longer answers: {error}")
            return
        train, state = status["returns"]["train"], status["run"]["state"]
        print(state, status["progress"]["env_steps"], "env steps, return", train["mean"])
        if state in ("running", "degraded") and train["count"] >= 100 and train["mean"] >= good:
            print(ask(url, "control/stop", token)["text"])
            return
        if state in ("stopping", "finished", "stopped", "failed"):
            return
        time.sleep(1)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        stop_when_good(sys.argv[1], float(sys.argv[2]))
    else:  # start a run to watch
        serve = [sys.executable, "-m", "aa2c", "serve", "--quiet", "--port", "0", "--workers", "2"]
        run = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        stop_when_good(run.stdout.readline().split()[-1], float(sys.argv[1]))
        sys.exit(run.wait())
