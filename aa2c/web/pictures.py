"""What a person watches of a run: the newest frames of an environment, the video of the newest policy."""

from __future__ import annotations

import base64

from aiohttp import web
from aiohttp.typedefs import Handler

from aa2c.errors import ControlRefused
from aa2c.run.controls import Controls
from aa2c.web.security import refusal
from aa2c.web.strict_json import json_response

CHUNK_BYTES = 64 * 1024


def frames(controls: Controls) -> Handler:
    """A route that serves the newest frames of one environment."""

    async def handle(_: web.Request) -> web.StreamResponse:
        try:
            message = await controls.frames()
        except TimeoutError:
            return refusal(504, "No frames arrived in time: the worker is busy or has died.")
        except ControlRefused as error:
            return refusal(409, str(error))
        keys = ("shape", "values", "data", "seen")
        parts = {key: message[key] for key in keys if key in message}
        if "data" in parts:
            parts["data"] = base64.b64encode(parts["data"]).decode()
        return json_response({"worker": 0} | parts)

    return handle


def video(controls: Controls) -> Handler:
    """A route that serves the video that was recorded last, in pieces: many may ask at once."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            file = controls.videos.file().open("rb")
        except ControlRefused as error:
            return refusal(404, str(error))
        except OSError as error:
            return refusal(404, f"The video cannot be read: {error.strerror}.")
        with file:
            response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
            response.content_length = file.seek(0, 2)
            file.seek(0)
            await response.prepare(request)
            while piece := file.read(CHUNK_BYTES):
                await response.write(piece)
        return response

    return handle
