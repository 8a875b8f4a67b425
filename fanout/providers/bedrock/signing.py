"""Credentials and signatures of AWS, by botocore (extra `bedrock`).

botocore takes 0.3 s to import and its credentials may be fetched over the network, so both happen in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any, TypeAlias

from multidict import CIMultiDict

from fanout.core.errors import ProviderError, explain_missing_extra
from fanout.core.schema import Failure
from fanout.core.threads import run_in_thread
from fanout.providers.mapping.failures import configuration_error
from fanout.providers.transport.request import HttpRequest

MAX_INLINE_SIGN_BYTES = 256 * 1024
"""Hashing more than this would hold the event loop for too long."""
RETRY_LOOKUP_S = 10.0
"""Where there are no credentials, looking for them takes seconds (a machine outside AWS waits for its metadata service)."""
NO_CREDENTIALS = (
    "no AWS credentials for `{name}` ({reason}); set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
    " or log in with the AWS command line"
)


AwsCredentials: TypeAlias = Any
"""botocore's, which has no types."""


class Signer:
    """Signer of requests, with the credentials of the environment, files, or machine, renewed in time.

    Args:
        name: the provider's.
        credentials: botocore's, where they are not to be looked for.
    """

    def __init__(self, name: str, credentials: AwsCredentials = None) -> None:
        self._name = name
        self._lock = asyncio.Lock()
        self._credentials = credentials
        self._failed: tuple[float, Failure] | None = None
        """When to look for credentials again, and why there are none."""

    async def sign(self, request: HttpRequest, service: str, region: str) -> HttpRequest:
        """Return the request with its signature, which is good for five minutes.

        Raises:
            ProviderError: `not_configured`: no botocore, or no credentials.
        """
        credentials = await self._freeze_credentials()
        if sum(map(len, request.pieces)) > MAX_INLINE_SIGN_BYTES:
            return await run_in_thread("calls", sign_request, request, credentials, service, region)
        return sign_request(request, credentials, service, region)

    async def _freeze_credentials(self) -> AwsCredentials:
        """Return the credentials as they are now: id, secret and token of one and the same renewal."""
        if self._credentials is None or _is_stale(self._credentials):
            async with self._lock:  # one look-up for all calls that wait
                return await self._renew_credentials()
        return self._credentials.get_frozen_credentials()

    async def _renew_credentials(self) -> AwsCredentials:
        # Calls fail at once instead of each waiting for the metadata service.
        if self._failed and time.monotonic() < self._failed[0]:
            raise ProviderError(self._failed[1])
        try:
            self._credentials, frozen = await run_in_thread("setup", _find_credentials, self._name, self._credentials)
        except ProviderError as error:
            self._failed = time.monotonic() + RETRY_LOOKUP_S, error.failure
            raise
        return frozen


def _is_stale(credentials: AwsCredentials) -> bool:
    """Return whether they must or should be renewed; those that stand in the environment never are."""
    refresh_needed = getattr(credentials, "refresh_needed", None)
    return bool(refresh_needed and refresh_needed())


def _find_credentials(name: str, credentials: AwsCredentials) -> tuple[AwsCredentials, AwsCredentials]:
    """Return botocore's credentials, looked for if there are none yet, and frozen. Blocks."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session
    except ImportError:
        needed = explain_missing_extra("botocore", "bedrock")
        raise configuration_error(f"`{name}` needs AWS_BEARER_TOKEN_BEDROCK, or, to sign its requests, {needed}") from None
    try:
        found = credentials or Session().get_credentials()
        frozen = found.get_frozen_credentials() if found else None
    except (BotoCoreError, ClientError, OSError) as error:
        # The class says enough; the message may name files and addresses.
        raise configuration_error(NO_CREDENTIALS.format(name=name, reason=type(error).__name__)) from error
    if frozen is None or not frozen.access_key:
        raise configuration_error(NO_CREDENTIALS.format(name=name, reason="none found"))
    return found, frozen


def sign_request(request: HttpRequest, credentials: AwsCredentials, service: str, region: str) -> HttpRequest:
    """Return the request with the headers of Signature Version 4. Only what AWS requires is signed: others may change en route.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    to_sign = {name: value for name, value in request.headers.items() if _must_sign(name.lower())}
    aws = AWSRequest(method="POST", url=str(request.url), headers=to_sign)
    auth, digest = SigV4Auth(credentials, service, region), hashlib.sha256()
    for piece in request.pieces:
        digest.update(piece)
    auth.payload = lambda _: digest.hexdigest()
    auth.add_auth(aws)
    headers = CIMultiDict(request.headers)
    headers.update(aws.headers.items())
    return request._replace(headers=headers)


def _must_sign(name: str) -> bool:
    return name == "content-type" or name.startswith("x-amz-")
