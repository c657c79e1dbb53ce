"""Train inside an aiohttp service of your own: POST /train starts a run, GET /train shows it.

python in_aiohttp.py &
curl -X POST -H "Content-Type: application/json" -d '{}' localhost:8000/train
curl localhost:8000/train

It requires JSON, which pages of other sites cannot send without a CORS preflight.
"""

import asyncio
import sys

from aiohttp import web

from aa2c import Aa2cError, Orchestrator, recipe

RUN = web.AppKey("run", dict)
ENV_STEPS = web.AppKey("env_steps", int)
ENDED = ("finished", "stopped", "failed")


async def start(request: web.Request) -> web.Response:
    """Start a run, unless one is in progress."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send JSON")
    runs = request.app[RUN]
    if "run" in runs and runs["run"].state not in ENDED:
        raise web.HTTPConflict(text="a run is in progress")
    run = Orchestrator(recipe(workers=2, total_env_steps=request.app[ENV_STEPS]))
    try:
        await run.start()
    except Aa2cError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    runs["run"] = run
    return web.json_response({"id": run.id}, status=201)


async def show(request: web.Request) -> web.Response:
    """What a run's own /status would serve."""
    runs = request.app[RUN]
    if "run" not in runs:
        raise web.HTTPNotFound(text="there is no run: POST to this address")
    return web.json_response(runs["run"].status())


async def stop(app: web.Application) -> None:
    """On shutdown, end the run with a final checkpoint."""
    if "run" in app[RUN]:
        await app[RUN]["run"].close()


def make_app(env_steps: int) -> web.Application:
    """The service."""
    app = web.Application()
    app[RUN] = {}
    app[ENV_STEPS] = env_steps
    app.add_routes([web.post("/train", start), web.get("/train", show)])
    app.on_cleanup.append(stop)
    return app


async def try_it(env_steps: int) -> None:
    """Use the service as a client would."""
    import aiohttp

    runner = web.AppRunner(make_app(env_steps))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/train"
    async with aiohttp.ClientSession() as client:
        print("started", await (await client.post(url, json={})).json())
        state = "starting"
        while state not in ENDED:
            await asyncio.sleep(1)
            status = await (await client.get(url)).json()
            state = status["run"]["state"]
            print(state, status["progress"]["env_steps"])
    await runner.cleanup()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(try_it(int(sys.argv[1])))
    else:
        web.run_app(make_app(500_000), host="127.0.0.1", port=8000)
