"""A language model behind an OpenAI-compatible server."""

import json
import os
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import tenacity

from raysd.captions.settings import HERE, CaptionSettings
from raysd.errors import UserError

FIELD = "captions.server"
SECONDS = 300.0  # to wait for an answer
ATTEMPTS = 8
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
"""Codes of answers that may be others a moment later."""
PAUSES = tenacity.wait_exponential_jitter(initial=0.5, max=20)
LONGEST_PAUSE = 120.0  # seconds that a server may ask for
LONGEST_ANSWER = 2**22  # bytes
LONGEST_REASON = 160


class BusyError(Exception):
    """The server did not answer, or said to ask again.

    Args:
        reason: what it said.
        pause: seconds after which it wants to be asked.
    """

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = min(pause, LONGEST_PAUSE)


def _pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds to wait before a server is asked again: longer each time, and as long as it said."""
    error = state.outcome.exception() if state.outcome is not None else None
    return max(PAUSES(state), error.pause if isinstance(error, BusyError) else 0.0)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirects: they would take the key to another address."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Return no request, so that the redirect is an error."""


class Server:
    """An OpenAI-compatible server that answers instructions.

    Args:
        settings: its address, the model's name, and how tokens are chosen.
    """

    def __init__(self, settings: CaptionSettings) -> None:
        self.settings, self.address = settings, f"{settings.server}/chat/completions"
        self.ended = threading.Event()
        """Set when nobody waits for answers any more."""
        self.key = os.environ.get(settings.key_variable, "") if settings.key_variable else ""
        if settings.key_variable and not self.key:
            raise UserError("captions.key_variable", settings.key_variable, "is not set; export it, or leave it out")
        if not (self.key.isascii() and self.key.isprintable()):
            raise UserError("captions.key_variable", settings.key_variable, "holds no key; look for a line break in it")
        proxies = [urllib.request.ProxyHandler({})] if urlsplit(self.address).hostname in HERE else []
        self.opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def write(self, instruction: str, seed: int) -> str:
        """Return the server's answer to an instruction.

        Raises:
            UserError: the server cannot be reached, or refuses the request.
        """
        settings = self.settings
        if self.ended.is_set():
            raise self._refused("is not asked any more")
        body: dict[str, Any] = {"model": settings.model, "messages": [{"role": "user", "content": instruction}], "n": 1}
        body |= {"max_tokens": settings.max_new_tokens, "temperature": settings.temperature, "top_p": settings.top_p}
        body |= {"seed": seed % 2**31}  # what servers take
        retrying = tenacity.Retrying(
            stop=tenacity.stop_any(tenacity.stop_after_attempt(ATTEMPTS), tenacity.stop_when_event_set(self.ended)),
            wait=_pause,
            sleep=tenacity.sleep_using_event(self.ended),
            retry=tenacity.retry_if_exception_type(BusyError),
            reraise=True,
        )
        try:
            answer = retrying(self._post, json.dumps(body).encode())
        except BusyError as error:
            raise self._refused(f"does not answer ({error}); start it, or lower captions.num_requests") from None
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise self._refused("gives no OpenAI-compatible answer; its address often ends in /v1") from None
        return content if isinstance(content, str) else ""

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.address, body, headers, method="POST")
        try:
            with self.opener.open(request, timeout=SECONDS) as response:
                answer: bytes = response.read(LONGEST_ANSWER)
                return answer
        except urllib.error.HTTPError as error:
            reason = self._shown(
                f"{error.code} {error.reason}: {error.read(LONGEST_REASON * 4).decode(errors='replace')}"
            )
            if error.code in BUSY:
                wanted = error.headers.get("Retry-After", "")
                raise BusyError(reason, float(wanted) if wanted.isdecimal() else 0.0) from None
            raise self._refused(f"refuses the request ({reason})") from None
        except (OSError, HTTPException) as error:
            raise BusyError(self._shown(str(getattr(error, "reason", None) or error or type(error).__name__))) from None

    def _refused(self, remedy: str) -> UserError:
        return UserError(FIELD, self.settings.server, remedy)

    def _shown(self, reason: str) -> str:
        """Return a reason on one short line, without the key, which some servers repeat."""
        text = " ".join(reason.split())
        return (text.replace(self.key, "...") if self.key else text)[:LONGEST_REASON]
