"""Amazon's own ways, by botocore (extra `bedrock`): who we are there, and how a request is signed.

botocore takes 0.3 s to import and its credentials may be fetched over the network, so both happen in a thread.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from multidict import CIMultiDict

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure
from fanout.providers.transport.http import HttpRequest

SIGNED_IN_A_THREAD_BYTES = 256 * 1024
"""Hashing more than this would hold the event loop for too long."""
LOOK_AGAIN_S = 10.0
"""Where no credentials are, a look costs seconds (a machine outside AWS waits for its metadata service)."""
NEEDS_EXTRA = "`{name}` needs AWS_BEARER_TOKEN_BEDROCK, or botocore to sign its requests: pip install 'fanout[bedrock]'"
NO_CREDENTIALS = (
    "no AWS credentials for `{name}` ({reason}); set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
    " or log in with the AWS command line"
)


class Signer:
    """Signs requests with the credentials of the environment, files, or machine, renewed in time.

    Args:
        credentials: botocore's, where they are not to be looked for.
    """

    def __init__(self, name: str, credentials: Any = None) -> None:
        self._name = name
        self._lock = asyncio.Lock()
        self._credentials = credentials
        self._failed: tuple[float, Failure] | None = None

    async def sign(self, request: HttpRequest, service: str, region: str) -> HttpRequest:
        """The request with its signature, which is good for five minutes.

        Raises:
            ProviderError: `not_configured`: no botocore, or no credentials.
        """
        credentials = await self._frozen()
        if len(request.body) > SIGNED_IN_A_THREAD_BYTES:
            return await asyncio.to_thread(signed, request, credentials, service, region)
        return signed(request, credentials, service, region)

    async def _frozen(self) -> Any:
        """The credentials as they are now: id, secret and token of one and the same renewal."""
        if self._credentials is None or _is_stale(self._credentials):
            async with self._lock:
                return await self._renewed()
        return self._credentials.get_frozen_credentials()

    async def _renewed(self) -> Any:
        if self._failed and time.monotonic() < self._failed[0]:
            raise ProviderError(self._failed[1])
        try:
            self._credentials, frozen = await asyncio.to_thread(_looked_up, self._name, self._credentials)
        except ProviderError as error:
            self._failed = time.monotonic() + LOOK_AGAIN_S, error.failure
            raise
        return frozen


def _is_stale(credentials: Any) -> bool:
    """Whether they must or should be renewed; those that stand in the environment never are."""
    refresh_needed = getattr(credentials, "refresh_needed", None)
    return bool(refresh_needed and refresh_needed())


def _looked_up(name: str, credentials: Any) -> tuple[Any, Any]:
    """botocore's credentials, found if there are none yet, and frozen. Blocks."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session
    except ImportError:
        raise not_configured(NEEDS_EXTRA.format(name=name)) from None
    try:
        found = credentials or Session().get_credentials()
        frozen = found.get_frozen_credentials() if found else None
    except (BotoCoreError, ClientError, OSError) as error:
        # Its name says enough; its words may name files and addresses.
        raise not_configured(NO_CREDENTIALS.format(name=name, reason=type(error).__name__)) from error
    if frozen is None or not frozen.access_key:
        raise not_configured(NO_CREDENTIALS.format(name=name, reason="none found"))
    return found, frozen


def signed(request: HttpRequest, credentials: Any, service: str, region: str) -> HttpRequest:
    """The request with the headers of Signature Version 4: those that AWS wants signed are, others may change on the way.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    to_sign = {name: value for name, value in request.headers.items() if _is_signed(name.lower())}
    aws = AWSRequest(method="POST", url=str(request.url), data=request.body, headers=to_sign)
    SigV4Auth(credentials, service, region).add_auth(aws)
    headers = CIMultiDict(request.headers)
    headers.update(aws.headers.items())
    return request._replace(headers=headers)


def _is_signed(name: str) -> bool:
    return name == "content-type" or name.startswith("x-amz-")


def not_configured(sentence: str) -> ProviderError:
    """The failure of a call that cannot even be sent."""
    return ProviderError(Failure("not_configured", sentence, code="not_configured"))
