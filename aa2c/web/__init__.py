"""The aiohttp application: page, /status, /metrics, health; and its security middleware."""
